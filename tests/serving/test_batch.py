"""What comes in during one turn of the loop runs at once, and everyone gets their own rows."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from modelyard.serving.batch import INLINE_ROWS, Batcher
from modelyard.serving.errors import HttpError
from modelyard.serving.parsed import Parsed


class Double:
    """Doubles its input and counts its runs."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.broken = False

    def predict(self, feeds: dict[str, Any]) -> Any:
        if self.broken:
            raise RuntimeError("no")
        self.sizes.append(len(feeds["numeric"]))
        return feeds["numeric"] * 2


class Asking:
    """Somebody who waits for the answer to some rows."""

    def __init__(self, feeds: dict[str, Any], rows: int) -> None:
        self.parsed = Parsed.of(feeds["numeric"], None)
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()


def joined(group: list[Parsed]) -> dict[str, Any]:
    fitting = [parsed.numbers for parsed in group if parsed.error is None]
    return {"numeric": np.concatenate(fitting)} if fitting else {}


def answered(group: list[Asking], rows: Any) -> None:
    at = 0
    for one in group:
        if not one.answer.done():
            if isinstance(rows, BaseException):
                one.answer.set_exception(rows)
            else:
                one.answer.set_result(rows[at : at + one.parsed.count])
        at += one.parsed.count


async def asked(batcher: Batcher[Asking], feeds: dict[str, Any], rows: int) -> Any:
    one = Asking(feeds, rows)
    batcher.ask(one)
    return await one.answer


@contextmanager
def closing(batcher: Batcher[Asking]) -> Iterator[Batcher[Asking]]:
    yield batcher
    batcher.close()


def feeds(first: int, rows: int) -> dict[str, Any]:
    return {"numeric": np.arange(first, first + rows, dtype=np.float32).reshape(-1, 1)}


async def turn() -> None:
    """Let a turn of many requests end: a look that brings more, one that does not."""
    for _ in range(3):
        await asyncio.sleep(0)


async def idle(batcher: Batcher[Any]) -> None:
    """Wait until nobody waits, whatever is done in a thread."""
    async with asyncio.timeout(10):
        while batcher.waiting:
            await asyncio.sleep(0)


def test_one_turn_is_one_run() -> None:
    model = Double()

    async def main() -> list[Any]:
        batcher = Batcher(model, joined, answered)
        return await asyncio.gather(*(asked(batcher, feeds(n * 10, n), n) for n in range(1, 5)))

    outputs = asyncio.run(main())
    assert model.sizes == [10]
    for n, output in enumerate(outputs, 1):
        assert [value for row in output for value in row] == [2.0 * (n * 10 + i) for i in range(n)]


def test_turn_goes_on_while_looks_bring_more_and_ends_when_there_are_enough() -> None:
    model = Double()

    async def main(looks: int, each: int, rows: int = 1) -> list[int]:
        model.sizes, runs = [], 0
        batcher = Batcher(model, joined, answered)
        for _ in range(looks):
            for _ in range(each):
                batcher.ask(Asking(feeds(0, rows), rows))
            await asyncio.sleep(0)
            if rows > 1:
                assert len(model.sizes) == runs + each, "it waited"
            runs = len(model.sizes)
        await turn()
        return model.sizes

    # Alone, nobody waits for a second look.
    assert asyncio.run(main(3, 1)) == [1, 1, 1]
    assert asyncio.run(main(3, 5)) == [15]
    assert asyncio.run(main(6, 20)) == [80, 40]
    # What fills a run of the model by itself waits for nobody.
    assert asyncio.run(main(3, 2, rows=200)) == [200] * 6


def test_large_requests_run_beside_and_small_ones_do_not_grow_without_end() -> None:
    model = Double()

    async def main() -> list[Any]:
        with closing(Batcher(model, joined, answered)) as batcher:
            large = asked(batcher, feeds(0, INLINE_ROWS * 4), INLINE_ROWS * 4)
            small = [asked(batcher, feeds(0, 100), 100) for _ in range(5)]
            return await asyncio.gather(large, *small)

    outputs = asyncio.run(main())
    assert [len(o) for o in outputs] == [INLINE_ROWS * 4, *[100] * 5]
    assert sorted(model.sizes) == [100, 200, 200, INLINE_ROWS * 4]


