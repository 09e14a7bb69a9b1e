"""Type a command as a person would, without a process of its own: for tests of what a verb does and says.

A fresh interpreter and its imports take longer than nearly every verb. Where the process itself is what matters
(signals, what it becomes, what outlives it), start one.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.cli.main import main

__all__ = ["typed"]


def typed(folder: Path, *words: str, given: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Type `modelyard` and these words.

    Args:
        folder: Where it is typed.
        words: The verb and what follows.
        given: What is sent to its standard input.
        env: Variables beside those of the tests.
    """
    stdin, stdout, stderr = (
        io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", write_through=True) for data in (given.encode(), b"", b"")
    )
    known = set(sys.modules)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
            for name, value in {"NO_COLOR": "1", **env}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "path", list(sys.path))
            patch.setattr(sys, "stdin", stdin)
            patch.setattr(sys, "stdout", stdout)
            patch.setattr(sys, "stderr", stderr)
            code = _main(words)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _forget(known, folder)
    said = (stream.detach().getvalue().decode() for stream in (stdout, stderr))  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(["modelyard", *words], code, *said)


def _main(words: tuple[str, ...]) -> int:
    try:
        return main(words)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1


def _forget(known: set[str], folder: Path) -> None:
    """Let the next command read the functions of the project anew, as another process would."""
    for name in sys.modules.keys() - known:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(os.path.realpath(folder)):
            del sys.modules[name]
