"""Make versions ready, off the way of those that answer: opened, every byte checked, tried on rows of their profile."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from modelyard._kit.digest import short
from modelyard._kit.errors import ModelError, ModelyardError, ServeError, Tampered
from modelyard.inference import open_bundle
from modelyard.records import Alias, Deployment
from modelyard.security.keys import trusted_keys
from modelyard.serving.limits import Limits
from modelyard.serving.observability.log import RequestLog
from modelyard.serving.service import Service
from modelyard.serving.told import errors_said, say
from modelyard.serving.versions.deaths import Deaths
from modelyard.serving.versions.deciding import as_decided
from modelyard.serving.versions.rehearsal import rehearse
from modelyard.serving.versions.settling import Pointer
from modelyard.store.base import Store
from modelyard.store.local import LOCAL
from modelyard.store.opening import open_address
from modelyard.store.origins import origin

__all__ = ["BROKEN", "Stage", "standing", "why"]

# What waiting does not mend: the version itself is not as it should be.
BROKEN = (Tampered, ModelError, ServeError)


class Stage:
    """Makes versions ready.

    Args:
        project: Folder of the project: its keys.
        endpoint: Name under which they are served.
        log: Where answered requests go.
        limits: Limits of the server.
        p99: Seconds within which 99 of 100 answers have to be made; 0 means any.
        deaths: What processes of the endpoint died with; by default none is noticed.

    Attributes:
        project: See above.
        endpoint: See above.
        log: See above.
        deaths: See above.
    """

    def __init__(
        self,
        project: Path,
        endpoint: str,
        log: RequestLog,
        limits: Limits,
        p99: float = 0.0,
        deaths: Deaths | None = None,
    ) -> None:
        self.project = project
        self.endpoint = endpoint
        self.log = log
        self.deaths = deaths or Deaths(project, endpoint, 0.0)
        self._limits = limits
        self._p99 = p99
        # Where models come from: it does not change, and finding out reads the ledger from its beginning.
        self._origins: dict[str, str] = {}

    def prepare(self, store: Store, deployment: Deployment) -> Service:
        """Open a version, check every byte of it, and have it answer rows of its profile.

        Raises:
            ModelyardError: It is not what was signed, cannot be read, does not answer as it should, or an error was
                said on the way (`rehearsal-failed`).
        """
        with errors_said() as said:
            folder = store.blobs.folder(deployment.model.address)
            bundle = open_bundle(folder, trusted=trusted_keys(self.project), version=deployment.model)
            bundle = as_decided(store, bundle, self.project)
            trace = self._origin(store, deployment)
            service = Service(bundle, self.endpoint, self.log, self._limits, trace=trace)
            try:
                rehearse(service, p99=self._p99)
                if said:
                    raise ServeError(
                        "rehearsal-failed",
                        f"model `{short(deployment.model.digest)}` does not go live: an error was said: {said[0]}",
                        hint="the version before it goes on answering",
                    )
            except BaseException:
                service.close()
                raise
        return service

    def _origin(self, store: Store, deployment: Deployment) -> str:
        identity = deployment.model.identity
        if identity not in self._origins:
            self._origins[identity] = origin(store.ledger, deployment)
        return self._origins[identity]

    def newest(self, alias: Alias, address: str = "") -> Service | None:
        """Return the version that an alias points at, or the last one before it that can answer.

        Args:
            alias: Which alias.
            address: Address of the store; empty: the folder of the project.

        Returns:
            A version ready to answer; none where the ledger cannot tell.

        Raises:
            ModelyardError: Why the version that the alias points at cannot answer, if none can.
        """
        try:
            store = open_address(self.project, address or LOCAL)
        except ModelyardError as error:
            say(f"the ledger cannot be read: {error.problem.message}", level="warning")
            return None
        with store:
            try:
                found = [Pointer.of(event) for event in store.ledger.events(kinds=("alias.moved",))]
                found = [one for one in found if (one.to.endpoint, one.to.alias) == (self.endpoint, alias)]
                moves = standing(one.to for one in found)
            except ModelyardError as error:
                say(f"the ledger cannot be read: {error.problem.message}", level="warning")
                return None
            if len(moves) > 1:
                if said := self.deaths.found(moves[0]):
                    text = f"{alias} {short(moves[0].model.digest)} comes last"
                    say(f"error: {text}, {short(moves[1].model.digest)} before it is tried: {said}", level="error")
                    moves.append(moves.pop(0))
                else:
                    self.deaths.watch(found[-1])
            first: Exception | None = None
            for at, to in enumerate(moves):
                try:
                    return self.prepare(store, to)
                except Exception as error:  # noqa: BLE001 - a version that cannot be made ready stops nobody
                    first = first or error
                    self.deaths.forget()
                    if at + 1 < len(moves):
                        then = short(moves[at + 1].model.digest)
                        text = f"{alias} {short(to.model.digest)} cannot answer, {then} before it is tried"
                        say(f"error: {text}: {why(error)}", level="error")
            if isinstance(first, ModelyardError):
                raise first
            if first is not None:
                hint = "point the alias at a version that can be read: modelyard promote"
                raise ModelError("bundle-unreadable", f"{alias} cannot be read: {why(first)}", hint=hint) from first
        return None


def standing(moves: Iterable[Deployment]) -> list[Deployment]:
    """Return where an alias points, and what it pointed at before, newest first.

    A version that somebody has gone back from is not among them: there may have been a reason.
    """
    found: list[Deployment] = []
    for to in moves:
        digests = [one.model.digest for one in found]
        if to.model.digest in digests:
            del found[digests.index(to.model.digest) :]
        found.append(to)
    return found[::-1]


def why(error: Exception) -> str:
    """Return what went wrong, for a line of the server's own logs."""
    if isinstance(error, ModelyardError):
        return f"[{error.code}] {error.problem.message}"
    return f"{type(error).__name__}: {error}"
