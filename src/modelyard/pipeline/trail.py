"""Everything that is known of one id, in the order of time: trigger, run, steps, what they said, deployment, requests.

The ledger, the files of the logs and the request logs each know their part; the trace ties them together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelyard._kit.digest import short
from modelyard._kit.errors import NotFound
from modelyard.logs import Line, logs_folder
from modelyard.logs.ledger import Teller
from modelyard.logs.read import ends, lines
from modelyard.monitoring.window import reading
from modelyard.records import Event, EventKind, ModelVersion, read_value, values_of
from modelyard.store import Store
from modelyard.store.requests import Answered, newest

__all__ = ["Asked", "Follower", "resolve", "trail"]

_TRACE = re.compile(r"[0-9a-f]{32}")
_MOST = 1_000_000
# Seconds that the clocks of two machines may differ by.
_ALLOWANCE = 3600.0
# What may belong to a trace without belonging to one of its runs.
_BESIDE: tuple[EventKind, ...] = (
    "fire.queued",
    "fire.dropped",
    "alias.moved",
    "alert.queued",
    "alert.sent",
    "alert.failed",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What lines are asked for.

    Attributes:
        trace: The id that ties it all together; empty: all lines.
        runs: The runs of it.
        fires: The fires of it.
        models: Digests of the models that its runs made, which a person may have promoted.
        request: Only this request, besides what led to it; empty: all of them.
        step: Only this step.
        since: Only from this time on, seconds since 1970 UTC.
        begins: Nothing of it is older: older files need not be read.
    """

    trace: str = ""
    runs: frozenset[str] = frozenset()
    fires: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    request: str = ""
    step: str = ""
    since: float = 0.0
    begins: float = 0.0

    @property
    def ids(self) -> frozenset[str]:
        """Every id that a line may carry to be among them."""
        return frozenset({self.trace, self.request, *self.runs, *self.fires} - {""})

    def wants(self, line: Line) -> bool:
        """Say whether a line is among them."""
        if line.time < self.since or (self.step and line.step != self.step):
            return False
        if self.request and line.request and not _same_request(line.request, self.request):
            return False
        return not self.ids or bool(self.ids & {line.trace, line.run, line.fire, line.request})


def _same_request(one: str, asked: str) -> bool:
    # Row 3 of a request is `ID/3`.
    return one == asked or asked.startswith(f"{one}/")


def resolve(store: Store, named: str) -> Asked:
    """Return what a name stands for: a run, a fire, a trace or a request.

    Raises:
        NotFound: Nothing recorded has this id (`id-not-found`).
    """
    if named.startswith("run-") and (run := store.ledger.run(named)) is not None:
        # Runs of an older Modelyard have no trace; their id is enough.
        return _of_trace(store, run.trace) if run.trace else Asked(runs=frozenset({run.id}))
    if named.startswith("fire-") and (fire := store.ledger.fire(named)) is not None:
        return replace(_of_trace(store, fire.trace), fires=frozenset({fire.id}))
    if _TRACE.fullmatch(named):
        found = _of_trace(store, named)
        if found.runs or found.fires or _any_line(store, named):
            return found
    if (answered := _request(store, named)) is not None:
        of_trace = _of_trace(store, answered[1].trace) if answered[1].trace else Asked()
        return replace(of_trace, request=named)
    if _any_line(store, named):
        return Asked(request=named)
    newest_runs = ", ".join(run.id for run in store.ledger.runs(limit=3))
    raise NotFound(
        "id-not-found",
        f"no run, fire, trace or request has the id `{named}`",
        hint=f"the newest runs are {newest_runs}" if newest_runs else "nothing was run here yet",
    )


def _any_line(store: Store, named: str) -> bool:
    return next(lines(logs_folder(store.root), frozenset({named})), None) is not None


def _of_trace(store: Store, trace: str) -> Asked:
    runs = [run for run in store.ledger.runs(limit=_MOST) if run.trace == trace]
    fires = {run.fire for run in runs if run.fire}
    begins = [run.started for run in runs]
    if not fires:
        asking = [fire for fire in store.ledger.fires(newest=True, limit=1000) if fire.trace == trace]
        fires = {fire.id for fire in asking}
        begins += [fire.queued for fire in asking]
    models = set()
    for run in runs:
        whole = store.ledger.run(run.id)
        models |= {model.digest for model in values_of(whole, ModelVersion)} if whole else set()
    return Asked(
        trace=trace,
        runs=frozenset(run.id for run in runs),
        fires=frozenset(fires),
        models=frozenset(models),
        begins=min(begins, default=_ALLOWANCE) - _ALLOWANCE,
    )


