"""What is counted: nothing gets lost before it is counted, and nothing that a caller makes up is a label."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.serving.errors import HttpError
from modelyard.serving.observability.metrics import BOUNDS, Tally
from modelyard.serving.protocols import feedback
from modelyard.serving.protocols.feedback import text_of
from modelyard.serving.protocols.repository import index_of, statistics_of
from modelyard.store.requests import Block, Turn, connect, encode, known_of, truths_of, write_block

from .conftest import Server, regression_bundle  # noqa: TID252 - the suite is not installed
from .inprocess import Endpoint  # noqa: TID252 - the same

ROW = {"age": 30, "income": 1.0, "city": "rome"}


def read(server: Server) -> dict[str, float]:
    with server.client("operator") as client:
        answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found: dict[str, float] = {}
    for line in answer.text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) modelyard_\w+ .+|modelyard_\w+(\{.*\})? \S+", line), line
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            assert name not in found
            found[name] = float(value)
    return found


def total(found: dict[str, float], name: str, **labels: str) -> float:
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(v for k, v in found.items() if k.startswith(f"modelyard_{name}") and all(w in k for w in wanted))


def test_tally_counts_each_answer_once() -> None:
    tally = Tally()
    routes = [SimpleNamespace(path="/a"), SimpleNamespace(path="/b")]
    times = [bound * 1000 * step for bound in BOUNDS for step in (0.5, 1.0, 1.5)] * 70
    for at, ms in enumerate(times):
        tally.add([routes[at % 2]], [ms])
    found = tally.by_path()
    assert sum(sum(found[path].buckets) for path in ("/a", "/b")) == len(times)
    assert abs(found["/a"].seconds + found["/b"].seconds - sum(times) / 1000) < 1e-6
    for at, bound in enumerate(BOUNDS):
        upto = sum(sum(found[path].buckets[: at + 1]) for path in found)
        assert upto == sum(ms <= bound * 1000 for ms in times), bound


def test_requests_by_route_and_status(fresh: Callable[..., Server]) -> None:
    server = fresh()
    with server.client() as client:
        for _ in range(3):
            assert client.post("/predict", json={"rows": [ROW, ROW]}).status_code == 200
        assert client.post("/predict", content=b"{").status_code == 400
        assert client.get("/v2/models/credit").status_code == 200
        for name in ("x", 'y"} 1', "z" * 300):
            assert client.get(f"/v2/models/{name}").status_code == 404
    found = read(server)
    assert total(found, "requests_total", route="/predict", status="200", model="credit") == 3
    assert total(found, "requests_total", route="/predict", status="400", model="credit") == 1
    assert total(found, "requests_total", route="/v2/models/{model}", status="200", model="credit") == 1
    assert total(found, "requests_total", route="none", status="404", model="") == 3
    assert total(found, "rows_total") == 6
    assert total(found, "request_seconds_count", route="/predict") == 3
    assert total(found, "request_seconds_bucket", route="/predict", le="+Inf") == 3
    assert total(found, "refused_total", code="body-not-json") == 1
    assert total(found, "ready") == 1
    assert "zzz" not in str(found)


def test_feedback_joins_by_id(fresh: Callable[..., Server]) -> None:
    server = fresh()
    with server.client() as client:
        one = client.post("/predict", json=ROW).json()["id"]
        two = client.post("/predict", json={"rows": [ROW, ROW]}).json()["id"]
        # Although the log is written in blocks, and this one waits for whoever holds the database.
        with closing(sqlite3.connect(server.log, isolation_level=None)) as db, ThreadPoolExecutor(1) as pool:
            db.execute("BEGIN IMMEDIATE")
            truths = [{"id": one, "truth": "yes"}, {"id": f"{two}/1", "truth": "no"}]
            asked = pool.submit(client.post, "/feedback", json=truths)
            time.sleep(0.3)
            assert not asked.done()
            db.execute("ROLLBACK")
            answer = asked.result().json()
        assert (answer["joined"], answer["unknown"]) == (2, 0)
        answer = client.post("/feedback", json={"id": "nobody", "truth": "yes"}).json()
        assert (answer["joined"], answer["unknown"], answer["unknown_ids"]) == (0, 1, ["nobody"])
        for broken, code in (
            ("{", "body-not-json"),
            ('{"id": "a", "truth": 1e400}', "value-not-finite"),
            ('{"id": "a", "truth": "no", "truth": "yes"}', "name-twice"),
            ('[{"id": "a", "truth": "b:c"}, {"id": "a", "id": "b", "truth": "no"}]', "name-twice"),
        ):
            refused = client.post("/feedback", content=broken)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, code), broken
        for wrong in ("[]", '{"id": ""}', '{"id": "a", "truth": null}', '{"id":"a","truth":1,"x":2}'):
            refused = client.post("/feedback", content=wrong)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "feedback-shape"), wrong
        assert client.post("/feedback", json=[{"id": "a", "truth": "no"}] * 10_001).status_code == 413
    found = read(server)
    assert total(found, "feedback_total", request="unknown") >= 1
    assert total(found, "feedback_total", request="joined") >= 2
    server.stop()
    db = sqlite3.connect(server.log)
    assert truths_of(db, [one, f"{two}/1", "nobody"]) == {one: "yes", f"{two}/1": "no"}
    db.close()


def test_of_two_outcomes_the_last_counts_and_the_answer_says_so(fresh: Callable[..., Server]) -> None:
    server = fresh()
    with server.client() as client:
        one, two = (client.post("/predict", json=ROW).json()["id"] for _ in range(2))

        def tell(*outcomes: tuple[str, str]) -> tuple[int, int, list[str]]:
            body = [{"id": name, "truth": truth} for name, truth in outcomes]
            said = client.post("/feedback", json=body).json()
            return said["joined"], said["replaced"], said["replaced_ids"]

        until = time.monotonic() + 10
        while time.monotonic() < until and tell((one, "yes"), (two, "yes"))[0] < 2:
            time.sleep(0.05)  # the log is written in blocks
        assert tell((one, "yes")) == (1, 0, [])
        assert tell((one, "no")) == (1, 1, [one])
        # In one body the last one counts; there and back again is a change all the same.
        assert tell((two, "no"), (two, "yes"), (one, "no")) == (3, 1, [two])
        assert tell(("nobody", "no"), ("nobody", "yes")) == (0, 0, [])
    server.stop()
    with closing(sqlite3.connect(server.log)) as db:
        assert truths_of(db, [one, two]) == {one: "no", two: "yes"}


def test_an_outcome_is_told_by_who_asked_or_by_an_operator(fresh: Callable[..., Server]) -> None:
    server = fresh()

    def tell(role: str, truth: str, *ids: str) -> dict[str, Any]:
        with server.client(role) as client:
            answer = client.post("/feedback", json=[{"id": name, "truth": truth} for name in ids])
        assert answer.status_code == 200
        return dict(answer.json())

    def asked(role: str) -> str:
        with server.client(role) as client:
            return str(client.post("/predict", json=ROW).json()["id"])

    of_analyst, of_admin = asked("analyst"), asked("admin")
    until = time.monotonic() + 10
    while time.monotonic() < until and tell("operator", "no", of_admin)["joined"] == 0:
        time.sleep(0.05)  # the log is written in blocks
    # That of somebody else is unknown to it, as if there were none.
    said = tell("analyst", "yes", of_analyst, of_admin, "nobody")
    assert (said["joined"], said["unknown"], said["unchecked"]) == (1, 2, 0)
    assert said["unknown_ids"] == [of_admin, "nobody"]
    assert tell("operator", "no", of_analyst)["joined"] == 1
    found = read(server)
    assert total(found, "feedback_total", request="foreign") == 1
    server.stop()
    with closing(sqlite3.connect(server.log)) as db:
        assert truths_of(db, [of_analyst, of_admin, "nobody"]) == {of_analyst: "no", of_admin: "no"}


@pytest.mark.parametrize(("caller", "kept"), [("", {"old": "yes"}), ("analyst", {})])
def test_what_was_not_looked_for_is_kept_of_an_operator_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caller: str, kept: dict[str, str]
) -> None:
    log = tmp_path / "log.db"
    with closing(connect(log)) as db:
        turn = Turn(1.0, "m", "", ["new"], ["analyst"], [1.0], [1], [b"[{}]"], [[{}]])
        write_block(db, Block(1.0, 1.0, 1, [encode(turn)]))
    # The search has no time at all.
    monkeypatch.setattr(feedback, "_SECONDS", -1.0)
    feedback._write(log, [("old", "yes")], caller)
    with closing(connect(log)) as db:
        assert truths_of(db, ["old"]) == kept


def test_outcome_that_no_answer_can_be_is_refused_and_nothing_is_joined(fresh: Callable[..., Server]) -> None:
    server = fresh()
    with server.client() as client:
        one = client.post("/predict", json=ROW).json()["id"]
        for truth, said in (("yess", "did you mean `yes`?"), ("banana", "`no`, `yes`"), (1, "`no`, `yes`")):
            refused = client.post("/feedback", json=[{"id": one, "truth": "no"}, {"id": one, "truth": truth}])
            error = refused.json()["error"]
            assert (refused.status_code, error["code"]) == (400, "feedback-truth")
            assert error["message"].startswith("outcome 1: ")
            assert said in error["message"]
    server.stop()
    with closing(sqlite3.connect(server.log)) as db:
        assert truths_of(db, [one]) == {}


@pytest.mark.parametrize(
    ("classes", "truth", "kept"),
    [
        (("no", "yes"), "yes", "yes"),
        # As `modelyard watch` reads them: a label is its text, whatever its type.
        (("0", "1"), 1, "1"),
        (("0", "1"), "1", "1"),
        (("0", "1"), 1.0, "1"),
        (("false", "true"), True, "true"),
        (("0.5", "1"), 0.5, "0.5"),
        ((), 2, "2"),
        ((), 2.5, "2.5"),
        ((), "-1e3", "-1e3"),
    ],
)
def test_an_outcome_is_kept_as_the_watch_reads_it(classes: tuple[str, ...], truth: Any, kept: str) -> None:
    assert text_of(truth, classes, 0) == kept


@pytest.mark.parametrize(
    ("classes", "truth"),
    [
        (("0", "1"), True),
        (("0", "1"), "1.0"),
        (("0", "1"), 2),
        (("false", "true"), 1),
        ((), "many"),
        ((), "nan"),
        ((), "1e999"),
        ((), True),
        pytest.param((), 10**400, id="huge"),
        ((), ""),
    ],
)
def test_an_outcome_that_the_watch_would_leave_out_is_refused(classes: tuple[str, ...], truth: Any) -> None:
    with pytest.raises(HttpError, match="outcome 7: ") as caught:
        text_of(truth, classes, 7)
    assert (caught.value.status, caught.value.code) == (400, "feedback-truth")


def test_a_truth_value_is_named_as_it_was_sent() -> None:
    with pytest.raises(HttpError, match="`true` is no number"):
        text_of(True, (), 0)


def test_a_search_that_ends_early_says_so(fresh: Callable[..., Server]) -> None:
    server = fresh()
    with server.client() as client:
        client.post("/predict", json=ROW)
    server.stop()
    db = connect(server.log)
    assert known_of(db, {"nobody"}, seconds=10) == ({}, True)
    assert known_of(db, {"nobody"}, seconds=-1) == ({}, False)
    db.close()


def test_what_was_never_answered_has_no_last_answer_and_what_takes_nothing_is_not_ready(tmp_path: Path) -> None:
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        (before,) = statistics_of([endpoint.models], "", "")["model_stats"]
        endpoint.ask({"a": 1, "b": 2})
        (after,) = statistics_of([endpoint.models], "", "")["model_stats"]
        assert ("last_inference" in before, "last_inference" in after) == (False, True)
        assert len(index_of([endpoint.models], only_ready=True)) == 1
        endpoint.models.kill(endpoint.service.endpoint, "test")
        assert index_of([endpoint.models], only_ready=True) == []
        assert [one["state"] for one in index_of([endpoint.models], only_ready=False)] == ["UNAVAILABLE"]
