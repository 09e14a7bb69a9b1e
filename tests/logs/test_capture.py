"""What a step prints and logs is taken, shown, and has no secret in it."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from modelyard.logs import About, Capture, LogFiles, listening
from modelyard.logs.capture import TAIL
from modelyard.logs.read import lines

ABOUT = About(trace="ab" * 16, run="run-1", step="train", attempt=2, fire="fire-1")


@contextmanager
def terminal() -> Iterator[io.StringIO]:
    """Stand in for the terminal; pytest puts its own stream there when the test begins."""
    with contextlib.redirect_stderr(io.StringIO()) as stream:
        yield stream


@contextmanager
def plain_logging() -> Iterator[logging.Logger]:
    """Give the root logger as Python begins with it: no handler, level `WARNING`."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    root.setLevel(logging.WARNING)
    try:
        yield root
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def taken(tmp_path: Path) -> list[tuple[str, str, str]]:
    return [(line.level, line.logger, line.message) for line in lines(tmp_path)]


def test_printed_lines_are_taken_and_shown_on_stderr(tmp_path: Path) -> None:
    with terminal() as shown:
        out = sys.stdout
        with Capture(ABOUT, LogFiles(tmp_path)) as said:
            print("one")
            print("two", "parts", file=sys.stderr)
            sys.stdout.buffer.write("drei ü\n".encode())
            print("no end", end="")
        assert sys.stdout is out
        assert shown.getvalue() == "one\ntwo parts\ndrei ü\nno end"
        assert taken(tmp_path) == [
            ("info", "stdout", "one"),
            ("info", "stderr", "two parts"),
            ("info", "stdout", "drei ü"),
            ("info", "stdout", "no end"),
        ]
        assert said.tail == ("one", "two parts", "drei ü", "no end")
        first = next(lines(tmp_path))
        assert (first.trace, first.run, first.step, first.attempt, first.fire) == (
            "ab" * 16,
            "run-1",
            "train",
            2,
            "fire-1",
        )


def test_whoever_says_nothing_leaves_nothing(tmp_path: Path) -> None:
    with terminal():
        with Capture(ABOUT, LogFiles(tmp_path / "logs")) as said:
            pass
        assert not (tmp_path / "logs").exists()
        assert said.tail == ()


def test_of_progress_in_one_line_the_last_state_is_taken_and_each_is_shown(tmp_path: Path) -> None:
    with terminal() as shown:
        with Capture(ABOUT, LogFiles(tmp_path)):
            for part in range(3):
                print(f"\r{part * 50} %", end="", flush=True)
                assert shown.getvalue().endswith(f"\r{part * 50} %")
            print()
        assert taken(tmp_path) == [("info", "stdout", "100 %")]
        assert shown.getvalue() == "\r0 %\r50 %\r100 %\n"


def test_only_the_last_lines_are_kept_for_the_failure(tmp_path: Path) -> None:
    with terminal():
        with Capture(ABOUT, None) as said:
            for i in range(TAIL + 5):
                print(i)
        assert said.tail == tuple(str(i) for i in range(5, TAIL + 5))


def test_a_step_that_prints_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal():
        monkeypatch.setattr("modelyard.logs.capture._MOST", 10)
        with Capture(ABOUT, LogFiles(tmp_path)) as said:
            for i in range(20):
                print(i)
        assert len(taken(tmp_path)) == 10
        assert taken(tmp_path)[-1] == ("warning", "stdout", "more than 10 lines; the rest is left out")
        assert said.tail[-1] == "19"


