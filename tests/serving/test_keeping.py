"""What is written down of a request: redacted columns never are, and of a sample only so many requests."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard._kit.errors import ServeError
from modelyard.checks.profile import profile
from modelyard.deploy.local import policy_of
from modelyard.deploy.section import Deploy, Requests
from modelyard.inference import BundleDraft
from modelyard.serving.batch import INLINE_ROWS
from modelyard.serving.errors import HttpError
from modelyard.serving.guards import policy
from modelyard.serving.http.connection import Connection
from modelyard.serving.observability.keeping import Keeper
from modelyard.serving.validate import Validator
from modelyard.store.requests import Answered, newest

from .conftest import MIXED, Server, regression_bundle  # noqa: TID252 - the suite is not installed
from .echo import Wire  # noqa: TID252
from .inprocess import Endpoint  # noqa: TID252

ROW = {"age": 30, "income": 500.5, "city": "paris"}


def told(**declared: Any) -> list[str]:
    return ["--policy", policy_of(Deploy(requests=Requests(**declared)))]


def logged(server: Server) -> list[Answered]:
    with closing(sqlite3.connect(f"file:{server.log}?mode=ro", uri=True)) as db:
        return list(newest(db))


def test_redacted_columns_stand_nowhere_in_the_log(fresh: Callable[..., Server]) -> None:
    server = fresh(None, *told(redact=("city", "age")))
    tensors = [
        {"name": "numeric", "shape": [1, 2], "datatype": "FP64", "data": [61987, 500.5]},
        {"name": "categorical", "shape": [1, 1], "datatype": "BYTES", "data": ["secretville"]},
    ]
    secret = {"age": 61987, "income": 500.5, "city": "secretville"}
    bodies: list[tuple[str, Any]] = [
        ("/predict", secret),
        ("/predict", {"rows": [secret, ROW]}),
        ("/predict", {"rows": [secret] * 300}),
        ("/predict", {"columns": {name: [value] for name, value in secret.items()}}),
        ("/v2/models/credit/infer", {"inputs": tensors}),
        ("/invocations", {"dataframe_records": [secret]}),
    ]
    with server.client() as client:
        for path, body in bodies:
            assert client.post(path, json=body).status_code == 200, path
    assert server.stop() == 0
    rows = [row for one in logged(server) for row in one.inputs]
    assert len(rows) == 1 + 2 + 300 + 1 + 1 + 1
    assert all(row == {"income": 500.5} for row in rows)
    for file in server.log.parent.iterdir():
        assert b"secretville" not in file.read_bytes(), file
    assert "secretville" not in "".join(server.said)


def test_a_caller_cannot_choose_what_of_a_sample_is_kept(fresh: Callable[..., Server]) -> None:
    """Not by ids that a hash would pass over, nor by one that was passed over once, as `/feedback` tells."""
    server = fresh(None, *told(sample=0.5))
    passed_over = [name for at in range(500) if zlib.crc32((name := f"r{at}").encode()) >= 2**31][:200]
    with server.client() as client:
        for name in [*passed_over, *["again"] * 200]:
            assert client.post("/predict", json=ROW, headers={"x-request-id": name}).status_code == 200
    assert server.stop() == 0
    kept = [one.id for one in logged(server)]
    again = kept.count("again")
    # Six deviations of a binomial on either side.
    assert 57 < again < 143
    assert 57 < len(kept) - again < 143
    assert f"requests=400 rows=400 logged={len(kept)} held=0 passed={400 - len(kept)}" in server.said[-1]


def test_a_share_of_many_requests_is_as_large_as_it_says() -> None:
    for share in (0.0, 0.05, 0.5, 1.0):
        keeper = Keeper(Validator(MIXED), policy.Requests(sample=share))
        found = np.mean([keeper.keeps() for _ in range(20_000)])
        assert abs(found - share) < 0.03


def test_a_column_that_the_model_does_not_take_is_refused() -> None:
    with pytest.raises(ServeError) as caught:
        Keeper(Validator(MIXED), policy.Requests(redact=("citty",)))
    assert caught.value.code == "policy-unusable"
    assert "`city`" in str(caught.value)


def test_every_form_of_rows_is_written_as_it_was_sent() -> None:
    validator = Validator(MIXED)
    keeper = Keeper(validator, policy.Requests())
    spaced = json.dumps({"rows": [ROW, {**ROW, "income": None, "city": None}]}, indent=1).encode()
    by_columns = {name: [value] * 2 for name, value in ROW.items()}
    assert json.loads(keeper.rows_of(validator.parse(spaced))) == [ROW, {**ROW, "income": None, "city": None}]  # type: ignore[arg-type]
    assert json.loads(keeper.rows_of(validator.parse(json.dumps({"columns": by_columns}).encode()))) == [ROW, ROW]  # type: ignore[arg-type]


@pytest.mark.parametrize("kernels", ["compiled", "python"])
def test_rows_are_written_as_they_were_sent_whatever_their_texts_hold(
    kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_KERNELS", kernels)
    validator = Validator(MIXED)
    rows = [{**ROW, "city": "a ]} b: {"}, {**ROW, "city": "]"}]
    for body in (
        '{"rows":[%s,%s]}',
        '{"rows": [%s,%s]}',
        '{"rows":[%s,%s]} ',
        ' {"rows":[%s,%s]}',
        '{"rows":[%s,%s] }',
    ):
        parsed = validator.parse((body % tuple(json.dumps(row) for row in rows)).encode())
        assert json.loads(Keeper(validator, policy.Requests()).rows_of(parsed)) == rows  # type: ignore[arg-type]


@pytest.mark.parametrize("kernels", ["compiled", "python"])
@pytest.mark.parametrize("body", ['{"rows":[%s],"rows":[%s]}', '{"rows":[%s],"r\\u006fws":[%s]}'])
def test_rows_that_come_twice_are_refused(body: str, kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As JSON the last of them counts; as bytes they would be no JSON at all, and nobody could read the log."""
    monkeypatch.setenv("MODELYARD_KERNELS", kernels)
    with pytest.raises(HttpError) as told:
        Validator(MIXED).parse((body % (json.dumps(ROW), json.dumps(ROW))).encode())
    assert told.value.code == "name-twice"


