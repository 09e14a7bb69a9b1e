"""Hand lines over to sinks, at least once each, without anybody waiting for it.

The files of the logs are the spool: a line is there before a sink hears of it, and a sink that is down finds it there
when it is up again, after a kill -9 too. What a sink has taken is a small file of its own: a place in each file of the
logs, and the sequence number of the newest event. A thread for each sink reads on from there.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Self

import msgspec

from modelyard._kit.digest import digest_of, short
from modelyard._kit.errors import Busy, ModelyardError
from modelyard._kit.files import write_atomic
from modelyard.logs.files import LogFiles, logs_folder, logs_of
from modelyard.logs.ledger import Teller
from modelyard.logs.line import About, Line
from modelyard.logs.read import ends, parsed, unread
from modelyard.logs.section import Logs
from modelyard.logs.sinks import NotTaken, Shipped, Sink, sinks_of
from modelyard.store import Store
from modelyard.store.locks import Locks

__all__ = ["Shipper", "shipping"]

# Lines and bytes of one request.
_LINES, _BYTES = 500, 1_000_000
# Seconds between two looks, and the longest pause after a sink did not take anything.
_PAUSE, _LONGEST = 0.5, 30.0
# Seconds that the end of a run waits for sinks that work.
_LAST = 2.0


class _Taken(msgspec.Struct):
    """What a sink has."""

    files: dict[str, int] = {}
    sizes: dict[str, int] = {}
    seq: int = 0


@contextmanager
def shipping(store: Store, settings: Logs, *, project: str) -> Iterator[None]:
    """Keep the logs as long as is declared, and hand lines over to sinks while the context is open.

    Only one process does it at a time for each sink; what one leaves the next one takes up.

    Args:
        store: The store of the project.
        settings: The section `logs`.
        project: Name of the project.
    """
    logs_of(store.root).keep(seconds=settings.keep, size=settings.size)
    if not settings.to:
        yield
        return
    with Shipper(store, settings, project=project) as shipper:
        shipper.start()
        yield


class Shipper:
    """Reads on where each sink stopped, and offers it what is new.

    Args:
        store: The store of the project.
        settings: The section `logs`.
        project: Name of the project.
        sinks: Name -> sink, instead of those that are declared.
        pause: Seconds between two looks.

    Attributes:
        trouble: Name of a sink -> why it does not take lines at the moment.
    """

    def __init__(
        self,
        store: Store,
        settings: Logs,
        *,
        project: str,
        sinks: Mapping[str, Sink] | None = None,
        pause: float = _PAUSE,
    ) -> None:
        self.trouble: dict[str, str] = {}
        self._stop = threading.Event()
        addresses = dict(zip(sinks_of(settings, store.root), settings.to, strict=True)) if sinks is None else {}
        found = sinks_of(settings, store.root) if sinks is None else sinks
        self._senders = [
            _Sender(name, addresses.get(name, name), sink, store, project, self.trouble, self._stop, pause)
            for name, sink in found.items()
        ]
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to hand over in the background."""
        for sender in self._senders:
            # Marked before anything is written, so that a new sink gets all of this run.
            sender.begin()
            thread = threading.Thread(target=sender.keep, name=f"logs-{sender.name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Hand over what is new to the sinks that work, for a moment, and stop."""
        self._stop.set()
        until = time.monotonic() + _LAST
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._threads.clear()

    def send_all(self) -> dict[str, int]:
        """Hand over everything now; return how many lines still wait for each sink."""
        left = {}
        for sender in self._senders:
            with sender.held() as ours:
                if ours:
                    sender.begin()
                    sender.send()
            left[sender.name] = sender.waiting()
        return left


class _Sender:
    """Hands over to one sink."""

    def __init__(
        self,
        name: str,
        address: str,
        sink: Sink,
        store: Store,
        project: str,
        trouble: dict[str, str],
        stop: threading.Event,
        pause: float,
    ) -> None:
        self.name = name
        self._sink = sink
        self._store = store
        self._project = project
        self._trouble = trouble
        self._stop = stop
        self._pause = pause
        self._folder = logs_folder(store.root)
        # By address and not by name: another address is another sink, that has nothing yet.
        self._id = short(digest_of(address))
        self._path = self._folder / "sinks" / f"{self._id}.json"
        self._locks = Locks(self._folder / "sinks")
        self._teller = Teller(store.ledger)
        self._most = _LINES
        self._host = platform.node()
        self._events = False

    def begin(self) -> None:
        """Note where the logs end now if this sink is new: it gets what comes from here on."""
        if not self._path.exists():
            self._save(_Taken(files=ends(self._folder), seq=self._store.ledger.head()[0]))

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the sink; false while another process hands over to it."""
        with ExitStack() as stack:
            try:
                (self._folder / "sinks").mkdir(mode=0o700, parents=True, exist_ok=True)
                stack.enter_context(self._locks.hold(self._id, who={}))
            except (Busy, OSError):
                yield False
                return
            # The ledger may be shared by several machines: one of them tells of its events.
            try:
                stack.enter_context(self._store.hold(f"logs.{self._id}", who={"pid": os.getpid()}))
                self._events = True
            except ModelyardError:
                self._events = False
            yield True

    def keep(self) -> None:
        """Hand over what is new, again and again, until it is time to stop."""
        while True:
            with self.held() as ours:
                if ours:
                    self._while_held()
            if self._stop.is_set():
                return
            self._stop.wait(self._pause)

    def _while_held(self) -> None:
        pause = self._pause
        while True:
            stopping = self._stop.is_set()
            if stopping and self._trouble.get(self.name):
                return  # it is not waited for: what is left is in the files
            pause = self._pause if self.send() else min(max(pause * 2, 1.0), _LONGEST)
            if stopping:
                return
            self._stop.wait(pause)

    def send(self) -> bool:
        """Hand over everything that is new; say whether the sink took it."""
        try:
            taken = self._taken()
            self._say_dropped(taken)
            while lines := self._batch(taken):
                self._offer([line for _, line in lines])
                for mark, _ in lines:
                    mark(taken)
                self._save(taken)
        except NotTaken as error:
            if error.smaller and self._most > 1:
                self._most = max(1, self._most // 2)
                return self.send()
            self._trouble[self.name] = str(error)
            return False
        except (OSError, ModelyardError) as error:
            self._trouble[self.name] = str(error)
            return False
        self._trouble.pop(self.name, None)
        return True

    def waiting(self) -> int:
        """Return how many lines and events the sink has not taken."""
        taken = self._taken()
        lines = sum(1 for _ in unread(self._folder, taken.files))
        return lines + max(0, self._store.ledger.head()[0] - taken.seq) * self._events

    def _offer(self, lines: list[Shipped]) -> None:
        self._sink.send(lines)

    def _batch(self, taken: _Taken) -> list[tuple[Callable[[_Taken], None], Shipped]]:
        """Return the next lines, each with what is to be noted once it is taken."""
        found: list[tuple[Callable[[_Taken], None], Shipped]] = []
        size = 0
        for place, raw in islice(unread(self._folder, taken.files), self._most):
            line = parsed(raw)
            name, at = place
            identity = f"{self._host}/{name.removesuffix('.jsonl')}:{at}"
            text = line or Line(time=time.time(), level="warning", logger="logs", message="a line that cannot be read")
            found.append((_read_to(name, at), self._shipped(text, identity)))
            size += len(raw)
            if size > _BYTES:
                break
        if self._events and len(found) < self._most:
            for event in self._store.ledger.events(after=taken.seq, limit=self._most - len(found)):
                identity = f"{self._project}/event-{event.seq}"
                found.append((_told_to(event.seq), self._shipped(self._teller.line(event), identity)))
        return found

    def _shipped(self, line: Line, identity: str) -> Shipped:
        return Shipped(id=identity, project=self._project, host=self._host, **msgspec.structs.asdict(line))

    def _say_dropped(self, taken: _Taken) -> None:
        """Say once what was deleted before this sink took it."""
        there = ends(self._folder)
        fewer = {*taken.files, *taken.sizes} - {*there}
        for name in sorted(fewer):
            lost = taken.sizes.get(name, 0) - taken.files.pop(name, 0)
            if lost > 0:
                text = f"{lost:,} bytes of {name} were deleted before {self.name} took them"
                LogFiles(self._folder).append(Line.of(About(), time.time(), "logs", text, "warning"))
        new = {*there} - {*taken.sizes}
        taken.sizes = there
        if fewer or new:
            self._save(taken)

    def _taken(self) -> _Taken:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Taken)
        except (OSError, msgspec.MsgspecError):
            return _Taken()

    def _save(self, taken: _Taken) -> None:
        with contextlib.suppress(FileExistsError):
            self._path.parent.mkdir(mode=0o700, parents=True)
        write_atomic(self._path, msgspec.json.encode(taken), mode=0o600)


def _read_to(name: str, at: int) -> Callable[[_Taken], None]:
    def mark(taken: _Taken) -> None:
        taken.files[name] = at

    return mark


def _told_to(seq: int) -> Callable[[_Taken], None]:
    def mark(taken: _Taken) -> None:
        taken.seq = seq

    return mark
