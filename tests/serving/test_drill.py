"""`modelyard drill`: it breaks a server of its own, sees what its callers would see, and leaves evidence only."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard._kit.machine import worked
from modelyard._kit.processes import family
from modelyard.automation.drill import bench as benches
from modelyard.automation.drill import faults
from modelyard.automation.drill.bench import Bench, Order
from modelyard.automation.drill.faults import Found
from modelyard.automation.drill.judging import Drilled, judged, not_tried
from modelyard.automation.drill.overload import disturbed
from modelyard.automation.drill.traffic import alike
from modelyard.cli import drill as drill_verb
from modelyard.cli.main import main
from modelyard.records import CheckResult
from modelyard.serving.load.spoiled import Spoiled

from .versions import Yard, times, until  # noqa: TID252 - the suite is not installed

# A check of the answers that is code of the project.
OWN = """
def sure(batch):
    return [False] * len(batch.answers)
"""
FILE = """
project: hours
data: {{rows: {{from: rows.csv}}}}
model: {{target: y}}
deploy:
  guards: {{checks: [{{use: "guards.py:{function}", timeout: 30s}}]}}
"""
FEW = ("--rate", "50", "--hold", "1")


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path / "project")
    made.point(made.keep(times(2.0)))
    yield made
    made.store.close()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"id": "a", "predictions": [1.0]}, {"id": "b", "predictions": [1.00000001]}, True),
        ({"predictions": [1.0]}, {"predictions": [1.01]}, False),
        ({"predictions": [{"label": "yes"}]}, {"predictions": [{"label": "no"}]}, False),
        ({"predictions": [1.0]}, {"predictions": [1.0, 1.0]}, False),
        ({"predictions": [1.0]}, {"predictions": [1.0], "warning": "x"}, False),
        ({"predictions": [None]}, {"predictions": [0.0]}, False),
    ],
)
def test_answers_are_compared_but_for_their_ids(one: Any, other: Any, same: bool) -> None:
    assert alike(one, other) is same


def statuses(results: list[CheckResult]) -> dict[str, str]:
    return {result.check.name: result.status for result in results}


def test_each_measure_has_its_limit() -> None:
    fine = Found(asked=100, failed=2, allowed=3, back=4.9)
    assert set(statuses(judged(Order(), "kill", fine, {}, "m")).values()) == {"passed"}
    bad = Found(asked=100, failed=4, allowed=3, wrong=1, back=None, died=1, lost=1, more={"torn": 1})
    found = judged(Order(), "kill", bad, {"drill.kill.lost": 0.0}, "m")
    assert statuses(found) == {
        f"drill.kill.{what}": "failed" for what in ("failed", "wrong", "back", "died", "lost", "torn")
    }
    told = {result.evidence.measure: result.reason for result in found}
    assert told["failed"] == "4 failed of 100; at most 3, which were under way"
    assert told["lost"] == "1 answered and not logged; at most 0 (last time 0)"
    assert told["back"].startswith("not as before within half a minute")
    # A whole server may take longer than one process of several.
    assert set(statuses(judged(Order(), "restart", Found(back=9.0), {}, "m")).values()) == {"passed"}


def test_what_was_not_tried_has_not_passed(capsys: pytest.CaptureFixture[str]) -> None:
    result = not_tried(Order(), "clock", "the clock stands", "m")
    assert (result.status, result.reason, result.evidence.value) == ("skipped", "not tried: the clock stands", None)
    drill_verb._print("hours", Drilled([result], {}, before=False))
    said = capsys.readouterr().out
    assert "✓" not in said
    assert "drill.clock: not tried: the clock stands" in said


def test_lateness_of_a_machine_that_others_use_says_nothing() -> None:
    found = Found(asked=10, more={"late": 0.5}, doubtful={"late": "the machine was busy"})
    late = judged(Order(), "spike", found, {}, "m")[-1]
    assert (late.status, "the machine was busy" in late.reason) == ("insufficient", True)


@pytest.mark.parametrize(
    ("server", "client", "whole", "usable", "processors", "said"),
    [
        (1.6, 0.1, 1.72, 2, 2, ""),
        (1.6, 0.35, 1.98, 2, 2, "2 processes and the client shared 2 cores"),
        (1.6, 0.35, 1.98, 3, 3, ""),
        (1.4, 0.35, 1.98, 2, 2, "others had 0.23 of its 2 cores"),
        (0.9, 0.35, 1.98, 2, 2, "the server got 0.90 of 1.65 cores"),
        (1.95, 0.4, 40.0, 64, 64, ""),  # it had what it could use
        (1.8, 0.1, 1.95, 2, 0, ""),  # the system does not tell
        (1.5, 0.1, 0.0, 2, 0, ""),
    ],
)
def test_what_others_took_is_told(
    server: float, client: float, whole: float, usable: int, processors: int, said: str
) -> None:
    assert disturbed(server, client, whole, 2, usable, processors) == said


def test_work_of_the_machine_is_counted() -> None:
    before, processors = worked()
    began = time.process_time()
    while time.process_time() - began < 0.5:
        pass
    assert processors >= 1
    # In hundredths of a second.
    assert worked()[0] - before >= 0.45


def test_a_clock_and_a_burden_are_shared_by_a_file(tmp_path: Path) -> None:
    one, other = Spoiled(tmp_path / "f"), Spoiled(tmp_path / "f")
    one.clock, one.burden = -5.0, 0.5
    assert (other.clock, other.burden) == (-5.0, 0.5)
    other.clock = 0.0
    assert (one.clock, one.burden) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "disc"], "error[drill-unknown]: there is no fault `disc`\n  hint: did you mean `disk`?"),
        (["--deadline", "soon"], "--deadline is `soon`"),
        (["--processes", "1"], "--processes is `1`"),
        (["hour"], "did you mean `hours`?"),
    ],
)
def test_what_cannot_be_broken_is_refused(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(yard.root)
    assert main(["drill", *arguments]) == 2
    assert says in capsys.readouterr().err
    assert not list(yard.store.ledger.events(kinds=("drill.finished",)))


def with_bench(yard: Yard, work: Callable[[Bench], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        to = yard.now("champion")
        rows = [{"a": float(n % 10)} for n in range(64)]
        async with benches.bench(Order(rate=50, hold=1), yard.store, to, rows, None) as bench:
            await work(bench)

    asyncio.run(all_of_it())


@pytest.mark.slow
def test_wrong_answers_and_missing_rows_are_noticed(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benches, "_WRITTEN", 3.0)

    async def work(bench: Bench) -> None:
        traffic = await bench.traffic()
        measured = await traffic.offer(50, 1.0)
        assert traffic.wrong == 0
        names = {name for name, _ in traffic.answered}
        assert len(names) == measured.answered > 10
        assert await bench.lost(names) == set()
        assert await bench.lost({*names, "nobody"}) == {"nobody"}
        # Another model answers otherwise than the first one did.
        other = yard.keep(times(3.0))
        link = bench.root / ".modelyard" / "blobs" / "folders" / other.address[:2] / other.address[2:]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(yard.folder(other))
        bench.store.ledger.append(
            benches.Draft(
                kind="alias.moved",
                payload={"deployment": benches.plain(msgspec.structs.replace(yard.point(other), alias="champion"))},
            )
        )
        for _ in range(40):
            await traffic.offer(50, 0.3)
            if traffic.wrong:
                break
        assert traffic.wrong
        traffic.client.close()

    with_bench(yard, work)


@pytest.mark.slow
def test_disk_that_is_not_full_is_not_passed(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults.resource, "prlimit", lambda pid, which, limits=None: (-1, -1))

    async def work(bench: Bench) -> None:
        with pytest.raises(faults.NotTried, match="RLIMIT_FSIZE"):
            await faults.disk(bench)

    with_bench(yard, work)


def started(yard: Yard, tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    (tmp_path / "tmp").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "modelyard", "drill", "--json", *arguments],
        cwd=yard.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    )


@pytest.mark.slow
def test_drill_leaves_evidence_and_nothing_else(yard: Yard, tmp_path: Path) -> None:
    (yard.root / "guards.py").write_text(OWN)
    (yard.root / "modelyard.yaml").write_text(FILE.format(function="sure"))
    before = yard.store.ledger.head()[0]
    faults_named = ("kill", "disk", "clock", "lock", "restart")
    done = started(yard, tmp_path, *FEW, *(word for name in faults_named for word in ("--only", name)))
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0, err + out
    told = json.loads(out)
    (event,) = yard.store.ledger.events(after=before)
    assert (event.kind, event.payload) == ("drill.finished", told)
    results = [msgspec.convert(one, CheckResult) for one in told["results"]]
    assert {name.split(".")[1] for name in statuses(results)} == set(faults_named)
    assert set(statuses(results).values()) == {"passed"}
    by_name = {result.check.name: result.evidence for result in results}
    # The faults were there: one was said, the other is in the log.
    assert by_name["drill.disk.failed"].details["said_after"] < 1
    assert by_name["drill.clock.failed"].details["logged_ahead"] > 80_000
    assert by_name["drill.restart.back"].value > 0
    assert all(evidence.model == told["model"] for evidence in by_name.values())
    assert not list((tmp_path / "tmp").glob("modelyard-*"))
    assert not (yard.root / ".modelyard" / "requests").exists()
    assert yard.store.ledger.verify() == []


@pytest.mark.slow
def test_spike_is_shed_and_the_next_drill_is_compared(yard: Yard, tmp_path: Path) -> None:
    for said in ("", "(last time"):
        done = started(yard, tmp_path, *FEW, "--only", "spike", "--search", "8")
        out, err = done.communicate(timeout=300)
        results = [msgspec.convert(one, CheckResult) for one in json.loads(out)["results"]]
        found = {result.evidence.measure: result for result in results}
        if "spike" in found:
            pytest.skip(found["spike"].reason)  # a machine on which one client is too slow
        details = found["failed"].evidence.details
        assert details["times"] > 9
        assert details["refused"] > details["answered"] > 0
        assert {found[what].status for what in ("failed", "wrong", "died", "hintless", "lost")} == {"passed"}, out + err
        assert said in found["failed"].reason


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_stops_it_finds_nothing_left(yard: Yard, tmp_path: Path, number: signal.Signals) -> None:
    process = started(yard, tmp_path, "--only", "lock", "--hold", "30")
    assert process.stderr is not None
    assert process.stderr.readline().startswith("breaking a server of its own")
    assert process.stderr.readline().startswith("lock: ")
    # The server, the process that it forks from, and the one that holds the databases.
    below = until(lambda: found if len(found := family(process.pid)) >= 4 else None, 60)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert out == ""
    until(lambda: not [pid for pid in below if Path(f"/proc/{pid}").exists()])
    assert not list((tmp_path / "tmp").glob("modelyard-*"))
    assert not list(yard.store.ledger.events(kinds=("drill.finished",)))