def at_once(endpoint: Endpoint, bodies: list[tuple[str, str, Any]]) -> None:
    """Ask by id, path and body, all in one turn of the loop."""

    async def ask() -> None:
        wires = []
        for name, path, body in bodies:
            wire, connection = Wire(), Connection(endpoint.app)
            connection.connection_made(wire)  # type: ignore[arg-type]
            named = b"\r\nx-request-id: %s\r\nhost" % name.encode()
            connection.data_received(endpoint.request(body, path).replace(b"\r\nhost", named))
            wires.append(wire)
        async with asyncio.timeout(20):
            while not all(wire.sent for wire in wires):
                await asyncio.sleep(0)

    asyncio.run(ask())
    assert endpoint.service.batcher.runs == 1


def written(path: Path) -> dict[str, tuple[list[Any], list[Any]]]:
    """Return inputs and predictions by id."""
    with closing(sqlite3.connect(path)) as db:
        return {one.id: (one.inputs, [row["prediction"] for row in one.outputs]) for one in newest(db)}


def test_requests_of_one_turn_are_logged_with_the_numbers_that_were_sent(tmp_path: Path) -> None:
    """Of one turn: one row, two rows with an integer that float32 has not, one refused, one as tensors."""
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        tensors = {"inputs": [{"name": "numeric", "shape": [1, 2], "datatype": "FP64", "data": [0.1, 7]}]}
        bodies = [
            ("a", "/predict", {"a": 0.1, "b": 2}),
            ("b", "/predict", {"rows": [{"a": 2**24 + 1, "b": 1.5}, {"b": -0.25, "a": 4}]}),
            ("c", "/predict", {"a": 1e300, "b": 2}),
            ("d", "/v2/models/hours/infer", tensors),
        ]
        at_once(endpoint, bodies)
    assert written(endpoint.log.path) == {
        "a": ([{"a": 0.1, "b": 2}], [pytest.approx(2.2)]),
        "b": ([{"a": 2**24 + 1, "b": 1.5}, {"a": 4, "b": -0.25}], [pytest.approx(2.0**25, rel=1e-6), 7.75]),
        "d": ([{"a": 0.1, "b": 7}], [pytest.approx(7.2)]),
    }


