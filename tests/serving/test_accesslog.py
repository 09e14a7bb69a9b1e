"""Lines about requests are written by a thread while others come: none is lost unless that is said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.serving.observability import accesslog
from modelyard.serving.observability.accesslog import AccessLog

ASKED: Any = SimpleNamespace(id="one", caller="ana", method=b"GET", route=None)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    monkeypatch.setattr(accesslog, "note", lambda logger, lines, **more: found.extend(lines))
    return found


def test_line_that_comes_while_others_are_written_is_kept(
    monkeypatch: pytest.MonkeyPatch, written: list[tuple[str, str]]
) -> None:
    log = AccessLog("all")
    encode = accesslog._encode

    def meanwhile(line: Any) -> bytes:
        # The thread has its turn in the middle of a line.
        log.flush()
        return encode(line)

    monkeypatch.setattr(accesslog, "_encode", meanwhile)
    for _ in range(3):
        log.add(ASKED, 200, 1.0)
    log.close()
    assert [name for name, _ in written] == ["one"] * 3


def test_lines_beyond_what_is_written_are_counted(written: list[tuple[str, str]]) -> None:
    log = AccessLog("all", most=2)
    for _ in range(2):
        for _ in range(5):
            log.add(ASKED, 200, 1.0)
        log.flush()
    log.close()
    assert [text for name, text in written if not name] == ['{"left_out":3}'] * 2
    assert len(written) == 6
