"""Progress of a run: a live line on a terminal, one plain line a step elsewhere."""

from __future__ import annotations

import threading
import time
from typing import TextIO

from modelyard._kit.text import plural, seconds_text
from modelyard.cli.output import MARKS, paint
from modelyard.records import Event

__all__ = ["Progress"]

_BAR = 24


class Progress:
    """Observer of a run that tells how far it is.

    Args:
        total: Steps of the plan.
        stream: Where to write; a live line is drawn only on a terminal.
    """

    def __init__(self, total: int, stream: TextIO) -> None:
        self.run_id = ""
        self._total = total
        self._stream = stream
        self._live = stream.isatty()
        self._running: dict[str, float] = {}
        self._done = 0
        self._cached = 0
        self._skipped = 0
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True) if self._live else None
        if self._ticker:
            self._ticker.start()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        with self._lock:
            body = event.payload
            match event.kind:
                case "run.started":
                    self.run_id = event.run
                case "step.started":
                    self._running[event.step] = time.monotonic()
                case "step.cached":
                    self._done += 1
                    self._cached += 1
                    self._line("cached", event.step, "cached")
                case "step.finished":
                    self._done += 1
                    self._running.pop(event.step, None)
                    # A note says what was done otherwise than asked, e.g. on a CPU instead of a GPU.
                    said = [seconds_text(body["seconds"]), *body.get("notes", ())]
                    self._line("succeeded", event.step, "; ".join(said))
                case "step.retried":
                    self._running.pop(event.step, None)
                    again = f"attempt {body['attempt']} failed, again in {seconds_text(body['waits'])}"
                    self._line("retried", event.step, f"{again}: {body['error']['message']}")
                case "step.skipped":
                    self._skipped += 1
                case "step.failed":
                    self._running.pop(event.step, None)
                    self._line("failed", event.step, body["error"]["code"])
                case "run.finished" if event.run == self.run_id:
                    took = seconds_text(time.monotonic() - self._began)
                    cached = f", {self._cached} cached" if self._cached else ""
                    cached += f", {self._skipped} skipped" if self._skipped else ""
                    self._clear()
                    self._stream.write(f"{plural(self._done, 'step')} done{cached} in {took}: {body['status']}\n")
            self._draw()

    def close(self) -> None:
        """Take the live line away."""
        self._ended.set()
        with self._lock:
            self._clear()
            self._live = False

    def _tick(self) -> None:
        while not self._ended.wait(0.2):
            with self._lock:
                self._draw()

    def _line(self, status: str, step: str, text: str) -> None:
        self._clear()
        mark = paint(MARKS[status], status, self._stream)
        self._stream.write(f"{mark} {step:<28} {paint(text, 'dim', self._stream)}\n")
        self._stream.flush()

    def _clear(self) -> None:
        if self._live:
            self._stream.write("\r\x1b[2K")

    def _draw(self) -> None:
        if not self._live or self._ended.is_set():
            return
        filled = _BAR * self._done // max(1, self._total)
        now = time.monotonic()
        busy = ", ".join(f"{name} {now - since:.0f} s" for name, since in self._running.items())
        self._stream.write(f"\r\x1b[2K{'━' * filled}{'╌' * (_BAR - filled)} {self._done}/{self._total} {busy}"[:160])
        self._stream.flush()
