"""Advice: asked against used."""

from __future__ import annotations

import msgspec

from modelyard.pipeline.machine import advice
from modelyard.records import Attempt, Plan, Resources, Retry, Run, Step, StepRun, StepStatus, Usage

MB, GB = 10**6, 10**9


def plan(**asked: Resources) -> Plan:
    return Plan(project="p", steps=tuple(Step(name=name, verb="m:f", resources=r) for name, r in asked.items()))


def ran(
    name: str = "s",
    *,
    peak: int = 0,
    cpu: float = 0.0,
    seconds: float = 10.0,
    status: StepStatus = "succeeded",
    error: str = "",
    short: bool = False,
) -> StepRun:
    attempts = (Attempt(number=1, time=0.0, error={"code": "out-of-memory"}),) if short else ()
    return StepRun(
        name=name,
        status=status,
        seconds=seconds,
        usage=Usage(peak_bytes=peak, cpu_seconds=cpu),
        error={"code": error} if error else {},
        attempts=attempts,
    )


def runs(*steps: StepRun) -> list[Run]:
    return [
        Run(id=f"run-{i}", project="p", status="succeeded", started=float(i), steps=(step,))
        for i, step in enumerate(steps)
    ]


def texts(asked: Resources, *steps: StepRun) -> list[str]:
    return [one.text for one in advice(plan(s=asked), runs(*steps))]


def test_too_much_memory_is_named_with_what_to_ask() -> None:
    five = [ran(peak=p * MB) for p in (400, 600, 500, 450, 550)]
    assert texts(Resources(memory=4 * GB), *five) == ["asked 4 GB, peak 600 MB over 5 runs: ask 900 MB"]


def test_a_limit_that_is_nearly_reached_or_was_is_named() -> None:
    assert texts(Resources(memory=GB), ran(peak=950 * MB)) == [
        "asked 1 GB, peak 950 MB over 1 run, which is close: ask 1.5 GB"
    ]
    short = [ran(peak=180 * MB, short=True), ran(peak=200 * MB, status="failed", error="out-of-memory")]
    assert texts(Resources(memory=200 * MB), *short) == [
        "asked 200 MB, and ran out of memory in 2 of 2 runs: ask 400 MB"
    ]


def test_a_kill_at_a_smaller_limit_than_today_says_nothing_of_this_one() -> None:
    killed = [ran(peak=180 * MB, status="failed", error="out-of-memory")] * 2
    well = ran(peak=1100 * MB)
    small, large = Resources(memory=200 * MB), Resources(memory=2 * GB)

    def then(asked: Resources, now: Resources, *steps: StepRun, retry: int = 0) -> list[str]:
        old = plan(s=asked)
        old = msgspec.structs.replace(old, steps=(msgspec.structs.replace(old.steps[0], retry=Retry(memory=retry)),))
        before = [msgspec.structs.replace(run, plan="old") for run in runs(*steps)]
        return [one.text for one in advice(plan(s=now), [*before, *runs(well)], lambda run: old if run.plan else None)]

    assert then(small, large, *killed) == []
    # Nor is it a peak: it would have been higher.
    assert [one.text for one in advice(plan(s=large), runs(*killed), lambda _: plan(s=small))] == []
    # Killed at what it asks now, or at more, counts.
    assert then(large, large, *killed) == ["asked 2 GB, and ran out of memory in 2 of 3 runs: ask 4 GB"]
    assert then(large, small, *killed)[0].startswith("asked 200 MB, and ran out of memory in 2 of 3 runs")
    # The attempt after the first kill had more, and was killed too.
    twice = ran(peak=450 * MB, short=True, status="failed", error="out-of-memory")
    again = Resources(memory=400 * MB)
    assert then(small, again, twice, retry=500 * MB)[0].startswith("asked 400 MB, and ran out of memory in 1 of 2 runs")
    # One that went on with more has told what it needs.
    (text,) = then(small, again, ran(peak=390 * MB, short=True), retry=500 * MB)
    assert "ran out" not in text


def test_much_memory_without_a_limit_is_named() -> None:
    (text,) = texts(Resources(), ran(peak=6 * GB))
    assert text.startswith("asked for no memory, peak 6 GB over 1 run: ask 9 GB")


def test_cores_that_were_not_asked_for_or_not_used_are_named() -> None:
    one, four = Resources(cpus=1, own_process=True), Resources(cpus=4, own_process=True)
    assert texts(one, ran(cpu=19)) == ["took 1.9 of 1 core: ask 2 (median of 1 run)"]
    assert texts(four, ran(cpu=9), ran(cpu=9), ran(cpu=40)) == ["used 0.9 of 4 cores: ask 1 (median of 3 runs)"]
    assert texts(Resources(cpus=4, memory=GB), ran(cpu=9, peak=700 * MB)) == [
        "used 0.9 of 4 cores: ask 1 (median of 1 run)"
    ]


def test_who_asks_well_hears_nothing() -> None:
    assert texts(Resources(memory=GB, cpus=2, own_process=True), ran(peak=700 * MB, cpu=18)) == []
    assert texts(Resources(), ran(peak=100 * MB, cpu=100)) == [], "steps in the runner's process ask for no cores"
    assert texts(Resources(own_process=True), ran(cpu=0.9, seconds=0.1)) == [], "too short to tell"
    assert texts(Resources(memory=300 * MB), ran(peak=50 * MB)) == [], "too little to be worth a word"


def test_only_the_newest_runs_count_and_none_out_of_the_cache() -> None:
    old = [ran(peak=3900 * MB)] * 3
    new = [ran(peak=100 * MB)] * 5
    cached = [ran(status="cached")] * 4
    assert texts(Resources(memory=4 * GB), *old, *new, *cached) == ["asked 4 GB, peak 100 MB over 5 runs: ask 200 MB"]
    assert texts(Resources(memory=4 * GB), *cached) == []