def test_runs_are_timed_by_their_rows_and_for_each_request_in_them() -> None:
    model = Held()

    async def main() -> Any:
        with closing(Batcher(model, joined, answered)) as batcher:
            model.go_on.set()
            unfit = Asking(feeds(0, 2), 2)
            unfit.parsed.error = HttpError(400, "column-type", "no")
            batcher.ask(unfit)
            await asyncio.gather(*(asked(batcher, feeds(n * 10, n), n) for n in range(1, 5)))
            await asked(batcher, feeds(0, INLINE_ROWS + 1), INLINE_ROWS + 1)
            model.go_on.clear()
            slow(batcher)
            threading.Timer(0.05, model.go_on.set).start()
            await asyncio.gather(*(asked(batcher, feeds(n * 10, n), n) for n in range(1, 5)))
            model.broken = True
            await asyncio.gather(asked(batcher, feeds(0, 1), 1), return_exceptions=True)
            return batcher.timed

    timed = asyncio.run(main())
    assert timed.requests == 9
    assert set(timed.sizes) == {10}
    count, seconds = timed.sizes[10]
    assert count == 2
    # A run that waits takes no time of the core.
    assert seconds > 0.04
    assert timed.seconds > 4 * 0.04


def test_an_error_reaches_all_who_asked_and_the_next_turn_is_clean() -> None:
    model = Double()

    async def main() -> list[Any]:
        batcher = Batcher(model, joined, answered)
        model.broken = True
        failed = await asyncio.gather(*(asked(batcher, feeds(0, 1), 1) for _ in range(3)), return_exceptions=True)
        model.broken = False
        return [*failed, await asked(batcher, feeds(3, 1), 1)]

    *failed, fine = asyncio.run(main())
    assert [type(f) for f in failed] == [RuntimeError] * 3
    assert fine == [[6.0]]


def test_a_caller_who_left_does_not_hurt_the_others() -> None:
    async def main() -> Any:
        batcher = Batcher(Double(), joined, answered)
        gone = asyncio.ensure_future(asked(batcher, feeds(0, 1), 1))
        stays = asyncio.ensure_future(asked(batcher, feeds(5, 1), 1))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return await stays

    assert asyncio.run(main()) == [[10.0]]


class Slow(Double):
    """Works for each row."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def predict(self, feeds: dict[str, Any]) -> Any:
        until = time.thread_time() + self.seconds * len(feeds["numeric"])
        while time.thread_time() < until:
            pass
        return super().predict(feeds)


def test_turn_of_a_slow_model_is_full_with_what_it_makes_in_time() -> None:
    def ask(batcher: Batcher[Asking], count: int) -> None:
        for _ in range(count):
            batcher.ask(Asking({"numeric": np.ones((1, 1))}, 1))

    async def run() -> None:
        model = Slow(0.002)
        batcher = Batcher(model, joined, answered)
        # Nothing is known of it yet, so nobody is sent away; and few are taken in any case.
        ask(batcher, 60)
        assert not batcher.busy
        await turn()
        # 60 took 120 ms at least, and a turn has 50.
        most = batcher.turn.rows
        assert 16 <= most <= 25
        ask(batcher, most - 1)
        assert not batcher.busy
        ask(batcher, 1)
        assert batcher.busy
        await turn()
        assert not batcher.busy
        await idle(batcher)
        # Where a full turn is done in time, the next may hold more.
        model.seconds = 0.0
        for _ in range(20):
            ask(batcher, batcher.turn.rows)
            await idle(batcher)
        assert batcher.turn.rows > 500

    asyncio.run(run())


def test_few_large_requests_leave_room_for_many_small_ones() -> None:
    async def run() -> None:
        batcher = Batcher(Slow(0.00003), joined, answered)
        for _ in range(20):
            batcher.ask(Asking({"numeric": np.ones((200, 1))}, 200))
        await turn()
        assert 1000 < batcher.turn.rows < 4000
        for _ in range(500):
            batcher.ask(Asking({"numeric": np.ones((1, 1))}, 1))
        assert not batcher.busy
        await idle(batcher)

    asyncio.run(run())


class Held(Double):
    """Runs in the loop at once, in a thread not before it may."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.threads: list[str] = []

    def predict(self, feeds: dict[str, Any]) -> Any:
        if self.broken:
            raise RuntimeError("no")
        self.threads.append(threading.current_thread().name.split("_")[0])
        if self.threads[-1] != "MainThread":
            assert self.go_on.wait(10)
        return super().predict(feeds)


def slow(batcher: Batcher[Any]) -> None:
    """Let a batcher have seen that even one row takes longer than the loop can wait."""
    batcher.inline.learn(1, 1.0)


