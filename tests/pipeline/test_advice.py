"""Advice: asked against used."""

from __future__ import annotations

from modelyard.pipeline.machine import advice
from modelyard.records import Attempt, Plan, Resources, Run, Step, StepRun, StepStatus, Usage

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
