"""What the server says goes to the operator, and never stands in the way of an answer."""

from __future__ import annotations

import io

import pytest

from modelyard.serving.told import errors_said, say


def test_stderr_on_a_full_disk_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    full = io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True)
    monkeypatch.setattr("sys.stderr", full)
    with errors_said() as said:
        say("a line", level="error")
    full.detach().close()
    assert said == ["a line"]