def test_the_loop_goes_on_while_a_slow_model_runs_and_what_comes_in_is_the_next_turn() -> None:
    model = Held()

    async def main() -> None:
        with closing(Batcher(model, joined, answered)) as batcher:
            slow(batcher)
            first = [asyncio.ensure_future(asked(batcher, feeds(n, 1), 1)) for n in range(3)]
            await turn()
            later = [asyncio.ensure_future(asked(batcher, feeds(10 + n, 1), 1)) for n in range(4)]
            for _ in range(20):
                await asyncio.sleep(0)
            assert batcher.waiting == 7
            assert not any(one.done() for one in first + later)
            model.go_on.set()
            assert await asyncio.gather(*first) == [[[0.0]], [[2.0]], [[4.0]]]
            assert await asyncio.gather(*later) == [[[20.0]], [[22.0]], [[24.0]], [[26.0]]]
            assert batcher.waiting == 0
            # Nobody waits any more: who comes now begins a turn.
            assert await asked(batcher, feeds(5, 1), 1) == [[10.0]]

    asyncio.run(main())
    assert model.sizes == [3, 4, 1]
    assert model.threads[:2] == ["predict", "predict"]


def test_what_a_turn_may_hold_also_bounds_what_waits_for_a_thread() -> None:
    model = Held()

    async def main() -> None:
        with closing(Batcher(model, joined, answered)) as batcher:
            slow(batcher)
            batcher.turn.learn(100, 0.25)
            for _ in range(20):
                batcher.ask(Asking(feeds(0, 1), 1))
            assert batcher.busy
            await turn()
            assert not batcher.busy
            for _ in range(20):
                batcher.ask(Asking(feeds(0, 1), 1))
            await turn()
            assert batcher.busy, "the thread is not done, and the next turn is full"
            model.go_on.set()
            await idle(batcher)
            assert not batcher.busy

    asyncio.run(main())


def test_a_run_that_only_seemed_long_is_soon_made_in_the_loop_again() -> None:
    model = Held()
    model.go_on.set()

    async def main() -> None:
        with closing(Batcher(model, joined, answered)) as batcher:
            for _ in range(40):
                await asked(batcher, feeds(0, 8), 8)
            assert set(model.threads) == {"MainThread"}
            batcher.inline.learn(8, 0.010)
            model.threads.clear()
            for _ in range(20):
                await asked(batcher, feeds(0, 8), 8)

    asyncio.run(main())
    assert model.threads[0] == "predict"
    assert set(model.threads[10:]) == {"MainThread"}


def test_slow_runs_are_seen_for_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    class Clocked(Double):
        seconds = 0.002

        def predict(self, feeds: dict[str, Any]) -> Any:
            now[0] += self.seconds * len(feeds["numeric"])
            return super().predict(feeds)

    # Whatever else the machine does.
    clock = SimpleNamespace(monotonic=lambda: now[0], thread_time=lambda: now[0])
    monkeypatch.setattr("modelyard.serving.batch.time", clock)

    async def main() -> None:
        model = Clocked()
        with closing(Batcher(model, joined, answered)) as batcher:
            # In the loop and then in the thread it is the same: two rows have 5 ms, three do not.
            for _ in range(2):
                await asked(batcher, feeds(0, 10), 10)
                assert batcher.inline.rows == 2
            model.seconds = 0.010
            await asked(batcher, feeds(0, 1), 1)
            assert batcher.inline.rows == 0

    asyncio.run(main())


def test_an_error_in_the_thread_reaches_all_who_asked() -> None:
    model = Double()

    async def main() -> Any:
        with closing(Batcher(model, joined, answered)) as batcher:
            slow(batcher)
            model.broken = True
            failed = await asyncio.gather(*(asked(batcher, feeds(0, 1), 1) for _ in range(3)), return_exceptions=True)
            assert [type(f) for f in failed] == [RuntimeError] * 3
            model.broken = False
            assert batcher.waiting == 0
            slow(batcher)
            return await asked(batcher, feeds(3, 1), 1)

    assert asyncio.run(main()) == [[6.0]]


def test_a_turn_that_no_thread_takes_is_made_in_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Held()
    model.go_on.set()

    async def main() -> None:
        with closing(Batcher(model, joined, answered)) as batcher:
            slow(batcher)
            with monkeypatch.context() as without:
                without.setattr("threading.Thread.start", Mock(side_effect=RuntimeError("can't start new thread")))
                assert await asked(batcher, feeds(0, 1), 1) == [[0.0]]
            slow(batcher)
            assert await asked(batcher, feeds(1, 1), 1) == [[2.0]]
            await idle(batcher)

    asyncio.run(main())
    assert model.threads == ["MainThread", "predict"], "what no thread took is not made again by the next"


