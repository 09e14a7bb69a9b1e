"""What every store must do with names that one process holds at a time, as tests: nobody beside, nobody forever."""

# Tests say by their names what they promise, and assert.
# ruff: noqa: D102, S101

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any, ClassVar

import pytest

from modelyard._kit.errors import Busy
from modelyard.conformance.opened import PATIENCE, OpenStore, in_process
from modelyard.records import Draft
from modelyard.store.base import Held, Store

__all__ = ["HoldSuite"]

_PAUSE = 0.02


def _hold(opener: Callable[[], Store], name: str, run: str, pipe: Connection) -> None:
    with opener() as store, store.hold(name, who={"run": run}):
        pipe.send("held")
        pipe.recv()


def _append_later(opener: Callable[[], Store], pipe: Connection) -> None:
    """Hold a name, wait for a word, and say what comes of an append, of a check, and of an append afterwards."""
    said = []
    with opener() as store:
        with store.hold("run", who={"run": "run-1"}) as held:
            pipe.send("held")
            pipe.recv()
            said.append(_code(lambda: store.ledger.append(Draft(kind="watch.finished", step="late"))))
            said.append(_code(held.check))
        said.append(_code(lambda: store.ledger.append(Draft(kind="watch.finished", step="after"))))
    pipe.send(said)


def _in_and_out(opener: Callable[[], Store], who: str, times: int, pipe: Connection) -> None:
    """Hold a name so many times against somebody who does the same, and say in the ledger when."""
    with opener() as store:
        pipe.send("ready")
        pipe.recv()
        done = 0
        while done < times:
            try:
                with store.hold("run", who={"run": who}):
                    store.ledger.append(Draft(kind="watch.finished", run=who, step="in"))
                    store.ledger.append(Draft(kind="watch.finished", run=who, step="out"))
                done += 1
            except Busy as busy:
                if busy.code != "store-held":
                    raise


def _code(work: Callable[[], object]) -> str:
    try:
        work()
    except Busy as busy:
        return busy.code
    return ""


class HoldSuite(OpenStore):
    """The tests of `store.hold` and `store.holder`.

    Attributes:
        LEASE: Seconds after which the name of a process that cannot be heard is free; 0: when it is dead, and at once.
    """

    LEASE: ClassVar[float] = 0.0

    def test_a_name_is_held_by_one(self, store: Store) -> None:
        assert store.holder("run") is None
        with store.hold("run", who={"run": "run-1"}):
            who = store.holder("run")
            assert who is not None
            assert who["run"] == "run-1"
            with pytest.raises(Busy, match="run-1") as caught, store.hold("run", who={"run": "run-2"}):
                pass
            assert caught.value.problem.hint
            with store.hold("other", who={}):
                assert store.holder("other") is not None
        assert store.holder("run") is None
        with store.hold("run", who={"run": "run-2"}):
            assert (store.holder("run") or {})["run"] == "run-2"

    def test_the_holder_says_process_and_time(self, store: Store) -> None:
        with store.hold("run", who={"n": 1}):
            who: dict[str, Any] = store.holder("run") or {}
            assert (who["pid"], who["n"]) == (os.getpid(), 1)
            assert abs(who["since"] - time.time()) < PATIENCE
            assert bool(self.LEASE) == ("expires" in who) == ("host" in who)

    def test_who_holds_is_told_that_it_still_does(self, store: Store) -> None:
        with store.hold("run", who={}) as held:
            assert isinstance(held, Held)
            assert held.seconds == self.LEASE
            held.check()
            store.ledger.append(Draft(kind="watch.finished"))

    def test_a_name_may_be_any_text(self, store: Store) -> None:
        for name in ("alias.income", "cancel:run-1", "../up", "ü / ' \" %", "x" * 200):
            with store.hold(name, who={"why": 'it\'s "quoted"'}):
                assert (store.holder(name) or {})["why"] == 'it\'s "quoted"'
            assert store.holder(name) is None

    def test_a_name_is_free_after_an_error(self, store: Store) -> None:
        with pytest.raises(ZeroDivisionError), store.hold("run", who={}):
            _ = 1 / 0
        assert store.holder("run") is None

    def test_a_name_is_free_when_its_process_has_ended(self, store: Store, opener: Callable[[], Store]) -> None:
        with in_process(_hold, opener, "run", "run-7") as (process, pipe):
            pipe.send("go")
            process.join(PATIENCE)
            assert process.exitcode == 0
            assert store.holder("run") is None
            with store.hold("run", who={}):
                pass

    def test_a_name_is_free_when_its_process_is_killed(self, store: Store, opener: Callable[[], Store]) -> None:
        with in_process(_hold, opener, "run", "run-7") as (process, _):
            assert (store.holder("run") or {})["run"] == "run-7"
            with pytest.raises(Busy, match="run-7"), store.hold("run", who={}):
                pass
            process.kill()
            process.join(PATIENCE)
            if not self.LEASE:
                assert store.holder("run") is None
            with ExitStack() as stack:
                self.take_over(store, stack)
                assert (store.holder("run") or {})["run"] == "run-8"

    def test_a_holder_that_was_paused_cannot_write_what_somebody_else_does_now(
        self, store: Store, opener: Callable[[], Store]
    ) -> None:
        with in_process(_append_later, opener) as (process, pipe), ExitStack() as stack:
            os.kill(process.pid, signal.SIGSTOP)
            try:
                if self.LEASE:
                    self.take_over(store, stack)
                else:
                    with pytest.raises(Busy, match="run-1"):
                        self.take_over(store, stack, patience=0.0)
            finally:
                os.kill(process.pid, signal.SIGCONT)
            pipe.send("go on")
            assert pipe.poll(PATIENCE)
            late, check, after = pipe.recv()
            assert (late, check) == (("lease-lost", "lease-lost") if self.LEASE else ("", ""))
            # It is a process as any other again, and has taken nothing from the new holder.
            assert after == ""
            if self.LEASE:
                assert (store.holder("run") or {})["run"] == "run-8"
        assert [e.step for e in store.ledger.events()] == (["after"] if self.LEASE else ["late", "after"])

    def test_processes_that_race_for_a_name_hold_it_one_after_the_other(
        self, store: Store, opener: Callable[[], Store]
    ) -> None:
        times = 100
        with (
            in_process(_in_and_out, opener, "one", times) as (one, to_one),
            in_process(_in_and_out, opener, "two", times) as (two, to_two),
        ):
            to_one.send("go")
            to_two.send("go")
            for process in (one, two):
                process.join(PATIENCE)
                assert process.exitcode == 0
        told = [(e.run, e.step) for e in store.ledger.events()]
        assert len(told) == 4 * times
        assert [step for _, step in told] == ["in", "out"] * 2 * times
        assert [run for run, _ in told[::2]] == [run for run, _ in told[1::2]]
        assert store.holder("run") is None

    def take_over(self, store: Store, stack: ExitStack, *, patience: float = PATIENCE) -> None:
        """Hold `run` as soon as it is free, until the stack closes."""
        until = time.monotonic() + patience
        while True:
            try:
                stack.enter_context(store.hold("run", who={"run": "run-8"}))
            except Busy:
                if time.monotonic() >= until:
                    raise
                time.sleep(_PAUSE)
            else:
                return
