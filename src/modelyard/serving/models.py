"""The versions of one endpoint: by name and digest, and which of them answers where no version is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from modelyard._kit.digest import short
from modelyard.serving.asked import Asked
from modelyard.serving.batch import FEWEST, Batcher
from modelyard.serving.board import Board
from modelyard.serving.errors import HttpError
from modelyard.serving.guards.bell import Bell
from modelyard.serving.http.exchange import Exchange
from modelyard.serving.limits import Days
from modelyard.serving.observability.accesslog import AccessLog
from modelyard.serving.observability.metrics import Metrics
from modelyard.serving.observability.retired import Retired
from modelyard.serving.protocols.feedback import Feedback
from modelyard.serving.service import Service

__all__ = ["Models", "Tried", "all_ready", "not_here", "not_ready"]


class Tried(Protocol):
    """A challenger on trial."""

    challenger: Service

    def end(self) -> None:
        """Let the champion answer everything again."""
        ...

    def close(self) -> None:
        """End, and wait for what is under way."""
        ...

    def stats(self) -> dict[str, Any]:
        """Return what it and the champion have answered, as plain data."""
        ...


class Loads(Protocol):
    """Loads and unloads an endpoint by requests."""

    def ask(self, exchange: Exchange, answer: bytes, *, loaded: bool) -> None:
        """Have it loaded or unloaded, and answer once that is so."""
        ...


class Gathers(Protocol):
    """Gathers requests before a version has them."""

    def counted(self) -> int:
        """Return how many there are, for who takes room beside them."""
        ...


class Models:
    """What one endpoint of a server answers with.

    Args:
        default: The version that answers.

    Attributes:
        name: Name of the endpoint.
        log: Where its answered requests go.
        loading: Loads and unloads it by requests; none: what is served is served to the end.
        refused: Error code -> requests refused with it.
        killed: Name -> why somebody has switched it off.
        rollout: The challenger on trial.
        board: Where several processes on one port tell each other what they count; none: there is one.
        days: Counts what callers ask about in a day, if that is bounded.
        lane: Where requests wait before a version has them.
        bell: Tells when too much is refused or held back, if that is declared.
        metrics: What is counted beside the models.
        retired: What versions counted that are gone.
        feedback: Writes outcomes that are sent.
        draining: The server ends, and no version takes anything new.
    """

    def __init__(self, default: Service) -> None:
        self.refused: Counter[str] = Counter()
        self.killed: dict[str, str] = {}
        self.draining = False
        self.rollout: Tried | None = None
        self.days: Days | None = None
        self.bell: Bell | None = None
        self.lane: Gathers | None = None
        self.board: Board | None = None
        self.metrics = Metrics()
        self.retired = Retired()
        self.feedback = Feedback()
        self.name, self.log = default.endpoint, default.log
        self.loading: Loads | None = None
        self._default: Service | None = default
        self._named: dict[str, dict[str, Service]] = {}
        self._current: dict[str, Service] = {}
        self._all: tuple[Service, ...] = ()
        # Where there is one version, as mostly: what gathers its requests.
        self._only: Batcher[Asked] | None = None
        self._gone = self._gone_rows = 0
        self._access: AccessLog | None = None
        self.put(default)

    def tell(self, access: AccessLog) -> None:
        """Have every version write a line about each request that it answers."""
        self._access = access
        for service in self:
            service.access = access

    def bound(self, days: Days) -> None:
        """Have every version count what a caller asks of all of them in a day."""
        self.days = days
        for service in self:
            service.days = days

    def put(self, service: Service, *, current: bool = True) -> None:
        """Take a version in; `current`: it answers for its name from now on."""
        service.killed = service.endpoint in self.killed
        service.access, service.days, service.draining = self._access, self.days, self.draining
        versions = self._named.setdefault(service.endpoint, {})
        versions[short(service.version.digest)] = service
        versions[service.version.digest] = service
        self._have((*(one for one in self._all if one is not service), service))
        if current:
            self._current[service.endpoint] = service
            self._default = service

    def unload(self) -> Service | None:
        """Answer nothing any more until another version is put in; return the one that did."""
        before, self._default = self._default, None
        self._current.clear()
        return before

    @property
    def loaded(self) -> bool:
        """Whether a version answers."""
        return self._default is not None

    @property
    def default(self) -> Service:
        """The version that answers; replaced in one step when another takes over.

        Raises:
            HttpError: None does, since it is unloaded (404).
        """
        if self._default is None:
            raise not_here()
        return self._default

    def drop(self, service: Service) -> None:
        """Forget a version that is not the current one of its name."""
        versions = self._named.get(service.endpoint, {})
        for name in [name for name, one in versions.items() if one is service]:
            del versions[name]
        if service in self._all:
            self._gone += service.answered
            self._gone_rows += service.rows
            self._have(tuple(one for one in self._all if one is not service))
            self.retired.add(service, self._all, self.metrics.other)

    def _have(self, versions: tuple[Service, ...]) -> None:
        self._all = versions
        self._only = versions[0].batcher if len(versions) == 1 else None

    def tried(self) -> dict[str, Any]:
        """Return what is known of the challenger on trial beside the default, as plain data."""
        return {} if self.rollout is None else {"rollout": self.rollout.stats()}

    def drain(self) -> None:
        """Take nothing new, whichever version comes yet."""
        self.draining = True
        for service in self._all:
            service.draining = True

    def kill(self, name: str, reason: str) -> None:
        """Answer nothing under a name any more, whatever the version."""
        self.killed[name] = reason
        for service in self._all:
            if service.endpoint == name:
                service.kill()

    def revive(self, name: str) -> None:
        """Answer under a name again."""
        self.killed.pop(name, None)
        for service in self._all:
            service.killed = service.endpoint in self.killed

    def version(self, name: str, digest: str) -> Service | None:
        """Return a version by its whole digest, if it is here."""
        return self._named.get(name, {}).get(digest)

    @property
    def answered(self) -> int:
        """Requests answered, by versions that are gone too."""
        return self._gone + sum([service.answered for service in self._all])

    @property
    def rows(self) -> int:
        """Rows of these requests."""
        return self._gone_rows + sum([service.rows for service in self._all])

    @property
    def ready(self) -> bool:
        """Whether a request sent now would be answered and logged, whatever its model."""
        return not self.draining and self.loaded and all(service.ready for service in self._all)

    def check_ready(self) -> None:
        """Say nothing if a request sent now would be answered and logged, whatever its model.

        Raises:
            HttpError: It would not (503).
        """
        if not self.ready:
            raise not_ready()

    def find(self, name: str, version: str = "") -> Service:
        """Return the model of a name and version; without a name the default, without a version the current one.

        Raises:
            HttpError: There is none (404).
        """
        found = self.known(name, version)
        if found is None:
            raise not_here()
        return found

    def known(self, name: str, version: str = "") -> Service | None:
        """Return what `find` does, or none."""
        if not name or self._default is None:
            return self._default
        return self._named.get(name, {}).get(version) if version else self._current.get(name)

    def __iter__(self) -> Iterator[Service]:
        """Yield every version once."""
        return iter(self._all)

    @property
    def waiting(self) -> int:
        """Requests that are under way, but for those in the lane."""
        only = self._only
        return only.waiting if only is not None else sum([service.batcher.waiting for service in self._all])

    def full(self, most: int) -> bool:
        """Say whether they answer so many requests, or one of them is asked in this turn as often as it can answer."""
        gathered = 0 if self.lane is None else self.lane.counted()
        if gathered + self.waiting >= most:
            return True
        only = self._only
        if gathered >= FEWEST and self._default is not None and gathered >= self._default.batcher.room:
            return True
        return only.busy if only is not None else any(service.batcher.busy for service in self._all)


def all_ready(seen: Sequence[Models]) -> bool:
    """Say whether a server takes requests.

    Of several endpoints those do not count that were switched off or unloaded on purpose, as long as another is left:
    who asks for this puts or takes the whole server into or out of service.
    """
    wanted = [one for one in seen if one.loaded and not one.killed] or seen
    return all(one.ready for one in wanted)


def not_here() -> HttpError:
    """Return the refusal of a request for what is not here, or not for this caller."""
    return HttpError(404, "model-not-found", "there is no such model or version here")


def not_ready() -> HttpError:
    """Return the answer to who asks whether requests are taken, and they are not."""
    return HttpError(503, "not-ready", "the server does not take requests at the moment")