def test_turns_do_not_wait_for_a_large_request() -> None:
    model = Held()

    async def main() -> None:
        with closing(Batcher(model, joined, answered)) as batcher:
            large = asyncio.ensure_future(asked(batcher, feeds(0, INLINE_ROWS), INLINE_ROWS))
            await turn()
            slow(batcher)
            small = asyncio.ensure_future(asked(batcher, feeds(0, 1), 1))
            async with asyncio.timeout(10):
                while len(model.threads) < 2:
                    await asyncio.sleep(0.001)
            model.go_on.set()
            await asyncio.gather(large, small)

    asyncio.run(main())
    assert sorted(model.threads) == ["predict", "predict-large"]


def test_who_closes_waits_for_the_thread_and_nobody_is_answered_afterwards() -> None:
    model, told = Held(), []

    async def main() -> None:
        batcher = Batcher[Asking](model, joined, lambda group, output: told.append(output))
        slow(batcher)
        batcher.ask(Asking(feeds(0, 1), 1))
        await turn()
        batcher.ask(Asking(feeds(0, 1), 1))
        threading.Timer(0.05, model.go_on.set).start()
        batcher.close()
        assert model.sizes == [1]
        await idle(batcher)

    asyncio.run(main())
    assert model.sizes == [1]
    assert not told


class Row(Asking):
    """Somebody who asks for a row that may not fit."""

    def __init__(self, value: float, *, fits: bool = True) -> None:
        super().__init__({"numeric": np.full((1, 1), value)}, 1)
        if not fits:
            self.parsed.error = HttpError(400, "value-missing", "no")


def test_all_rows_of_a_turn_decide_whether_it_keeps_the_loop() -> None:
    model = Held()

    async def main() -> None:
        with closing(Batcher(model, joined, answered)) as batcher:
            batcher.inline.learn(5, 0.005001)
            assert batcher.inline.rows == 4
            # The first run has two rows, and the ones after it 255 each.
            for rows in (2, 255, 255):
                batcher.ask(Asking(feeds(0, rows), rows))
            await turn()
            assert batcher.waiting == 3
            model.go_on.set()
            await idle(batcher)

    asyncio.run(main())
    assert model.threads == ["predict"] * 3


def test_runs_of_one_turn_are_slow_together() -> None:
    model = Slow(0.00001)

    async def main() -> None:
        with closing(Batcher(model, joined, answered)) as batcher:
            for _ in range(8):
                batcher.ask(Asking(feeds(0, 200), 200))
            await idle(batcher)
            # Eight runs of 2 ms each.
            assert batcher.inline.rows < 600

    asyncio.run(main())


def test_what_was_refused_or_failed_says_nothing_of_the_speed() -> None:
    async def main() -> None:
        model = Slow(0.002)
        with closing(Batcher(model, joined, answered)) as batcher:
            await asked(batcher, feeds(0, 10), 10)
            seen = batcher.inline.rows
            for one in [Row(0.0, fits=False) for _ in range(50)]:
                batcher.ask(one)
                await idle(batcher)
            model.broken, model.seconds = True, 0.0
            for _ in range(50):
                await asyncio.gather(asked(batcher, feeds(0, 10), 10), return_exceptions=True)
            assert batcher.inline.rows == seen < 5
            assert batcher.runs == 51

    asyncio.run(main())


def test_a_model_is_known_before_it_is_asked() -> None:
    async def main(seconds: float) -> tuple[int, int]:
        with closing(Batcher(Slow(seconds), joined, answered)) as batcher:
            batcher.warm(feeds(0, 1))
            return batcher.inline.rows, batcher.turn.rows

    inline, whole = asyncio.run(main(0.0015))
    assert 1 <= inline <= 3
    assert 16 <= whole <= 33
    assert asyncio.run(main(0.020)) == (0, 16)
    inline, whole = asyncio.run(main(0.00001))
    assert min(inline, whole) > 1_000_000


class Waits(Double):
    """Waits without working."""

    def predict(self, feeds: dict[str, Any]) -> Any:
        time.sleep(0.02)
        return super().predict(feeds)


def test_a_model_that_waits_does_not_keep_the_loop_every_other_time() -> None:
    async def main() -> None:
        with closing(Batcher(Waits(), joined, answered)) as batcher:
            for _ in range(5):
                await asked(batcher, feeds(0, 1), 1)
                assert batcher.inline.rows == 0

    asyncio.run(main())


