"""`modelyard loadtest`: what it refuses, how it judges, and that it leaves evidence and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import helper

from modelyard._kit.errors import ModelyardError, UserError
from modelyard._kit.processes import born, family
from modelyard.automation import loadtest, trial
from modelyard.automation.loadtest import Order, last_of, why_not_compared
from modelyard.checks.capacity import capacity
from modelyard.cli import loads
from modelyard.cli import loadtest as loadtest_verb
from modelyard.cli.main import main
from modelyard.inference import BundleDraft
from modelyard.monitoring.window import read_window
from modelyard.records import Check, CheckResult, Draft, Evidence, plain
from modelyard.serving.load.knee import Knee
from modelyard.serving.load.measured import Measured
from modelyard.serving.load.requests import encoded
from modelyard.store.requests import ids_of

from .versions import ENDPOINT, Yard, times, until  # noqa: TID252 - the suite is not installed


def knee(value: float | None) -> Evidence:
    return Evidence(measure="knee", value=value, unit="1/s", n=1000)


@pytest.mark.parametrize(
    ("value", "at_least", "share", "last", "status", "says"),
    [
        (1000.0, None, None, None, "passed", "1,000 requests a second"),
        (1000.0, 900.0, None, None, "passed", "1,000 requests a second; at least 900"),
        (1000.0, 1100.0, None, None, "failed", "1,000 requests a second; below 1,100"),
        (1000.0, None, 0.9, 1050.0, "passed", "1,000 requests a second, 95% of the last time (1,050); at least 945"),
        (1000.0, None, 0.9, 1200.0, "failed", "1,000 requests a second, 83% of the last time (1,200); below 1,080"),
        (1000.0, None, 0.9, None, "skipped", "1,000 requests a second; there is nothing to compare with yet"),
        (None, None, 0.9, 1200.0, "failed", "no rate held the limits"),
    ],
)
def test_knee_is_judged(
    value: float | None, at_least: float | None, share: float | None, last: float | None, status: str, says: str
) -> None:
    result = capacity(knee(value), at_least=at_least, share=share, last=last)
    assert (result.status, result.reason) == (status, says)


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path / "project")
    made.point(made.keep(times(2.0)))
    yield made
    made.store.close()


def remember(yard: Yard, order: Order, value: float | None, p99: float, endpoint: str = ENDPOINT) -> None:
    result = CheckResult(
        check=Check(name="load.knee", type="load"), status="passed", reason="", limit=None, evidence=knee(value)
    )
    payload = {"endpoint": endpoint, "model": "m", "like": {**order.like(), "p99": p99}, "results": [plain(result)]}
    yard.store.ledger.append(Draft(kind="loadtest.finished", payload=payload))


def test_only_what_is_alike_is_compared(yard: Yard) -> None:
    order = Order()
    assert last_of(yard.store, ENDPOINT, order) == (None, 0.0)
    remember(yard, order, 500.0, 0.01)
    remember(yard, Order(batch=2), 1.0, 0.01)
    remember(yard, Order(processes=2), 2.0, 0.01)
    remember(yard, order, 3.0, 0.01, endpoint="other")
    remember(yard, order, None, 0.01)
    assert last_of(yard.store, ENDPOINT, order) == (500.0, 0.01)
    # Without a limit of one's own that of the last test counts; with one, only tests with the same.
    assert last_of(yard.store, ENDPOINT, Order(p99=0.01)) == (500.0, 0.01)
    assert last_of(yard.store, ENDPOINT, Order(p99=0.02)) == (None, 0.0)
    remember(yard, order, 600.0, 0.02)
    assert last_of(yard.store, ENDPOINT, order) == (600.0, 0.02)
    assert last_of(yard.store, ENDPOINT, Order(p99=0.01)) == (500.0, 0.01)


def test_why_nothing_is_compared_is_known_before_it_is_tested(yard: Yard) -> None:
    order = Order(connections=32, p99=0.02)
    assert why_not_compared(yard.store, ENDPOINT, order).endswith("no test of `hours` has searched for the knee before")
    remember(yard, Order(p99=0.01), 500.0, 0.01)
    remember(yard, order, 500.0, 0.02, endpoint="other")
    said = why_not_compared(yard.store, ENDPOINT, order)
    assert said.endswith(
        "the last test of `hours` had another connections 64 (now 32), another p99 0.01 s (now 0.02 s)"
    )
    remember(yard, order, None, 0.02)
    assert why_not_compared(yard.store, ENDPOINT, order).endswith("the last test of `hours` held no rate")
    remember(yard, order, 500.0, 0.02)
    assert why_not_compared(yard.store, ENDPOINT, order) == ""


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["http://192.0.2.7:8080"], 2, "error[loadtest-remote]: `192.0.2.7` is another machine"),
        (["http://example.org"], 2, "error[loadtest-remote]"),
        (["https://127.0.0.1:8080"], 2, "`https://127.0.0.1:8080` cannot be asked: a load test speaks no TLS"),
        (["http://127.0.0.1:8080/predict"], 2, "cannot be asked"),
        (["http://a:b@127.0.0.1:8080"], 2, "cannot be asked"),
        (["http://127.0.0.1:port"], 2, "cannot be asked"),
        (["http://127.0.0.1:8080", "--soak", "6"], 2, "the memory of a server at an address cannot be seen"),
        (["--soak", "1"], 2, "--soak is `1`"),
        (["--seconds", "nan"], 2, "--seconds is `nan`"),
        (["--errors", "200%"], 2, "--errors is `200%`"),
        (["--errors=-1%"], 2, "--errors is `-1%`"),
        (["--rate", "1e12"], 2, "--rate is `1e12`"),
        (["--most", "inf"], 2, "--most is `inf`"),
        (["--batch", "0"], 2, "--batch is `0`"),
        (["--rate", "-1"], 2, "--rate is `-1`"),
        (["--rate", "0"], 2, "--rate is `0`"),
        (["--p99", "10"], 2, "--p99 is `10`"),
        (["--p99", "0ms"], 2, "--p99 is `0ms`"),
        (["--errors", "1"], 2, "--errors is `1`"),
        (["--fail-below", "most"], 2, "--fail-below is `most`"),
        (["--fail-below", "90%", "--rate", "100"], 2, "--fail-below `90%` is a share of the last knee, and --rate"),
        (["--endpoint", "hour"], 2, "did you mean `hours`?"),
        (["ffffff"], 2, "no model `ffffff`"),
    ],
)
def test_what_cannot_be_tested_is_refused(
    yard: Yard,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(yard.root)
    assert main(["loadtest", *arguments]) == code
    assert says in capsys.readouterr().err
    assert not list(yard.store.ledger.events(kinds=("loadtest.finished",)))


def test_rows_without_a_column_are_refused(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(yard.root)
    (yard.root / "rows.csv").write_text("b\n1\n")
    assert main(["loadtest", "--rows", "rows.csv"]) == 2
    assert "error[loadtest-rows]: `rows.csv` has no column `a`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("limited", "why"),
    [
        ("connections", "requests waited for one of 8 connections, try --connections 16"),
        ("time", "time is up, give it more by --seconds"),
    ],
)
def test_who_is_short_of_something_is_told_what_to_try(
    capsys: pytest.CaptureFixture[str], limited: str, why: str
) -> None:
    step = Measured(rate=80, seconds=1, sent=80, answered=80, errors={}, p99=0.2, served=0.1, waited=60)
    for at, says in ((step, "more"), (None, "one")):
        knee = Knee(at=at, beyond=100, limited=limited, steps=(step,))
        loadtest_verb._print("income 3fa9", loadtest.Tested(knee, 0.2, []), 8)
        assert f"it may hold {says}: {why}" in capsys.readouterr().out


@pytest.mark.parametrize("json", [False, True])
def test_what_was_measured_is_shown_where_it_cannot_be_written(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], json: bool
) -> None:
    step = Measured(rate=80, seconds=1, sent=80, answered=80, errors={}, p99=0.2, served=0.1, waited=0)
    tested = loadtest.Tested(Knee(at=step, beyond=100, limited="", steps=(step,)), 0.2, [])

    def run(work: Any) -> Any:
        work.close()
        return tested

    def record(*given: Any, **more: Any) -> None:
        raise UserError("disk-full", "no space left on the disk of `ledger.db`", hint="free some space")

    monkeypatch.chdir(yard.root)
    monkeypatch.setattr(loads, "in_loop", run)
    monkeypatch.setattr(loadtest, "record", record)
    assert main(["loadtest", *(["--json"] if json else [])]) == 2
    said = capsys.readouterr()
    assert "error[disk-full]" in said.err
    assert ('"results":' if json else "holds 80 requests a second") in said.out


def started(yard: Yard, tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    (tmp_path / "tmp").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "modelyard", "loadtest", "--json", *arguments],
        cwd=yard.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    )


@pytest.mark.slow
def test_test_leaves_evidence_and_nothing_else(yard: Yard, tmp_path: Path) -> None:
    (yard.root / "rows.csv").write_text("a,more\n1,x\n2,y\n3,z\n")
    line = ("--seconds", "6", "--p99", "2s", "--most", "300", "--soak", "6", "--rows", "rows.csv")
    done = started(yard, tmp_path, *line, "--fail-below", "90%")
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    # Whoever asked for a comparison hears that there was none, though nothing failed.
    assert "note: --fail-below 90% decided nothing: there is nothing to compare with yet: no test of" in err
    told = json.loads(out)
    (event,) = yard.store.ledger.events(kinds=("loadtest.finished",))
    assert event.payload == told
    found, memory = [msgspec.convert(result, CheckResult) for result in told["results"]]
    assert found.evidence.value == 300
    assert found.evidence.model == told["model"]
    at: dict[str, Any] = found.evidence.details["at"]
    assert at["answered"] == at["sent"] > 200
    assert at["p50"] <= at["p90"] <= at["p99"] <= at["p999"] <= at["slowest"] < 2
    assert at["cpu_us"] > 0
    assert memory.status == "passed"
    assert not list((tmp_path / "tmp").glob("modelyard-*"))
    # What was asked is nothing that anybody asked: it is not in the log that is watched.
    assert not (yard.root / ".modelyard" / "requests").exists()
    # Against twice as much the same is a regression.
    remember(yard, Order(p99=2.0), 600.0, 2.0)
    again = started(yard, tmp_path, *line[:6], "--fail-below", "90%")
    out, err = again.communicate(timeout=120)
    assert again.returncode == 1, err
    assert "50% of the last time (600); below 540" in out


@pytest.mark.slow
def test_server_is_warm_before_its_memory_is_looked_at(yard: Yard, tmp_path: Path) -> None:
    """Where no search went before, it has had a crowd all the same; and what is told of the rate is without that."""
    done = started(yard, tmp_path, "--rate", "100", "--seconds", "5", "--p99", "2s", "--soak", "6")
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    asked = [line.split()[0] for line in err.splitlines() if "/s  p50" in line]
    assert asked[-4:] == ["100/s", "1,000/s", "128,000/s", "100/s"]
    rate, memory = [msgspec.convert(result, CheckResult) for result in json.loads(out)["results"]]
    assert [step["rate"] for step in rate.evidence.details["steps"]] == [100]
    assert memory.evidence.interval is not None
    assert memory.status == "passed", memory.reason


def deep() -> BundleDraft:
    """A model that takes some 5 ms a row, in any batch."""
    layers = 250
    nodes = [helper.make_node("Mul", ["numeric", "ones"], ["deep0"])]
    nodes += [helper.make_node("Tanh", [f"deep{at}"], [f"deep{at + 1}"]) for at in range(layers)]
    nodes += [helper.make_node("ReduceMean", [f"deep{layers}"], ["prediction"], axes=[1], keepdims=1)]
    return times(1.0, nodes, {"ones": np.linspace(0, 1, 20_000, dtype=np.float32)[None]})


@pytest.mark.slow
def test_knee_of_a_slow_model_is_found_in_time(yard: Yard, tmp_path: Path) -> None:
    yard.point(yard.keep(deep()))
    done = started(yard, tmp_path, "--p99", "300ms", "--seconds", "20")
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    details = json.loads(out)["results"][0]["evidence"]["details"]
    # What is beyond it was seen, so the search was not cut off on its way there.
    assert details["beyond"] is not None, err
    assert details["beyond"] < 2.1 * details["at"]["rate"], err
    assert details["at"]["sent"] >= 100


def test_what_a_killed_one_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = (
        f"{trial.PREFIX}{os.getpid()}-{born(os.getpid())}-x",
        f"{trial.PREFIX}{os.getpid()}-1-x",
        "modelyard-other",
    )
    for name in names:
        (tmp_path / name / ".modelyard").mkdir(parents=True)
    (tmp_path / f"{trial.PREFIX}1-1-link").symlink_to(tmp_path / "modelyard-other")
    trial.remove_left()
    assert {path.name for path in tmp_path.iterdir()} == {names[0], names[2], f"{trial.PREFIX}1-1-link"}
    assert (tmp_path / "modelyard-other" / ".modelyard").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_stops_it_finds_nothing_left(yard: Yard, tmp_path: Path, number: signal.Signals) -> None:
    process = started(yard, tmp_path)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("asking a server of its own")
    assert "/s  p50" in process.stderr.readline()
    below = family(process.pid)
    assert below
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert out == ""
    until(lambda: not [pid for pid in below if Path(f"/proc/{pid}").exists()])
    assert not list((tmp_path / "tmp").glob("modelyard-*"))
    assert not list(yard.store.ledger.events(kinds=("loadtest.finished",)))


@pytest.mark.slow
def test_server_at_an_address_is_asked_with_the_token(yard: Yard, tmp_path: Path, monkeypatch: Any) -> None:
    model = yard.keep(times(2.0))
    server = yard.serve(model)
    line = (server.url, "--seconds", "5", "--rate", "100", "--p99", "1s")
    strange = started(yard, tmp_path, *line)
    assert "error[loadtest-unanswered]: nothing was answered with 200: 401" in strange.communicate(timeout=60)[1]
    assert strange.returncode == 3
    assert not server.log.exists() or not logged(server.log)
    # Whose requests are kept as those of a caller is told so before any load.
    monkeypatch.setenv("MODELYARD_TOKEN", server.tokens["analyst"])
    refused = started(yard, tmp_path, *line)
    err = refused.communicate(timeout=60)[1]
    assert (refused.returncode, "error[loadtest-as-caller]" in err) == (2, True), err
    assert "operator's token" in err
    until(lambda: logged(server.log) == 1)
    monkeypatch.setenv("MODELYARD_TOKEN", server.tokens["operator"])
    known = started(yard, tmp_path, *line)
    out, err = known.communicate(timeout=60)
    assert known.returncode == 0, err
    at = json.loads(out)["results"][0]["evidence"]["details"]["at"]
    assert server.stop() == 0
    # This one keeps what it answered, the trickle before included; whoever watches it leaves it out.
    assert logged(server.log) > at["answered"]
    window = read_window(server.log)
    assert window.rows == 1
    assert window.tests > at["answered"]


def logged(log: Path) -> int:
    with closing(sqlite3.connect(log)) as db:
        return len(ids_of(db))


@pytest.mark.parametrize(
    ("role", "as_caller", "code"),
    [("analyst", False, "loadtest-as-caller"), ("analyst", True, ""), ("operator", False, ""), ("", False, "401")],
)
def test_requests_that_would_count_as_those_of_a_caller_are_noticed(
    yard: Yard, role: str, as_caller: bool, code: str
) -> None:
    server = yard.serve(yard.keep(times(2.0)))
    host, _, port = server.url.removeprefix("http://").partition(":")
    order = Order(host=host, port=int(port), as_caller=as_caller)
    [request] = encoded([{"a": 1.0}], host=f"{host}:{port}", token=server.tokens[role] if role else "")
    with pytest.raises(ModelyardError, match=code) if code else nullcontext():
        asyncio.run(loadtest._check_told_apart(order, request))
    assert server.stop() == 0
    assert logged(server.log) == (role != "")
    with pytest.raises(ModelyardError, match="connection"):
        asyncio.run(loadtest._check_told_apart(order, request))