def trail(store: Store, asked: Asked, *, requests: int = 20) -> list[Line]:
    """Return the lines that are asked for, in the order of time.

    Args:
        store: The store of the project.
        asked: Which.
        requests: How many requests at most, the newest; the rest is counted.
    """
    since = max(asked.since, asked.begins)
    found = [line for line in lines(logs_folder(store.root), asked.ids, since=since) if asked.wants(line)]
    found += _told(store, asked, 0)
    if not asked.step:
        found += _requests(store, asked, requests)
    return sorted(found, key=lambda line: line.time)


def _told(store: Store, asked: Asked, after: int) -> Iterator[Line]:
    teller = Teller(store.ledger)
    for event in _events(store, asked, after):
        if event.time < asked.since or not _is_about(event, asked):
            continue
        line = teller.line(event)
        if not asked.step or line.step == asked.step:
            yield line


def _events(store: Store, asked: Asked, after: int) -> Iterator[Event]:
    """Yield every event that may be among them; of a ledger with a million events few are read."""
    if not asked.ids or after:
        yield from store.ledger.events(after=after)
        return
    for run in asked.runs:
        yield from store.ledger.events(run=run)
    for event in store.ledger.events(kinds=_BESIDE):
        if event.run not in asked.runs:
            yield event


def _is_about(event: Event, asked: Asked) -> bool:
    if not asked.ids or event.run in asked.runs or event.payload.get("trace") == asked.trace != "":
        return True
    if event.kind.startswith("fire."):
        return event.payload.get("id") in asked.fires
    if event.kind == "alias.moved" and not event.run:
        # A person promoted what one of these runs made.
        return read_value(event.payload["deployment"]).model.digest in asked.models
    return False


def _requests(store: Store, asked: Asked, most: int) -> Iterator[Line]:
    """Yield requests, the newest so many, and how many there are besides."""
    for log in _logs(store.root):
        endpoint, left, more, oldest = log.stem, most, 0, asked.since
        for one in _newest(log, since=asked.since):
            if asked.request:
                if _same_request(one.id, asked.request):
                    yield _answered(endpoint, one)
                    break
            elif not asked.trace or one.trace == asked.trace:
                if left > 0:
                    left -= 1
                    oldest = one.time
                    yield _answered(endpoint, one)
                else:
                    more += 1
        if more:
            text = f"{more:,} requests more before these"
            yield Line(time=oldest, logger="requests", message=text, trace=asked.trace, endpoint=endpoint)


def _logs(root: Path) -> list[Path]:
    return sorted((root / ".modelyard" / "requests").glob("*.db"))


def _newest(log: Path, *, since: float = 0.0) -> Iterator[Answered]:
    # What goes wrong while a log is read is explained by `reading`, and so happens within it.
    with reading(log) as db:
        yield from newest(db, since=since)


def _request(store: Store, named: str) -> tuple[str, Answered] | None:
    for log in _logs(store.root):
        for one in _newest(log):
            if _same_request(one.id, named):
                return log.stem, one
    return None


def _answered(endpoint: str, one: Answered) -> Line:
    rows = "1 row" if len(one.inputs) == 1 else f"{len(one.inputs)} rows"
    return Line(
        time=one.time,
        logger="requests",
        message=f"{rows} of {one.caller} answered in {one.ms:.2f} ms by model {short(one.model)}",
        trace=one.trace,
        endpoint=endpoint,
        request=one.id,
    )


@dataclass(slots=True)
class Follower:
    """Gives what is new each time it is asked.

    Attributes:
        store: The store of the project.
        asked: Which lines.
    """

    store: Store
    asked: Asked
    _read: dict[str, int] = field(default_factory=dict)
    _seq: int = 0
    _requested: float = 0.0

    def begin(self, *, now: float) -> None:
        """Leave out everything up to now."""
        self._read = ends(logs_folder(self.store.root))
        self._seq = self.store.ledger.head()[0]
        self._requested = now

    def new(self) -> list[Line]:
        """Return the lines that came since the last time."""
        folder = logs_folder(self.store.root)
        found = [line for line in lines(folder, self.asked.ids, read=self._read) if self.asked.wants(line)]
        head = self.store.ledger.head()[0]
        if head > self._seq:
            found += _told(self.store, self.asked, self._seq)
            self._seq = head
        if not self.asked.step:
            since = replace(self.asked, since=max(self.asked.since, self._requested))
            fresh = [line for line in _requests(self.store, since, _MOST) if line.time > self._requested]
            self._requested = max([self._requested, *(line.time for line in fresh)])
            found += fresh
        return sorted(found, key=lambda line: line.time)