def test_under_load_a_fast_model_comes_back_from_the_thread() -> None:
    model = Held()
    model.go_on.set()

    async def main() -> None:
        with closing(Batcher(model, joined, answered)) as batcher:
            batcher.inline.learn(8, 0.006)

            async def caller() -> None:
                # Somebody asks again as soon as there is an answer: something is gathered at every moment.
                for _ in range(60):
                    await asked(batcher, feeds(0, 1), 1)

            await asyncio.gather(*(caller() for _ in range(8)))
            assert batcher.inline.rows >= 8

    asyncio.run(main())
    assert model.threads[0] == "predict"
    assert set(model.threads[-10:]) == {"MainThread"}


def test_the_thread_has_its_next_turn_before_the_last_is_answered() -> None:
    model, order = Held(), []

    async def main() -> None:
        def told(group: list[Asking], output: Any) -> None:
            order.append((len(group), batcher._away))
            answered(group, output)

        batcher = Batcher(model, joined, told)
        slow(batcher)
        for rows in (2, 3):
            for _ in range(rows):
                batcher.ask(Asking(feeds(0, 1), 1))
            await turn()
        model.go_on.set()
        await idle(batcher)
        batcher.close()

    asyncio.run(main())
    assert order == [(2, True), (3, False)]


def test_what_waits_for_its_turn_can_be_taken_out() -> None:
    model = Held()

    async def main() -> None:
        with closing(Batcher(model, joined, answered)) as batcher:
            slow(batcher)
            batcher.turn.learn(100, 0.25)
            batcher.ask(first := Asking(feeds(0, 1), 1))
            await turn()
            later = [Asking(feeds(0, 1), 1) for _ in range(30)]
            for one in later:
                batcher.ask(one)
            assert batcher.busy
            assert batcher.drop() == later
            assert (batcher.waiting, batcher.busy, batcher.drop()) == (1, False, [])
            model.go_on.set()
            await first.answer
            # In the loop, between the question and the look.
            batcher.inline.learn(1000, 0.0)
            batcher.ask(Asking(feeds(0, 1), 1))
            assert len(batcher.drop()) == 1
            await turn()
            assert await asked(batcher, feeds(1, 1), 1) == [[2.0]]
            assert batcher.waiting == 0

    asyncio.run(main())
    assert model.sizes == [1, 1]


def test_what_ends_a_thread_is_told_to_who_waits() -> None:
    class Ends(Double):
        def predict(self, feeds: dict[str, Any]) -> Any:
            raise SystemExit(3)

    async def main() -> None:
        with closing(Batcher(Ends(), joined, answered)) as batcher:
            slow(batcher)
            for rows in (1, INLINE_ROWS):
                with pytest.raises(SystemExit):
                    await asked(batcher, feeds(0, rows), rows)
            assert batcher.waiting == 0

    asyncio.run(main())


def test_a_group_that_cannot_be_answered_keeps_no_other_waiting() -> None:
    model, told = Held(), []
    model.go_on.set()

    async def main() -> None:
        def stumbling(group: list[Asking], output: Any) -> None:
            told.append(len(group))
            if len(told) == 1:
                raise ValueError("a mistake of ours")

        said: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: said.append(context))
        with closing(Batcher(model, joined, stumbling)) as batcher:
            for rows in (200, 201, 202):
                batcher.ask(Asking(feeds(0, rows), rows))
            await idle(batcher)
        assert [type(one["exception"]) for one in said] == [ValueError]

    asyncio.run(main())
    assert told == [1, 1, 1]


def test_nobody_is_told_once_the_loop_is_gone(capfd: pytest.CaptureFixture[str]) -> None:
    model = Held()

    async def main() -> Batcher[Asking]:
        batcher = Batcher[Asking](model, joined, answered)
        slow(batcher)
        batcher.ask(Asking(feeds(0, 1), 1))
        await turn()
        return batcher

    batcher = asyncio.run(main())
    model.go_on.set()
    batcher.close()
    assert capfd.readouterr().err == ""


def test_request_that_no_thread_takes_is_not_counted_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused with what the system says, and what came of it would take room from all others."""

    async def main() -> None:
        with closing(Batcher(Double(), joined, answered)) as batcher:
            with monkeypatch.context() as without:
                without.setattr("threading.Thread.start", Mock(side_effect=RuntimeError("can't start new thread")))
                with pytest.raises(RuntimeError):
                    batcher.ask(Asking(feeds(0, INLINE_ROWS), INLINE_ROWS))
            assert batcher.waiting == 0
            one = Asking(feeds(0, INLINE_ROWS), INLINE_ROWS)
            batcher.ask(one)
            assert batcher.waiting == 1
            assert len(await one.answer) == INLINE_ROWS
            assert batcher.waiting == 0

    asyncio.run(main())
