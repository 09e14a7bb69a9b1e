"""Guards on both sides of the model: what is declared is done, is counted, and is told to the caller."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard._kit.errors import ServeError
from modelyard.checks.profile import profile
from modelyard.checks.strange import Strange, upper_tail
from modelyard.checks.usual import usual
from modelyard.deploy import guards as guarding
from modelyard.deploy import section
from modelyard.deploy.local import policy_of
from modelyard.inference import BundleDraft, open_bundle
from modelyard.records import Feature
from modelyard.security.keys import trusted_keys
from modelyard.serving.guards import policy
from modelyard.serving.guards.policy import read_policy
from modelyard.serving.limits import Limits
from modelyard.serving.observability.log import RequestLog
from modelyard.serving.service import Service
from modelyard.store.requests import newest

from .conftest import MIXED, Server, lay, mixed_bundle, regression_bundle  # noqa: TID252 - the suite is not installed

ROW = {"age": 30, "income": 1000.0, "city": "rome"}
Fresh = Callable[..., Server]


def told(**guards: Any) -> tuple[str, str]:
    access = guards.pop("access", {})
    return "--policy", json.dumps({"guards": guards or None, "access": access})


def profiled() -> BundleDraft:
    """The mixed model with a profile of 5,000 rows."""
    rng = np.random.default_rng(0)
    columns = {
        "age": rng.integers(18, 91, 5000).tolist(),
        "income": rng.uniform(0, 9000, 5000).tolist(),
        "city": rng.choice(["paris", "rome"], 5000, p=[0.98, 0.02]).tolist(),
    }
    made = mixed_bundle()
    files = {**made.files, "profile.json": json.dumps(profile(columns, MIXED)).encode()}
    files.pop("model.json")
    return BundleDraft.of(made.version, files)


def ask(server: Server, *rows: dict[str, Any], role: str = "analyst") -> Any:
    with server.client(role) as client:
        return client.post("/predict", json={"rows": list(rows)})


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(policy.Guarded, guarding.Guards), (policy.Access, section.Access), (policy.Outlier, guarding.Outlier),
     (policy.Confidence, guarding.Confidence), (policy.Within, guarding.Within), (policy.Alarm, guarding.Alarm),
     (policy.Oidc, section.Oidc), (policy.OutputCheck, guarding.OutputCheck),
     (policy.Extraction, guarding.Extraction), (policy.Requests, section.Requests)],
)  # fmt: skip
def test_server_knows_the_fields_of_the_file(ours: Any, theirs: Any) -> None:
    def fields(struct: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
        found = msgspec.structs.fields(struct)
        return {f.encode_name: f.default for f in found if f.encode_name not in without}

    assert fields(ours) == fields(theirs, ("roles", "per_minute") if theirs is section.Access else ())


def test_what_is_declared_reaches_the_server() -> None:
    guards = guarding.Guards(
        out_of_range="clip",
        outlier=guarding.Outlier(do="quarantine"),
        confidence=guarding.Confidence(at_least=0.6, otherwise="fallback"),
        fallback="no",
    )
    declared = section.Deploy(guards=guards, access=section.Access(roles=("admin",), show={"admin": "label"}))
    found = read_policy(policy_of(declared))
    assert msgspec.to_builtins(found.guards) == msgspec.to_builtins(guards)
    assert found.access.show == {"admin": "label"}
    assert policy_of(section.Deploy()) == ""
    for wrong in ("{", '{"x": 1}', '{"access": {"show": {"viewer": "rounded(99)"}}}'):
        with pytest.raises(ServeError, match="policy-unusable"):
            read_policy(wrong)


def test_outlier_score_keeps_its_promise() -> None:
    """Of usual rows no more lie above the score than it says, and rows that are strange in one or in many ways do."""
    rng = np.random.default_rng(1)
    names = [f"f{at}" for at in range(8)]
    seen = rng.normal(size=(20_000, 8)).astype(np.float32)
    seen[:, 7] = seen[:, 7] > 1
    signature = type("S", (), {"features": [type("F", (), {"name": n, "type": "number"}) for n in names]})()
    entry = profile({n: seen[:, at] for at, n in enumerate(names)}, signature)
    strange = Strange(entry, names, (), 0.99)
    fresh = rng.normal(size=(50_000, 8)).astype(np.float32)
    fresh[:, 7] = fresh[:, 7] > 1
    share = strange.outliers(fresh, None).mean()
    assert 0.001 < share < 0.011, share
    one, many = np.zeros((1, 8), np.float32), np.full((1, 8), 1.9, np.float32)
    many[0, 7] = 1
    one[0, 3] = -1e9
    assert not strange.outliers(np.zeros((1, 8), np.float32), None).any()
    assert strange.outliers(one, None).all()
    assert strange.outliers(many, None).all()
    assert not strange.outliers(np.full((1, 8), np.nan, np.float32), None).any()


@pytest.mark.parametrize("correlation", [0.3, 0.6, 0.8])
def test_outlier_score_keeps_its_promise_where_columns_depend_on_each_other(correlation: float) -> None:
    rng = np.random.default_rng(2)

    def rows(n: int) -> Any:
        shared, own = rng.normal(size=(n, 1)), rng.normal(size=(n, 30))
        return (np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own).astype(np.float32)

    names = [f"f{at}" for at in range(30)]
    features = tuple(Feature(name=name, type="number", source="Float32") for name in names)
    signature = msgspec.structs.replace(MIXED, features=features)
    seen, held, fresh = rows(20_000), rows(10_000), rows(50_000)
    made = profile(dict(zip(names, seen.T, strict=True)), signature)
    made["usual"] = usual(made, signature, [{"numeric": held}, {"numeric": seen}])
    assert made["usual"]["rows"] == 20_000
    for score, low, high in ((0.9, 0.08, 0.12), (0.99, 0.007, 0.013), (0.999, 0.0004, 0.0016)):
        strange = Strange(made, names, (), score)
        share = strange.outliers(fresh, None).mean()
        assert low < share < high, (score, share)
        # A quarter of the values so far out, to both sides, or all of them to one.
        many, all_of_them = np.zeros((1, 30), np.float32), np.full((1, 30), 6, np.float32)
        many[0, :24:2], many[0, 1:24:2] = 6, -6
        assert strange.outliers(np.vstack([many, all_of_them]), None).all()
        assert not strange.outliers(np.zeros((1, 30), np.float32), None).any()


def test_of_few_rows_the_outlier_score_says_what_they_can_tell() -> None:
    """Ninety-nine rows know the hundredth at best; of a smaller share only that it is stranger than they all."""
    rng = np.random.default_rng(3)
    rows = np.column_stack([rng.normal(size=99)] * 4).astype(np.float32)
    names = [f"f{at}" for at in range(4)]
    features = tuple(Feature(name=name, type="number", source="Float32") for name in names)
    signature = msgspec.structs.replace(MIXED, features=features)
    made = profile(dict(zip(names, rows.T, strict=True)), signature)
    made["usual"] = usual(made, signature, [{"numeric": rows}])
    assert "window" not in made["usual"]
    assert not Strange(made, names, (), 0.9999).outliers(rows, None).any()
    assert 0 < Strange(made, names, (), 0.9).outliers(rows, None).sum() <= 9
    # The same rows without it: the ends of one column are those of all.
    assert Strange({**made, "usual": {}}, names, (), 0.999).outliers(rows, None).any()


def test_upper_tail_is_that_of_chi_squared() -> None:
    from scipy.stats import chi2

    for x in (0.5, 5.0, 30.0, 90.0):
        for count in (1, 3, 30):
            assert upper_tail(x, count) == pytest.approx(chi2.sf(x, 2 * count), rel=1e-9)


def test_rejects_by_policy(fresh: Fresh) -> None:
    server = fresh(None, *told(unseen="reject", out_of_range="reject", missing="reject"))
    assert ask(server, ROW).status_code == 200
    for row, code, name in (
        ({**ROW, "age": 200}, "value-out-of-range", "age"),
        ({**ROW, "city": "oslo"}, "value-unseen", "city"),
        ({**ROW, "city": None}, "value-missing", "city"),
        ({**ROW, "income": None}, "value-missing", "income"),
    ):
        answer = ask(server, ROW, row)
        assert answer.status_code == 422, answer.text
        error = answer.json()["error"]
        assert error["code"] == code
        assert error["message"].startswith(f"row 1: `{name}`")
        assert (code == "value-unseen") == ("`city` holds a value that was not seen in training" in error["message"])
    with server.client("operator") as client:
        text = client.get("/metrics").text
    for guard in ("out_of_range", "unseen"):
        assert f'guard="{guard}",did="reject"}} 1' in text


@pytest.mark.parametrize(
    ("guards", "counted"),
    [
        ({"unseen": "warn", "out_of_range": "warn", "alarm": {"share": 0.01, "window": 0.5}}, ["warn", "warn"]),
        ({"unseen": "reject", "out_of_range": "warn"}, ["warn", "reject"]),
        ({}, []),
    ],
)
def test_rows_that_are_warned_of_are_counted_where_guards_are_declared(
    fresh: Fresh, guards: dict[str, Any], counted: list[str]
) -> None:
    server = fresh(None, *told(**guards))
    for _ in range(20):
        ask(server, ROW, {**ROW, "age": 200, "city": "oslo"}, {**ROW, "age": 300, "income": -1.0}, ROW)
        ask(server, ROW)
    if "alarm" in guards:
        time.sleep(1.5)  # it looks every second
    with server.client("operator") as client:
        text = client.get("/metrics").text
    found = dict(re.findall(r'guard="(out_of_range|unseen)",(did="[a-z]+"} [0-9]+)', text))
    rows = zip(("out_of_range", "unseen"), counted, (40, 20), strict=False)
    assert found == {guard: f'did="{did}"}} {count}' for guard, did, count in rows}
    # It counts what is taken from a caller, and nobody's answer was.
    assert re.findall(r"modelyard_guard_alarm{[^}]*} ([01])", text) == (["0"] if "alarm" in guards else [])


def test_a_refusal_takes_no_neighbour_with_it(fresh: Fresh) -> None:
    """Requests of one turn of the loop share one run of the model: each keeps its own answer."""
    server = fresh(None, *told(out_of_range="reject"))
    with server.client() as client:
        alone = [client.post("/predict", json={**ROW, "age": 18 + at}).json()["predictions"] for at in range(8)]
    import concurrent.futures

    def one(at: int) -> tuple[int, Any]:
        with server.client() as client:
            answers = []
            for _ in range(20):
                age = 18 + at if at % 2 else 500
                answer = client.post("/predict", json={**ROW, "age": age})
                answers.append(answer.json().get("predictions") or answer.json()["error"]["code"])
            return at, answers

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for at, answers in pool.map(one, range(8)):
            assert answers == [alone[at] if at % 2 else "value-out-of-range"] * 20


def test_clip_gives_the_model_what_it_knows(fresh: Fresh) -> None:
    server = fresh(None, *told(out_of_range="clip"))
    inside, outside = ask(server, {**ROW, "age": 90}).json(), ask(server, {**ROW, "age": 5000}).json()
    assert outside["predictions"] == inside["predictions"]
    assert "nearest value inside" in outside["warnings"][0]["message"]
    server.stop()
    with closing(sqlite3.connect(server.log)) as db:
        assert next(iter(newest(db))).inputs[0]["age"] == 5000


@pytest.mark.parametrize("do", ["clip", "warn"])
def test_clipped_row_is_an_outlier_only_if_what_the_model_is_given_is(fresh: Fresh, do: str) -> None:
    server = fresh(profiled(), *told(out_of_range=do, outlier={"score": 0.998, "do": "reject"}))
    inside, above = (ask(server, {**ROW, "age": age, "income": 4000.0}) for age in (90, 91))
    assert inside.status_code == 200
    if do == "clip":
        assert above.json()["predictions"] == inside.json()["predictions"]
    else:
        assert above.json()["error"]["code"] == "row-outlier"


def test_coerces_only_where_declared(fresh: Fresh) -> None:
    server = fresh(None, *told(coerce=["age"]))
    assert ask(server, {**ROW, "age": " 42.5 "}).json()["predictions"] == ask(server, {**ROW, "age": 42.5}).json()[
        "predictions"
    ]  # fmt: skip
    for wrong in ("", "nan", "inf", "4_2", "0x10", "forty", "1e999", "٤٢", "9" * 50):
        answer = ask(server, {**ROW, "age": wrong})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "column-type"), wrong
    assert ask(server, {**ROW, "income": "42"}).status_code == 400
    assert ask(server, {**ROW, "age": True}).status_code == 400


@pytest.mark.parametrize(("count", "says"), [(1, "a row is unlike"), (2, "rows are unlike")])
def test_a_warning_about_whole_rows_names_no_column(fresh: Fresh, count: int, says: str) -> None:
    server = fresh(profiled(), *told(outlier={"score": 0.99, "do": "warn"}))
    found = ask(server, *[{"age": 30, "income": 1e6, "city": "rome"}] * count).json()["warnings"]
    (whole,) = [one for one in found if "unlike" in one["message"]]
    assert (whole["column"], whole["rows"]) == ("*", count)
    assert whole["message"].startswith(says)


def test_quarantine_answers_the_fallback_and_logs_apart(fresh: Fresh) -> None:
    server = fresh(profiled(), *told(outlier={"score": 0.99, "do": "quarantine"}, fallback="no"))
    usual, strange = {**ROW, "city": "paris"}, {"age": 30, "income": 1e6, "city": "rome"}
    assert "withheld" not in ask(server, usual).text
    answer = ask(server, usual, strange).json()
    assert "withheld" not in answer["predictions"][0]
    assert answer["predictions"][1] == {"label": "no", "withheld": "outlier"}
    server.stop()
    # Each row is in one of the two: who adds them up finds that none is lost.
    assert server.said[-1].endswith(" requests=2 rows=3 logged=1 held=2")
    with closing(sqlite3.connect(server.log)) as db:
        assert [len(one.inputs) for one in newest(db)] == [1]
    with closing(sqlite3.connect(server.log.with_suffix(".quarantine.db"))) as db:
        (apart,) = newest(db)
    assert apart.inputs[1]["income"] == 1e6
    assert apart.outputs[1]["withheld"] == "outlier"
    assert set(apart.outputs[1]["probabilities"]) == {"no", "yes"}


@pytest.mark.parametrize(("otherwise", "label"), [("abstain", None), ("fallback", "yes")])
def test_confidence(fresh: Fresh, otherwise: str, label: str | None) -> None:
    server = fresh(None, *told(confidence={"at_least": 0.9, "else": otherwise}, fallback="yes"))
    sure, unsure = {"age": 90, "income": 0, "city": "paris"}, {"age": 18, "income": 800, "city": "rome"}
    answer = ask(server, sure, unsure).json()["predictions"]
    assert "withheld" not in answer[0]
    assert answer[1] == {"label": label, "withheld": "confidence"}
    tensors = [
        {"name": "numeric", "shape": [1, 2], "datatype": "FP32", "data": [18, 800]},
        {"name": "categorical", "shape": [1, 1], "datatype": "BYTES", "data": ["rome"]},
    ]
    with server.client() as client:
        found = client.post("/v2/models/credit/infer", json={"inputs": tensors})
    if label is None:
        assert (found.status_code, found.json()["code"]) == (422, "answer-withheld")
    else:
        outputs = {o["name"]: o["data"] for o in found.json()["outputs"]}
        assert outputs == {"label": ["yes"], "probabilities": [0.0, 0.0]}


def test_what_a_tensor_has_no_place_for_is_logged_as_elsewhere(fresh: Fresh) -> None:
    guards = {"confidence": {"at_least": 0.99}, "outlier": {"score": 0.99, "do": "quarantine"}, "fallback": "yes"}
    server = fresh(profiled(), *told(**guards))
    unsure, rare = {"age": 18, "income": 1800.0, "city": "rome"}, {"age": 90, "income": 9000.0, "city": "rome"}
    kinds = {"age": "FP32", "income": "FP32", "city": "BYTES"}
    with server.client() as client:
        for name, rows in (("one", [unsure]), ("two", [unsure, rare])):
            tensors = [
                {"name": column, "datatype": kind, "shape": [len(rows)], "data": [row[column] for row in rows]}
                for column, kind in kinds.items()
            ]
            for path, body in (("predict", {"rows": rows}), ("v2/models/credit/infer", {"inputs": tensors})):
                headers = {"x-request-id": f"{name}-{path[:2]}"}
                status = client.post(f"/{path}", json=body, headers=headers).status_code
                assert status == (200 if path == "predict" else 422)
        # Outcomes that become known later are joined to either.
        truths = [{"id": name, "truth": "no"} for name in ("one-pr", "one-v2")]
        assert client.post("/feedback", json=truths).json()["joined"] == 2
    with server.client("operator") as client:
        assert client.get("/stats").json()["answered"] == 2
    assert server.stop() == 0
    assert server.said[-1].endswith("requests=2 rows=3 logged=2 held=4 refused=3")
    for log, name in ((server.log, "one"), (server.log.with_suffix(".quarantine.db"), "two")):
        with closing(sqlite3.connect(log)) as db:
            kept = {one.id: (one.inputs, one.outputs) for one in newest(db)}
        assert set(kept) == {f"{name}-pr", f"{name}-v2"}
        assert kept[f"{name}-pr"] == kept[f"{name}-v2"]


def test_a_regression_stays_within(fresh: Fresh) -> None:
    server = fresh(regression_bundle(), *told(within={"low": 0, "high": 10}))
    with server.client() as client:
        for a, value in ((1, 2), (100, 10), (-5, 0)):
            assert client.post("/predict", json={"a": a, "b": 0}).json()["predictions"] == [{"value": value}]


def test_what_is_no_answer_is_refused(fresh: Fresh) -> None:
    server = fresh(regression_bundle())
    with server.client() as client:
        for large in (3e38, -3e38):
            answer = client.post("/predict", json={"a": large, "b": large})
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "answer-unsound")
            many = client.post("/predict", json={"columns": {"a": [1] * 300 + [large], "b": [0] * 301}})
            assert (many.status_code, many.json()["error"]["code"]) == (500, "answer-unsound")
        assert client.post("/predict", json={"a": 1, "b": 0}).status_code == 200


def test_roles_see_as_much_as_they_may(fresh: Fresh) -> None:
    server = fresh(None, *told(access={"show": {"analyst": "label", "operator": "rounded(1)"}}))
    assert list(ask(server, ROW).json()["predictions"][0]) == ["label"]
    whole = ask(server, ROW, role="admin").json()["predictions"][0]["probabilities"]
    rounded = ask(server, ROW, role="operator").json()["predictions"][0]["probabilities"]
    assert rounded == {name: round(value, 1) for name, value in whole.items()} != whole
    tensors = [
        {"name": "numeric", "shape": [1, 2], "datatype": "FP32", "data": [30, 1000]},
        {"name": "categorical", "shape": [1, 1], "datatype": "BYTES", "data": ["rome"]},
    ]
    with server.client() as client:
        outputs = client.post("/v2/models/credit/infer", json={"inputs": tensors}).json()["outputs"]
        assert [o["name"] for o in outputs] == ["label"]
        # What is listed can be asked for, and what cannot is not listed.
        assert [o["name"] for o in client.get("/v2/models/credit").json()["outputs"]] == ["label"]
        assert [o["name"] for o in client.get("/v2/models/credit/config").json()["output"]] == ["label"]
        asked = {"inputs": tensors, "outputs": [{"name": "probabilities"}]}
        refused = client.post("/v2/models/credit/infer", json=asked)
        assert (refused.status_code, refused.json()["code"]) == (403, "role-denied")
    with server.client("operator") as client:
        assert len(client.get("/v2/models/credit").json()["outputs"]) == 2
        assert client.post("/v2/models/credit/infer", json=asked).status_code == 200
    server.stop()
    with closing(sqlite3.connect(server.log)) as db:
        assert all(one.outputs[0]["probabilities"] == pytest.approx(whole) for one in newest(db))


@pytest.mark.parametrize(
    "guards",
    [{"confidence": {"at_least": 0.9, "else": "fallback"}}, {"within": {"low": 0}}, {"coerce": ["agee"]},
     {"outlier": {"do": "quarantine"}, "fallback": "maybe"}, {"outlier": {"do": "warn"}},
     {"checks": [{"use": "unusual"}]}, {"checks": [{"use": "labels", "params": {"allowed": ["maybe"]}}]},
     {"checks": [{"use": "blocklist", "params": {"terms": ["x"], "columns": ["age"]}}]},
     {"checks": [{"use": "nobody"}]}, {"checks": [{"use": "guards.py:harmful"}]}, {"extraction": {}}],
)  # fmt: skip
def test_what_does_not_suit_the_model_is_refused(tmp_path: Path, guards: dict[str, Any]) -> None:
    bundle = open_bundle(lay(tmp_path, mixed_bundle()), trusted=trusted_keys(tmp_path))
    log = RequestLog(tmp_path / "requests.db")
    with pytest.raises(ServeError, match="guard-unusable"):
        Service(bundle, "credit", log, Limits(policy=read_policy(json.dumps({"guards": guards}), tmp_path)))
    log.close()


def test_what_does_not_suit_the_model_serves_nothing(fresh: Fresh) -> None:
    with pytest.raises(AssertionError, match="guard-unusable"):
        fresh(None, *told(coerce=["agee"]))


def lines(project: Path) -> list[dict[str, Any]]:
    found = [
        json.loads(line)
        for path in sorted((project / ".modelyard" / "logs").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return [json.loads(line["message"]) for line in found if line["logger"] == "access"]


@pytest.mark.parametrize(("which", "statuses"), [("off", []), ("errors", [401, 400]), ("all", [401, 400, 200, 200])])
def test_access_log(fresh: Fresh, which: str, statuses: list[int]) -> None:
    server = fresh(None, *told(access={"log": which}))
    with server.client("") as client:
        assert client.post("/predict", json=ROW).status_code == 401
    with server.client() as client:
        assert client.post("/predict", content=b'{"secret": 1').status_code == 400
        assert client.post("/predict", json=ROW, headers={"x-request-id": "mine"}).status_code == 200
        assert client.get("/v2").status_code == 200
        time.sleep(0.01)
    server.stop()
    found = lines(server.project)
    assert [line["status"] for line in found] == statuses
    text = json.dumps(found)
    assert "secret" not in text
    assert not any(token in text for token in server.tokens.values())
    if which == "all":
        assert found[2]["id"] == "mine"
        assert (found[2]["caller"], found[2]["route"]) == ("analyst", "/predict")
