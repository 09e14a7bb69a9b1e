"""Keep every answered request, in SQLite, off the way of the answers.

The event loop only appends to a queue; a thread writes what has gathered as one block. The queue is bounded: when the
disk cannot keep up, requests wait for room rather than pass unrecorded. An answer goes out before its record is
written, some 20 ms later: a SIGTERM takes nothing, a kill with -9 those moments, and a power cut may take more of the
last ones (WAL, `synchronous=NORMAL`).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from modelyard._kit.errors import ServeError
from modelyard.serving.told import keep_voice, say, speaking, voice_here
from modelyard.store.disk import no_space
from modelyard.store.packed import Packed
from modelyard.store.requests import Block, Turn, connect, encode, write_block

__all__ = ["RequestLog"]

# Rows and bytes of a block, about.
_BATCH, _BLOCK = 2000, 16 << 20
# What is raised for a block that no attempt can write: it is larger than SQLite takes, or than there is memory for.
_TOO_LARGE = (sqlite3.DataError, OverflowError, MemoryError)
# Bytes that count as one more row: a row may be as large as a body, and what waits is bounded by memory.
_ROW = 4096
_PAUSE = 0.02
# A turn as bytes, its rows, its time.
_Waiting = tuple[bytes, int, float]
# Seconds beyond its time that a last attempt to write may take: SQLite waits so long for another process.
_ATTEMPT = 5.0


def _writable(turn: Turn) -> Turn:
    """Return a turn without the content of those of its requests that cannot be written down, and say so."""
    outputs = turn.outputs
    if isinstance(turn.inputs, Packed):
        # Numbers can be written down whatever they are: it is an answer that cannot.
        inputs: list[bytes | Packed] = [msgspec.json.encode(one.inputs) for one in turn.requests()]
    else:
        inputs = list(turn.inputs)
    given: list[list[Any] | Packed] = [outputs] * len(inputs) if isinstance(outputs, Packed) else list(outputs)
    for at, content in enumerate(zip(inputs, given, strict=True)):
        try:
            msgspec.msgpack.encode(content)
        except Exception as error:  # noqa: BLE001 - one request that cannot be written must not stop the others
            text = f"{turn.ids[at]} is logged without its content: {type(error).__name__}: {error}"
            say(text, level="error", request=turn.ids[at])
            nothing: list[Any] = [{}] * turn.counts[at]
            inputs[at], given[at] = msgspec.json.encode(nothing), nothing
    return msgspec.structs.replace(turn, inputs=inputs, outputs=outputs if isinstance(outputs, Packed) else given)


class RequestLog:
    """The log of one server.

    Args:
        path: The database; made if missing, readable by its owner only, since it holds what people sent.
        backlog: Rows that may wait; each 4 kB of them count as one more.

    Attributes:
        logged: Rows written.
        lost: Rows that could not be written, however often it was tried.
        passed: Rows that were answered and are not kept, since only a sample is.
        refused: Rows that are kept, and whose caller was told that the answer is held back.
        waited: Requests that had to wait for room.
        trouble: Why writing fails at the moment; empty when it does not.
        tight: There was no room left when something was put last: before the next time it has to be asked if it is
            `full`.

    Raises:
        ServeError: The database cannot be opened or written (`log-unwritable`).
        UserError: There is no room for it (`disk-full`).
    """

    def __init__(self, path: Path, *, backlog: int = 50_000) -> None:
        self._path = path
        self._backlog = backlog
        self._queue: deque[_Waiting] = deque()
        self._queued = 0
        self._written = 0
        # The same, with what large rows count more.
        self._came = self._went = 0
        self._work = threading.Event()
        self._stop = threading.Event()
        self._deadline = float("inf")
        self.logged = self.lost = self.passed = self.refused = 0
        self.waited = 0
        self.trouble = ""
        self.tight = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            connect(path).close()
        except (OSError, sqlite3.Error) as error:
            raise no_space(error, path) or ServeError(
                "log-unwritable",
                f"requests cannot be logged to `{path}`: {error}",
                where=str(path),
                hint="make the folder writable, or move the file away if it is broken",
            ) from error
        self._voice = voice_here()
        self._thread = threading.Thread(target=keep_voice(self._drain), name="request-log", daemon=True)
        self._thread.start()
        self._apart: RequestLog | None = None

    def apart(self) -> RequestLog:
        """Return the log of requests that are held back: beside this one, and closed with it.

        Raises:
            ServeError: It cannot be opened or written (`log-unwritable`).
        """
        if self._apart is None:
            with speaking(self._voice):
                self._apart = RequestLog(self._path.with_suffix(".quarantine.db"), backlog=self._backlog)
        return self._apart

    @property
    def held(self) -> int:
        """Rows written apart: of requests that were held back."""
        return self._apart.logged if self._apart is not None else 0

    @property
    def path(self) -> Path:
        """The database."""
        return self._path

    @property
    def waiting(self) -> int:
        """Rows that are neither written nor lost."""
        return self._queued - self._written - self.lost

    def put(self, turn: Turn, rows: int) -> None:
        """Take what was answered at once, with so many rows; never waits. Ask `tight` before it is answered.

        It is turned into bytes here: a thread that did it would take the interpreter from the loop, at twice the cost.
        """
        try:
            data = encode(turn)
        except Exception:  # noqa: BLE001 - one request that cannot be written must not stop the others
            data = encode(_writable(turn))
        self._queued += rows
        self._came += rows + len(data) // _ROW
        self.tight = self.full
        self._queue.append((data, rows, turn.time))
        if not self._work.is_set():
            self._work.set()

    @property
    def full(self) -> bool:
        """Whether another answer could not be recorded."""
        return self._came - self._went >= self._backlog

    def settle(self, seconds: float) -> None:
        """Wait until what was put before is written, that long at most; not in the thread that answers.

        It does not wait while nothing can be written, or when the log is being closed.
        """
        until, target = time.monotonic() + seconds, self._queued
        while self._written + self.lost < target and time.monotonic() < until:
            if self.trouble or self._stop.wait(_PAUSE / 4):
                return

    def close(self, *, seconds: float = 20.0) -> int:
        """Write what waits and close, also what is held back; return how many rows were not written."""
        logs = [self] if self._apart is None else [self, self._apart]
        deadline = time.monotonic() + seconds
        for log in logs:
            log._deadline = deadline
            log._stop.set()
            log._work.set()
        for log in logs:
            log._thread.join(max(0.0, deadline + _ATTEMPT - time.monotonic()))
        return sum(log.waiting + log.lost for log in logs)

    def _drain(self) -> None:
        db: sqlite3.Connection | None = None
        while True:
            self._work.wait()
            self._work.clear()
            while self._queue:
                turns: list[_Waiting] = []
                rows = weight = size = 0
                while self._queue and rows < _BATCH and size < _BLOCK:
                    turn = self._queue.popleft()
                    data, count, _ = turn
                    rows += count
                    weight += count + len(data) // _ROW
                    size += len(data)
                    turns.append(turn)
                db = self._write(db, turns)
                if db is None:
                    return
                self._went += weight
            if self._stop.is_set():
                if db is not None:
                    db.close()
                return
            # Let some gather: one transaction for many rows.
            self._stop.wait(_PAUSE)

    def _write(self, db: sqlite3.Connection | None, turns: list[_Waiting]) -> sqlite3.Connection | None:
        """Write turns as one block, again and again until it works or the server has to end; none: it did not work."""
        rows = sum(count for _, count, _ in turns)
        pause = 0.05
        while True:
            try:
                db = db or connect(self._path)
                write_block(db, Block(turns[0][2], turns[-1][2], rows, [data for data, _, _ in turns]))
            except _TOO_LARGE as error:
                if len(turns) == 1:
                    self.lost += rows
                    say(f"error[log-lost]: {rows} answered rows are too large to be logged: {error}", level="error")
                    return db
                for turn in turns:
                    db = self._write(db, [turn])
                    if db is None:
                        return None
                return db
            except sqlite3.Error as error:
                self._troubled(error)
                if db is not None:
                    db.close()
                    db = None
                if time.monotonic() > self._deadline:
                    return None
                self._stop.wait(pause) if not self._stop.is_set() else time.sleep(pause)
                pause = min(pause * 2, 1.0)
            else:
                self._written += rows
                self.logged += rows
                if self.trouble:
                    say(f"answered rows are logged again to `{self._path}`")
                    self.trouble = ""
                return db

    def _troubled(self, error: sqlite3.Error) -> None:
        """Say once that nothing can be written; what is answered waits in memory, or is refused once that is full."""
        if not self.trouble:
            full = no_space(error, self._path)
            code, what = (full.code, full.problem.message) if full else ("log-unwritable", f"`{self._path}`: {error}")
            say(f"error[{code}]: answered rows cannot be logged and wait: {what}", level="error")
        self.trouble = str(error)