def test_threads_that_print_at_once_lose_no_line(tmp_path: Path) -> None:
    with terminal():

        def talk(name: int) -> None:
            for i in range(50):
                sys.stdout.write(f"{name}-{i}\n")

        with Capture(ABOUT, LogFiles(tmp_path)):
            threads = [threading.Thread(target=talk, args=(n,)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert {m for _, _, m in taken(tmp_path)} == {f"{n}-{i}" for n in range(4) for i in range(50)}


def test_the_stream_stands_in_for_a_text_stream() -> None:
    with terminal() as shown:
        with Capture(ABOUT, None):
            assert not sys.stdout.isatty()
            sys.stdout.writelines(["a\n", "b\n"])
            sys.stdout.flush()
            not_text: Any = b"bytes"
            with pytest.raises(TypeError):
                sys.stdout.write(not_text)
        assert shown.getvalue() == "a\nb\n"


# -- logging


def test_logged_messages_keep_level_and_name(tmp_path: Path) -> None:
    with terminal() as shown, plain_logging() as root:
        with Capture(ABOUT, LogFiles(tmp_path)) as said:
            log = logging.getLogger("features")
            log.debug("not this")
            log.info("%d rows", 12)
            log.warning("few rows")
            try:
                raise ValueError("odd")
            except ValueError:
                log.exception("broken")
        found = taken(tmp_path)
        assert found[:2] == [("info", "features", "12 rows"), ("warning", "features", "few rows")]
        assert found[2][:2] == ("error", "features")
        assert "ValueError: odd" in found[2][2]
        assert said.tail[:2] == ("INFO features: 12 rows", "WARNING features: few rows")
        # Python itself shows what is a warning or worse, where nobody has set logging up.
        assert shown.getvalue().startswith("few rows\nbroken\nTraceback")
        assert root.level == logging.WARNING
        assert not root.handlers


def test_logging_that_the_user_set_up_shows_its_own(tmp_path: Path) -> None:
    with terminal() as shown, plain_logging() as root:
        own = io.StringIO()
        root.addHandler(logging.StreamHandler(own))
        root.setLevel(logging.DEBUG)
        with Capture(ABOUT, LogFiles(tmp_path)):
            logging.getLogger("x").debug("detail")
            logging.getLogger("x").error("bad")
        assert taken(tmp_path) == [("debug", "x", "detail"), ("error", "x", "bad")]
        assert own.getvalue() == "detail\nbad\n"
        assert not shown.getvalue()
        assert root.level == logging.DEBUG


def test_many_captures_share_one_listener() -> None:
    with terminal() as shown, plain_logging() as root:
        with listening():
            for i in range(3):
                with Capture(ABOUT, None) as said:
                    logging.getLogger("x").info("step %d", i)
                assert said.tail == (f"INFO x: step {i}",)
                assert len(root.handlers) == 1
            logging.getLogger("x").info("between")
            logging.getLogger("x").warning("seen between")
        assert shown.getvalue() == "seen between\n"
        assert not root.handlers
        assert root.level == logging.WARNING


def test_a_capture_inside_a_capture_gives_back() -> None:
    with terminal(), plain_logging():
        with listening(), Capture(ABOUT, None) as outer:
            with Capture(ABOUT, None) as inner:
                logging.getLogger("x").info("in")
            logging.getLogger("x").info("out")
        assert inner.tail == ("INFO x: in",)
        assert outer.tail == ("INFO x: out",)


# -- secrets


def test_handlers_of_the_user_see_no_secret_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAREHOUSE_PASSWORD", "tr0ub4dor&3")
    factory = logging.getLogRecordFactory()
    with terminal(), plain_logging() as root:
        own = io.StringIO()
        root.addHandler(logging.StreamHandler(own))
        with Capture(ABOUT, None) as said:
            logging.getLogger("x").warning("with %s and %d", "tr0ub4dor&3", 7)
            try:
                raise ValueError("tr0ub4dor&3")
            except ValueError:
                logging.getLogger("x").exception("broken")
            logging.getLogger("x").warning("harmless %s", 1)
        root.removeHandler(root.handlers[0])
    assert own.getvalue().startswith("with [redacted] and 7\nbroken\nTraceback")
    assert own.getvalue().endswith("ValueError: [redacted]\nharmless 1\n")
    assert "tr0ub4dor" not in own.getvalue() + "".join(said.tail)
    assert logging.getLogRecordFactory() is factory


def everything(said: Capture, tmp_path: Path, shown: io.StringIO) -> str:
    files = "".join(p.read_text() for p in tmp_path.glob("*.jsonl"))
    return shown.getvalue() + files + "".join(said.tail)


def test_no_secret_is_taken_or_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal() as shown, plain_logging():
        monkeypatch.setenv("WAREHOUSE_PASSWORD", "tr0ub4dor&3")
        with Capture(ABOUT, LogFiles(tmp_path)) as said:
            print("password", "=", "hunter2")
            print("connecting with tr0ub4dor&3 or tr0ub4dor%263 as in a URL")
            logging.getLogger("db").warning("token=%s", "abc123def456")
            print("Authorization: Bearer abc.def.ghi", end="", flush=True)
            print("-----BEGIN PRIVATE KEY-----")
            for part in ("MIIBVgIBADANBg", "kqhkiG9w0BAQEF"):
                print(part)
            print("-----END PRIVATE KEY-----")
            print("the end")
        text = everything(said, tmp_path, shown)
        for secret in ("hunter2", "tr0ub4dor", "abc123def456", "abc.def", "MIIB", "kqhkiG"):
            assert secret not in text
        assert "the end" in text
