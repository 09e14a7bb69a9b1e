"""What the server says goes to the operator, and never stands in the way of an answer."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.serving import told
from modelyard.serving.told import errors_said, note, say


def test_stderr_on_a_full_disk_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    full = io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True)
    monkeypatch.setattr("sys.stderr", full)
    with errors_said() as said:
        say("a line", level="error")
    full.detach().close()
    assert said == ["a line"]


@pytest.mark.parametrize("sent", ["token=a1b2c3d4e5", 'token="a1b2c3d4e5"', "token=a1b2c3d4\\e5", "let\\me-in-1"])
def test_secret_in_the_id_of_a_request_is_in_no_part_of_its_line(monkeypatch: pytest.MonkeyPatch, sent: str) -> None:
    """Also where the id has quotes or backslashes, which stand otherwise in the text."""
    noted: list[Any] = []
    monkeypatch.setattr(told._usual, "files", SimpleNamespace(clock=lambda: 1.0, append=lambda *of: noted.extend(of)))
    monkeypatch.setenv("SOME_PASSWORD", "let\\me-in-1")
    note("access", [(name, json.dumps({"id": name, "status": 200})) for name in (sent, 'a "plain" one')])
    hidden, plain = noted
    assert "[redacted]" in hidden.request
    assert json.loads(hidden.message) == {"id": hidden.request, "status": 200}
    assert json.loads(plain.message)["id"] == plain.request == 'a "plain" one'