@pytest.mark.parametrize("wrong", [(), (0,), (1,), (3,), (0, 2)])
def test_of_a_turn_of_single_rows_each_gets_its_own_answer(tmp_path: Path, wrong: tuple[int, ...]) -> None:
    rows = [{"a": 1e300 if at in wrong else at, "b": 1} for at in range(4)]
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        at_once(endpoint, [(str(at), "/predict", row) for at, row in enumerate(rows)])
    right = [at for at in range(4) if at not in wrong]
    assert written(endpoint.log.path) == {str(at): ([{"a": at, "b": 1}], [2 * at + 1]) for at in right}


def test_of_a_turn_of_numbers_a_sample_is_drawn_too(tmp_path: Path) -> None:
    declared = {"requests": {"sample": 0.4}}
    bodies = [(f"r{at}", "/predict", {"a": at, "b": 1}) for at in range(60)]
    with Endpoint(tmp_path, regression_bundle(), None, declared=declared) as endpoint:
        at_once(endpoint, bodies)
    sent = {name: ([body], [2 * body["a"] + 1]) for name, _, body in bodies}
    kept = written(endpoint.log.path)
    assert all(sent[name] == one for name, one in kept.items())
    # Five deviations of a binomial on either side.
    assert 4 < len(kept) < 44
    assert (endpoint.log.logged, endpoint.log.passed) == (len(kept), 60 - len(kept))


def test_of_a_turn_of_numbers_a_redacted_column_stands_nowhere(tmp_path: Path) -> None:
    declared = {"requests": {"redact": ["a"]}}
    with Endpoint(tmp_path, regression_bundle(), None, declared=declared) as endpoint:
        at_once(endpoint, [(f"r{at}", "/predict", {"a": 61987, "b": at}) for at in range(5)])
    assert [inputs for inputs, _ in written(endpoint.log.path).values()] == [[{"b": at}] for at in reversed(range(5))]


def test_of_a_turn_of_numbers_what_is_held_back_is_logged_apart(tmp_path: Path) -> None:
    made = regression_bundle()
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=2000).tolist() for name in ("a", "b")}
    files = {**made.files, "profile.json": json.dumps(profile(columns, made.version.signature)).encode()}
    files.pop("model.json")
    guards = {"outlier": {"score": 0.99, "do": "quarantine"}, "fallback": "0"}
    bodies = [(f"r{at}", "/predict", {"a": 1000 * (at % 3 == 1), "b": at / 8}) for at in range(6)]
    with Endpoint(tmp_path, BundleDraft.of(made.version, files), guards) as endpoint:
        at_once(endpoint, bodies)
    usual, apart = written(endpoint.log.path), written(endpoint.log.path.with_suffix(".quarantine.db"))
    assert usual == {name: ([body], [body["b"]]) for name, _, body in bodies if not body["a"]}
    assert apart == {name: ([body], [0]) for name, _, body in bodies if body["a"]}
    assert len(apart) == 2


@pytest.mark.parametrize("count", [INLINE_ROWS - 1, INLINE_ROWS, 2 * INLINE_ROWS])
def test_a_whole_run_of_requests_with_one_row_each_is_logged_as_those_requests(tmp_path: Path, count: int) -> None:
    rows = [{"a": round(1 + at / 1000, 3), "b": 2.5} for at in range(count + 1)]
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:

        async def main() -> None:
            wires = []
            for row in rows:
                wire, connection = Wire(), Connection(endpoint.app)
                connection.connection_made(wire)
                # All of a length, so that they have one head: it is known from the second on.
                connection.data_received(endpoint.request(b'{"a":%.3f,"b":%.1f}' % (row["a"], row["b"])))
                wires.append(wire)
            while not all(wire.sent for wire in wires):
                await asyncio.sleep(0)

        asyncio.run(main())
    with closing(sqlite3.connect(endpoint.log.path)) as db:
        found = list(newest(db))
    assert sorted((one.inputs for one in found), key=lambda inputs: inputs[0]["a"]) == [[row] for row in rows]
