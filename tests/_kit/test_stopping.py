"""What ends a process is kept until it is obeyed, and not raised in between."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from modelyard._kit.stopping import forget, stopped, tell, unstopped


def stop(number: int, frame: FrameType | None) -> None:
    tell(KeyboardInterrupt, signal.Signals(number).name)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)
    forget()


def test_what_was_swallowed_is_raised_again_until_it_is_obeyed() -> None:
    stopped()
    for ask in (lambda: signal.raise_signal(signal.SIGTERM), stopped, stopped):
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            ask()
    forget()
    stopped()


def test_what_comes_while_it_is_held_back_is_raised_afterwards() -> None:
    done = []

    def work() -> None:
        with unstopped():
            signal.raise_signal(signal.SIGTERM)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        work()
    assert done


def test_what_another_thread_hears_is_held_back_as_well() -> None:
    begun, done = threading.Event(), []

    def hear() -> None:
        assert begun.wait(60)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    def work() -> None:
        with unstopped():
            begun.set()
            other.join()
            done.append("all of it")

    other = threading.Thread(target=hear)
    other.start()
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        work()
    assert done


def test_what_was_told_before_is_not_raised_by_what_holds_back() -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    with unstopped():
        pass
