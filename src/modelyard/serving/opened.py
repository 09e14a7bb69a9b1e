"""Make endpoints of what a server is told of them: a log, the newest version, and what follows the ledger."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from modelyard._kit.errors import ServeError
from modelyard._kit.places import log_path
from modelyard._kit.text import plural
from modelyard.inference import Bundle, open_bundle
from modelyard.logs import About
from modelyard.records import Alias
from modelyard.security.keys import trusted_keys
from modelyard.security.tokens import TokenBook
from modelyard.serving.board import Board
from modelyard.serving.endpoint import Endpoint
from modelyard.serving.limits import Limits
from modelyard.serving.models import Models
from modelyard.serving.observability.log import RequestLog
from modelyard.serving.service import Service
from modelyard.serving.told import Voice, say, speaking
from modelyard.serving.versions.deaths import Deaths
from modelyard.serving.versions.deciding import as_told
from modelyard.serving.versions.following import Follower
from modelyard.serving.versions.rollout import Plan
from modelyard.serving.versions.stage import Stage

__all__ = ["Opened", "Told"]

_TRACE = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Told:
    """What a server is told of one endpoint.

    Attributes:
        bundle: Folder of the sealed bundle.
        project: Folder of the project: its keys, tokens and request log.
        endpoint: Name under which the model is served; the model's own by default.
        roles: Roles that may ask for predictions, of those that may at all; none named means all of them.
        limits: Limits.
        trace: Id that ties the deployment to the run that made the model; kept with each request.
        follow: Alias whose moves in the ledger are followed; none: the bundle is served to the end.
        store: Address of the store with the ledger; empty: the folder of the project.
        p99: Seconds within which a version has to give 99 of 100 answers before it goes live; 0 means any.
        plan: How a challenger is tried beside the champion.
        runtime: What answers for the bundle, as JSON; empty: as it was released. Where an alias is followed, the ledger
            says it.
        beside: Folder of what that reads beside the bundle.
        since: Number of the newest event in the ledger when the server was told to begin, if it is known.
    """

    bundle: Path
    project: Path
    endpoint: str = ""
    roles: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    trace: str = ""
    follow: Alias | None = None
    store: str = ""
    p99: float = 0.0
    plan: Plan = Plan()  # noqa: RUF009 - it is frozen
    runtime: str = ""
    beside: Path | None = None
    since: int | None = None

    @property
    def follows(self) -> bool:
        """Whether the ledger says which version answers."""
        return bool(self.follow and self.endpoint)

    def open(self) -> Bundle:
        """Open the bundle, and check every byte.

        Raises:
            Tampered: It is not what its seal says.
        """
        return open_bundle(self.bundle, trusted=trusted_keys(self.project))

    def name(self, bundle: Bundle | None = None) -> str:
        """Return the name of the endpoint; where it is not said, that of the model in the bundle.

        Raises:
            ServeError: It cannot be one (`endpoint-name`), or the trace is none (`trace-form`).
        """
        endpoint = self.endpoint or (bundle.version.name if bundle is not None else "")
        if not _NAME.fullmatch(endpoint):
            raise ServeError(
                "endpoint-name",
                f"`{endpoint}` cannot be the name of an endpoint",
                hint="use letters, digits, `.`, `_`, `-`",
            )
        if self.trace and not _TRACE.fullmatch(self.trace):
            raise ServeError("trace-form", f"`{self.trace}` is no trace", hint="a trace has 32 hex digits")
        return endpoint


class Opened:
    """An endpoint with all that belongs to it.

    Args:
        told: What is told of it.
        board: Where several processes on one port tell each other what they count; none: there is one.

    Attributes:
        endpoint: The endpoint.
        voice: For whom it speaks.

    Raises:
        Tampered: The bundle is not what its seal says.
        ServeError: Requests cannot be logged.
    """

    def __init__(self, told: Told, board: Board | None = None) -> None:
        bundle = None if told.follows else told.open()
        name = told.name(bundle)
        if bundle is not None:
            bundle = as_told(bundle, told.runtime, told.beside, told.project)
        self._told = told
        self._follower: Follower | None = None
        self._lost = 0
        self.voice = Voice.of(told.project, name, told.trace)
        with speaking(self.voice):
            self._log = log = RequestLog(log_path(told.project, name), backlog=told.limits.backlog)
            # One of several has a parent that starts it again; who starts one that is alone is not known here.
            parent = os.getppid() if board is not None else 0
            self._deaths = Deaths(told.project, name, told.plan.probation if told.follows else 0.0, parent=parent)
            self._stage = Stage(told.project, name, log, told.limits, told.p99, self._deaths)
            # Whoever starts again after a while must not begin with what was the champion then.
            service = self._stage.newest(told.follow, told.store) if told.follow and told.endpoint else None
            if service is None:
                service = Service(bundle or told.open(), name, log, told.limits, trace=told.trace)
                service.warm()
        self.voice.about = About(trace=service.trace, endpoint=name)
        models = Models(service)
        if board is not None:
            board.join()
            models.board = board
        self.endpoint = Endpoint(models, told.limits, TokenBook(told.project, every=0.5), told.roles, self.voice)

    @property
    def ready(self) -> str:
        """What a process says of it once it answers: name, digest of the model and trace."""
        service = self.endpoint.models.known("")
        # One that takes the place of another may find that the model was unloaded meanwhile.
        return f"{self.endpoint.name}," + (f"{service.version.digest},{service.trace}" if service else ",")

    def follow(self, changed: Callable[[], None]) -> None:
        """Look at the ledger for the first time; `changed` is called in the loop when another version answers."""
        told, models = self._told, self.endpoint.models
        if told.follow:
            with speaking(self.voice):
                self._follower = Follower(
                    self._stage, models, changed, told.follow, told.store, told.plan, since=told.since
                )
                models.loading = self._follower.loading
                if models.bell is not None:
                    models.bell.follow(self._follower.later)
                self._follower.begin()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Follow the ledger from now on."""
        if self._follower is not None:
            self._follower.start(loop)

    def close(self) -> None:
        """Let go of all, once what was answered is written."""
        self.endpoint.close()
        with speaking(self.voice):
            if self._follower is not None:
                self._follower.close()
            for one in self.endpoint.models:
                one.close()
            self._deaths.forget()
            self._lost = self._log.close(seconds=self._told.limits.drain_seconds)

    def last_words(self, process: str = "") -> int:
        """Say what was answered, and return the exit code: 0 when all of it is logged.

        Args:
            process: Which process says so, if there are several.
        """
        models, log = self.endpoint.models, self._log
        with speaking(self.voice):
            if self._lost:
                why = log.trouble or "see above"
                said = f"error[log-lost]: {plural(self._lost, 'answered row')} could not be logged: {why}"
                say(said, level="error")
                return 3
            # Requests, their rows, and where each row is: in the log, apart from it, or in neither by
            # `deploy.requests.sample`; and rows that are there, too, but were refused.
            told = f"requests={models.answered} rows={models.rows} logged={log.logged} held={log.held}"
            passed = f" passed={log.passed}" if log.passed else ""
            refused = f" refused={log.refused}" if log.refused else ""
            say(f"stopped endpoint={self.endpoint.name}{process} {told}{passed}{refused}")
        return 0
