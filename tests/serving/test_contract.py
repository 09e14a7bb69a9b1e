"""What callers rely on: checked against the real routes, compared between versions, mocked for their tests."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import yaml

from modelyard._kit.errors import UserError
from modelyard.cli.main import main
from modelyard.inference import BundleDraft
from modelyard.records import Feature, Signature
from modelyard.serving.contract.clients import LANGUAGES, client_files
from modelyard.serving.contract.description import description
from modelyard.serving.contract.diff import changes
from modelyard.serving.contract.host import Host
from modelyard.serving.contract.mock import bundle_of, mock
from modelyard.serving.contract.reading import read_description
from modelyard.serving.contract.schemas import Endpoint
from modelyard.serving.guards.policy import Guarded, Policy, Within
from modelyard.serving.limits import Limits

from .conftest import (  # noqa: TID252 - the suite is not installed
    CITIES,
    MIXED,
    Server,
    draft,
    mixed_bundle,
    mixed_model,
    regression_bundle,
)
from .versions import Yard  # noqa: TID252

ROW = {"age": 30, "income": 500.5, "city": "rome"}


def document(made: BundleDraft, guards: Guarded | None = None) -> dict[str, Any]:
    return description(Endpoint.of(made.bundle(), "credit", Limits(policy=Policy(guards=guards))))


def changed(**columns: Any) -> BundleDraft:
    """The mixed model with other settings of its columns; nothing: without it."""
    kept = [(f, columns.get(f.name, {})) for f in MIXED.features]
    features = [msgspec.structs.replace(f, **settings) for f, settings in kept if settings is not None]
    features += [settings for name, settings in columns.items() if isinstance(settings, Feature)]
    return draft("credit", Signature(features=tuple(features), problem=MIXED.problem), mixed_model(), b'["no","yes"]')


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    """A project whose champion is the mixed model, and its folder is where commands run."""
    monkeypatch.chdir(tmp_path)
    yard = Yard(tmp_path)
    yard.point(yard.keep(mixed_bundle()))
    yield yard
    yard.store.close()


def write(path: str, **interaction: Any) -> None:
    given = {"name": "one", "request": {"rows": [ROW]}, **interaction}
    Path(path).write_text(yaml.safe_dump({"consumer": "billing", "interactions": [given]}, sort_keys=False))


class TestOpenapi:
    def test_it_is_what_a_server_of_the_version_answers(
        self, yard: Yard, served: Server, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["contract", "openapi", "--output", "described.json"]) == 0
        with served.client("viewer") as client:
            there = client.get("/openapi.json").json()
        here = json.loads(Path("described.json").read_bytes())
        # The endpoint has another name here; nothing else may differ.
        assert json.loads(json.dumps(here).replace('"hours"', '"credit"')) == there
        capfd.readouterr()
        assert main(["contract", "openapi"]) == 0
        assert capfd.readouterr().out.encode() == Path("described.json").read_bytes()

    @pytest.mark.parametrize(("flags", "path"), [((), "/predict"), (("--oip",), "/v2/models/credit/infer")])
    def test_a_request_to_begin_with_is_answered(
        self, yard: Yard, served: Server, capfd: pytest.CaptureFixture[str], flags: tuple[str, ...], path: str
    ) -> None:
        assert main(["contract", "request", *flags]) == 0
        body = capfd.readouterr().out
        assert body.count("\n") == 1
        with served.client() as client:
            assert client.post(path, content=body).status_code == 200
        main(["contract", "openapi", "--output", "described.json"])
        capfd.readouterr()
        assert main(["contract", "request", "described.json", *flags]) == 0
        assert capfd.readouterr().out == body

    def test_only_the_open_protocol(self, yard: Yard, capfd: pytest.CaptureFixture[str]) -> None:
        assert main(["contract", "openapi", "champion", "--oip"]) == 0
        found = json.loads(capfd.readouterr().out)
        assert found["paths"]
        assert all(path.startswith("/v2") for path in found["paths"])


@pytest.mark.parametrize("words", [["openapi"], ["openapi", "--oip"], ["request"], ["client"], ["init", "billing"]])
def test_a_folder_that_is_not_there_is_not_made(
    yard: Yard, capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(["contract", *words, "-o", "no/such"]) == 2
    said = capfd.readouterr().err
    assert "error[output-folder]" in said
    assert "mkdir -p no" in said
    assert not Path("no").exists()
    Path("no").mkdir()
    # What is named itself may be new: a file, or the folder of a client.
    assert main(["contract", *words, "-o", "no/such"]) == 0
    assert Path("no/such").exists()


class TestCheck:
    def test_a_contract_that_is_begun_holds(self, yard: Yard, capfd: pytest.CaptureFixture[str]) -> None:
        assert main(["contract", "init", "the billing"]) == 0
        assert main(["contract", "check", "contracts/the-billing.yaml"]) == 0
        assert "every promise holds" in capfd.readouterr().err
        assert main(["contract", "init", "the billing"]) == 2
        assert "contract-exists" in capfd.readouterr().err

    @pytest.mark.parametrize(
        "deploy",
        ["access: {show: {analyst: label}}", "guards: {confidence: {at_least: 0.99, else: fallback}, fallback: 'yes'}"],
    )
    def test_a_contract_that_is_begun_holds_where_probabilities_may_be_left_out(self, yard: Yard, deploy: str) -> None:
        Path("modelyard.yaml").write_text(
            f"project: hours\ndata: {{t: {{from: t.csv}}}}\nmodel: {{target: y}}\ndeploy: {{{deploy}}}\n"
        )
        assert main(["contract", "init", "billing"]) == 0
        assert main(["contract", "check", "contracts/billing.yaml"]) == 0

    def test_removing_a_field_fails_the_consumer(self, yard: Yard, capfd: pytest.CaptureFixture[str]) -> None:
        main(["contract", "init", "billing"])
        without = yard.keep(changed(city={"name": "town"}))
        renamed = yard.keep(
            draft(
                "credit",
                Signature(
                    features=MIXED.features,
                    problem=msgspec.structs.replace(MIXED.problem, classes=("no", "ja"), positive="ja"),
                ),
                mixed_model(),
                b'["no","ja"]',
            )
        )
        capfd.readouterr()
        yard.point(without, "challenger")
        assert main(["contract", "check", "contracts/billing.yaml", "--against", "challenger", "--json"]) == 1
        [broken] = json.loads(capfd.readouterr().out)["broken"]
        assert (broken["consumer"], broken["field"], broken["wanted"]) == ("billing", "status", "200")
        assert "`city`" in broken["got"]
        yard.point(renamed, "challenger")
        assert main(["contract", "check", "contracts/billing.yaml", "--against", renamed.digest[:10], "--json"]) == 1
        fields = {one["field"]: one["got"] for one in json.loads(capfd.readouterr().out)["broken"]}
        assert fields["/predictions/0/probabilities/yes"] == "nothing"
        assert fields["/predictions/*/label"] == 'it may be "ja"'
        assert main(["contract", "check", "contracts/billing.yaml"]) == 0

    @pytest.mark.parametrize(
        ("interaction", "field"),
        [
            ({"answer": {"fields": {"/predictions/*/label": {"type": "number"}}}}, "/predictions/0/label"),
            ({"answer": {"fields": {"/predictions/*/label": {"one_of": ["no"]}}}}, "/predictions/0/label"),
            ({"answer": {"fields": {"/predictions/0/label": {"equals": "no"}}}}, "/predictions/0/label"),
            ({"answer": {"fields": {"/predictions/1": {}}}}, "/predictions/1"),
            (
                {"answer": {"fields": {"/predictions/*/probabilities/no": {"between": [0.8, 1]}}}},
                "/predictions/0/probabilities/no",
            ),
            ({"answer": {"headers": {"x-model-version": {"equals": "1"}}}}, "header x-model-version"),
            ({"request": {"path": "/v2/models/other/ready"}, "answer": {}}, "status"),
            ({"request": {"columns": {"age": [1]}}}, "status"),
        ],
    )
    def test_what_does_not_hold_is_told(
        self, yard: Yard, capfd: pytest.CaptureFixture[str], interaction: dict[str, Any], field: str
    ) -> None:
        write("it.yaml", **interaction)
        assert main(["contract", "check", "it.yaml", "--json"]) == 1
        assert json.loads(capfd.readouterr().out)["broken"][0]["field"] == field

    @pytest.mark.parametrize(
        "interaction",
        [
            {"answer": {"fields": {"/predictions/*/label": {"type": ["string", "null"], "one_of": ["no", "yes"]}}}},
            {"request": {"columns": {"age": [30], "income": [None], "city": ["rome"]}}},
            {
                "request": {"rows": [{"age": 1}]},
                "answer": {"status": 400, "fields": {"/error/code": {"equals": "column-missing"}}},
            },
            {"request": {"path": "/v2/health/ready"}, "answer": {"fields": {"/ready": {"equals": True}}}},
            {
                "request": {
                    "path": "/invocations",
                    "body": "age,income,city\n30,500,rome\n",
                    "headers": {"Content-Type": "text/csv"},
                },
                "answer": {"fields": {"/predictions/0": {"one_of": ["no", "yes"]}}},
            },
        ],
    )
    def test_what_holds_holds(self, yard: Yard, interaction: dict[str, Any]) -> None:
        write("it.yaml", **interaction)
        assert main(["contract", "check", "it.yaml"]) == 0

    def test_a_guard_that_is_slow_at_its_first_call_breaks_nothing(self, yard: Yard) -> None:
        Path("guards.py").write_text(
            "import time\n\ncalls = []\n\n\ndef slow(batch):\n    calls.append(1)\n"
            "    time.sleep(0.5 if len(calls) == 1 else 0)\n    return [None] * len(batch)\n"
        )
        Path("modelyard.yaml").write_text(
            "project: hours\ndata: {t: {from: t.csv}}\nmodel: {target: y}\n"
            "deploy: {guards: {checks: [{use: guards.py:slow, timeout: 20ms}]}}\n"
        )
        write("it.yaml", answer={"fields": {"/predictions/*/label": {"type": "string"}}})
        assert main(["contract", "check", "it.yaml"]) == 0

    def test_nothing_is_left_in_the_project(self, yard: Yard) -> None:
        main(["contract", "init", "billing"])
        before = sorted(str(path) for path in Path().rglob("*"))
        assert main(["contract", "check", "contracts/billing.yaml"]) == 0
        assert sorted(str(path) for path in Path().rglob("*")) == before

    def test_the_declaration_counts_wherever_the_command_is_typed(
        self, yard: Yard, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = Path().resolve()
        declared = "project: hours\ndata: {t: {from: t.csv}}\nmodel: {target: y}\ndeploy:\n"
        (root / "guards.py").write_text("def nothing(batch):\n    return [True] * len(batch)\n")
        (root / "modelyard.yaml").write_text(
            f"{declared}  consumers: c/*.yaml\n  guards: {{checks: [{{use: guards.py:nothing}}]}}\n"
        )
        (root / "c").mkdir()
        (root / "elsewhere").mkdir()
        write("c/it.yaml", answer={"fields": {"/predictions/*/label": {"type": "null"}}})
        monkeypatch.chdir(root / "elsewhere")
        assert main(["contract", "check", "-f", "../modelyard.yaml"]) == 0
        assert "every promise holds" in capfd.readouterr().err
        (root / "modelyard.yaml").write_text(f"{declared}  access: {{roles: [operator]}}\n")
        assert main(["contract", "check", "../c/it.yaml", "-f", "../modelyard.yaml", "--json"]) == 1
        assert json.loads(capfd.readouterr().out)["broken"][0]["got"].startswith("403")

    @pytest.mark.parametrize(
        ("text", "code", "line"),
        [
            ("consumer: a\ninteractions:\n  - nam: x\n", "spec-unknown-field", 3),
            ("consumer: a\ninteractions: []\n", "spec-", 2),
            ("- 1\n", "spec-not-a-mapping", 1),
            (
                "consumer: a\ninteractions:\n  - name: x\n    request: {}\n    answer: {fields:\n      {label: {}}}\n",
                "spec-bad-value",
                6,
            ),
        ],
    )
    def test_mistakes_in_a_file_are_told_with_their_line(
        self, yard: Yard, capfd: pytest.CaptureFixture[str], text: str, code: str, line: int
    ) -> None:
        Path("it.yaml").write_text(text)
        assert main(["contract", "check", "it.yaml"]) == 2
        said = capfd.readouterr().err
        assert f"error[{code}" in said
        assert f"it.yaml:{line}" in said

    def test_every_mistake_of_a_file_is_told_at_once(self, yard: Yard, capfd: pytest.CaptureFixture[str]) -> None:
        text = "consumer: a\ninteraction:\n  - nam: x\n    request: {rows: [{age: 1}]}\n    answer: {stats: 200}\n"
        Path("it.yaml").write_text(text)
        assert main(["contract", "check", "it.yaml"]) == 2
        said = capfd.readouterr().err
        assert 'it.yaml:2: "interaction" is not a field of the file' in said
        assert 'it.yaml:3: "nam" is not a field of "interaction"' in said
        assert 'it.yaml:5: "stats" is not a field of "interaction.answer"' in said
        assert said.count("error[") == 3

    def test_only_contracts_are_near_names(self, yard: Yard, capfd: pytest.CaptureFixture[str]) -> None:
        Path("modelyard.yaml").write_text("project: x\n")
        assert main(["contract", "check", "nope.yaml"]) == 2
        assert "there is no contract yet" in capfd.readouterr().err
        Path("modelyard.yaml").unlink()
        main(["contract", "init", "billing"])
        assert main(["contract", "check", "biling.yaml"]) == 2
        assert "did you mean `contracts/billing.yaml`?" in capfd.readouterr().err

    def test_other_mistakes(self, yard: Yard, capfd: pytest.CaptureFixture[str]) -> None:
        write("it.yaml")
        Path("other.yaml").write_text(Path("it.yaml").read_text() + "endpoint: other\n")
        Path("odd.yaml").write_text(Path("it.yaml").read_text() + "    request: {}\n")
        for line, code in (
            (["check", "its.yaml"], "contract-not-found"),
            (["check", "other.yaml"], "contract-endpoint"),
            (["check"], "contract-names"),
            (["diff", "champion"], "contract-names"),
            (["diff", "champion", "./no.json"], "file-not-found"),
            (["mock", "./it.json"], "file-not-found"),
        ):
            assert main(["contract", *line]) == 2
            assert code in capfd.readouterr().err
        write("odd.yaml", request={"path": "/predict", "headers": {"X": "a\nb"}})
        assert main(["contract", "check", "odd.yaml"]) == 2
        assert "contract-request" in capfd.readouterr().err


class TestDiff:
    def said(self, old: Any, new: Any) -> dict[str, bool]:
        return {f"{change.what}: {change.why}": change.breaking for change in changes(old, new)}

    def test_the_same_is_compatible(self) -> None:
        assert changes(document(mixed_bundle()), document(mixed_bundle())) == []

    @pytest.mark.parametrize(
        ("columns", "told"),
        [
            ({"city": None}, "column `city`: is gone: requests that send it are refused"),
            (
                {"more": Feature(name="more", type="number", source="Int64")},
                "column `more`: is new and must be given: requests without it are refused",
            ),
            ({"income": {"nullable": False}}, "column `income`: may not be missing any more: null is refused"),
            (
                {"income": {"type": "category", "low": None, "high": None}},
                "column `income`: was null or number and is null or string: what callers send is refused",
            ),
        ],
    )
    def test_what_breaks_requests(self, columns: dict[str, Any], told: str) -> None:
        assert self.said(document(mixed_bundle()), document(changed(**columns)))[told]

    def test_what_breaks_readers(self) -> None:
        problem = msgspec.structs.replace(MIXED.problem, classes=("maybe", "no"), positive="no")
        other = draft("credit", Signature(features=MIXED.features, problem=problem), mixed_model(), b'["maybe","no"]')
        said = self.said(document(mixed_bundle()), document(other))
        assert said["`Value`: `yes` is not answered any more"]
        assert said["`Value`: `maybe` may be answered now, which callers do not know"]
        assert said["field `yes`: is gone"]
        assert said["field `truth`: does not take `yes` any more"]
        # A description of an older server said of outcomes only that they are values; what is refused is the same.
        before = document(mixed_bundle())
        truth = {"type": ["string", "number", "boolean"], "maxLength": 1000}
        before["components"]["schemas"]["Outcome"]["properties"]["truth"] = truth
        assert self.said(before, document(mixed_bundle())) == {}
        numbers = self.said(document(mixed_bundle()), document(regression_bundle()))
        assert numbers["field `label`: is gone"]

    def test_what_is_compatible(self) -> None:
        old, new = document(changed(age={"high": 80})), document(changed(age={"nullable": True}))
        assert self.said(old, new) == {
            "column `age`: may be null, too": False,
            "column `age`: other values were seen in training: warnings may differ": False,
        }

    def test_guards_and_order(self) -> None:
        old = document(mixed_bundle())
        stricter = self.said(old, document(mixed_bundle(), Guarded(unseen="reject", out_of_range="reject")))
        assert stricter["column `city`: takes the values seen in training alone now"]
        assert stricter["column `age`: `maximum` was 3.4028234663852886e+38 and is 90"]
        assert not any(self.said(document(mixed_bundle(), Guarded(unseen="reject")), old).values())
        reverse = Signature(features=MIXED.features[::-1], problem=MIXED.problem)
        moved = self.said(old, document(draft("credit", reverse, mixed_model(), b'["no","yes"]')))
        assert moved == {"columns: have another order: rows and tensors without names mean something else": True}

    def test_the_verb(self, yard: Yard, capfd: pytest.CaptureFixture[str]) -> None:
        assert main(["contract", "openapi", "--output", "old.json"]) == 0
        assert main(["contract", "diff", "old.json", "champion"]) == 0
        yard.point(yard.keep(changed(city=None)), "challenger")
        capfd.readouterr()
        assert main(["contract", "diff", "old.json", "challenger"]) == 1
        assert capfd.readouterr().out.startswith("breaking  column `city`: is gone")
        assert main(["contract", "diff", "old.json", "challenger", "--json"]) == 1
        assert json.loads(capfd.readouterr().out)["compatible"] is False


class TestMock:
    def test_the_same_row_has_the_same_answer_and_refusals_are_the_real_ones(self, served: Server) -> None:
        rows = [ROW, {**ROW, "age": 31}, ROW]
        with mock(bundle_of(document(mixed_bundle()), 7), "credit", Limits(), port=0) as host:
            with httpx.Client(base_url=host.url, headers={"authorization": "Bearer any"}) as client:
                made = client.post("/predict", json={"rows": rows})
                wrong = client.post("/predict", json={"rows": [{"age": "x"}]})
                described = client.get("/openapi.json")
            assert httpx.post(f"{host.url}/predict", json=ROW).status_code == 401
        one, other, again = made.json()["predictions"]
        assert one == again
        assert one != other
        assert sum(one["probabilities"].values()) == pytest.approx(1)
        assert made.headers["x-modelyard-mock"] == wrong.headers["x-modelyard-mock"] == "1"
        with served.client() as client:
            real = client.post("/predict", json={"rows": [{"age": "x"}]})
        assert "x-modelyard-mock" not in real.headers
        told = [{**answer.json()["error"], "id": ""} for answer in (wrong, real)]
        assert told[0] == told[1]
        assert changes(document(mixed_bundle()), described.json()) == []

    @pytest.mark.parametrize(
        "guards",
        [
            {},
            {"unseen": "reject"},
            {"out_of_range": "reject"},
            {"missing": "reject"},
            {"coerce": ("age", "city")},
            {"unseen": "reject", "out_of_range": "reject", "missing": "reject", "coerce": ("age",)},
        ],
    )
    def test_what_a_description_refuses_its_mock_refuses(self, tmp_path: Path, guards: dict[str, Any]) -> None:
        made, told = changed(city={"nullable": True}), Guarded(**guards)
        limits = Limits(policy=Policy(guards=told))
        unusual: list[dict[str, Any]] = [{}, {"city": "mars"}, {"age": 500}, {"city": None}, {"age": "31"}, {"city": 7}]
        written = read_description(json.dumps(document(made, told)).encode(), "it.json")
        with (
            Host(made.bundle(), "credit", limits, port=0) as real,
            mock(bundle_of(written, 7), "credit", Limits(), port=0) as host,
        ):
            for part in unusual:
                here, there = (
                    httpx.post(f"{url}/predict", json={**ROW, **part}, headers={"authorization": f"Bearer {token}"})
                    for url, token in ((host.url, "any"), (real.url, real.tokens["analyst"]))
                )
                said = [{**answer.json().get("error", {}), "id": ""} for answer in (here, there)]
                assert (here.status_code, said[0]) == (there.status_code, said[1]), part
                warned = [answer.json().get("warnings") for answer in (here, there)]
                assert warned[0] == warned[1], part
            described = httpx.get(f"{host.url}/openapi.json", headers={"authorization": "Bearer any"}).json()
        assert changes(written, described) == []

    def test_what_it_makes_up_of_a_regression_is_what_the_description_lets_be_answered(self) -> None:
        feeds = {"numeric": __import__("numpy").arange(20, dtype="float32").reshape(10, 2)}
        for bounds in ({"low": 10, "high": 12}, {"low": 10}, {"high": -3}):
            guards = Guarded(within=Within(**bounds))
            made = bundle_of(document(regression_bundle(), guards), 7).predictor().predict(feeds).ravel().tolist()
            assert bounds.get("low", -9) <= min(made)
            assert max(made) <= bounds.get("high", 12)

    @pytest.mark.parametrize("made", [mixed_bundle, regression_bundle])
    def test_a_seed_makes_other_answers(self, made: Any) -> None:
        feeds = {"numeric": __import__("numpy").ones((1, 2), "float32")}
        first, same, other = (bundle_of(document(made()), seed).predictor().predict(feeds) for seed in (1, 1, 2))
        assert first.tolist() == same.tolist() != other.tolist()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_the_verb_says_that_it_is_a_mock_and_ends_clean(self, yard: Yard, number: int) -> None:
        assert main(["contract", "openapi", "--output", "it.json"]) == 0
        line = [sys.executable, "-m", "modelyard", "contract", "mock", "it.json", "--port", "0", "--token", "secret"]
        process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        assert process.stderr is not None
        ready = re.match(
            r"ready (http://127\.0\.0\.1:\d+) endpoint=hours model=\S{12} mock seed=0$", process.stderr.readline()
        )
        assert ready
        for token, status in (("secret", 200), ("other", 401)):
            headers = {"authorization": f"Bearer {token}"}
            assert httpx.post(f"{ready[1]}/predict", json=ROW, headers=headers).status_code == status
        process.send_signal(number)
        _, rest = process.communicate(timeout=20)
        assert (process.returncode, rest) == (0, "stopped endpoint=hours mock\n")


@pytest.mark.parametrize(
    "change",
    [
        {"info": {"title": '"""\nimport os', "version": "1"}},
        {"info": {"title": "a", "version": "*/ alert()"}},
        {"components": {}},
        {"paths": None},
        {"paths": {"/x": 3}},
        {"paths": {"/x": {"get": {"responses": []}}}},
        {"paths": {"/x": {"get": {"parameters": [{"$ref": "#/components/parameters/Missing"}]}}}},
    ],
)
def test_a_file_that_is_no_description_of_ours_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], change: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("it.json").write_text(json.dumps({**document(mixed_bundle()), **change}))
    for action in (["mock"], ["client"], ["diff", "it.json"]):
        assert main(["contract", *action, "it.json"]) == 2
        assert "contract-unreadable" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("column", "schema"),
    [
        # An inner object becomes a type, whose name is made of the key.
        ("x\n__import__('os') #", {"properties": {"a": {"type": "number"}}}),
        ("x\nalert() //", {"properties": {}}),
        ("x\nalert() //", {"type": "array", "items": {"properties": {}}}),
        ("x", 3),
        ("x", {"type": "any"}),
        ("x", {}),
        ("x", {"type": "array", "items": True}),
        ("x", {"type": "number", "minimum": "a"}),
        ("x", {"type": "object", "required": 3}),
        ("x", {"properties": ["a"]}),
        ("x", {"enum": [{"a": 1}]}),
        ("x", {"$ref": "#/components/schemas/Missing"}),
        ("x", {"$ref": "#/components/parameters/Request"}),
        ("x", {"type": "number", "x-seen": {"low": "a", "high": "b"}}),
        ("x", {"type": "string", "x-seen": [1]}),
    ],
)
def test_a_description_whose_schemas_are_not_ours_is_refused(column: str, schema: Any) -> None:
    known = document(mixed_bundle())
    known["components"]["schemas"]["Row"]["properties"][column] = schema
    with pytest.raises(UserError) as caught:
        read_description(json.dumps(known).encode(), "it.json")
    assert caught.value.code == "contract-unreadable"


@pytest.mark.parametrize("column", ["$ref", "type", "enum", "items", "properties", "a\nb"])
def test_a_description_is_read_whatever_its_columns_are_called(column: str) -> None:
    known = document(mixed_bundle())
    known["components"]["schemas"]["Row"]["properties"][column] = {"type": ["number", "null"], "x-seen": {"low": 0}}
    assert read_description(json.dumps(known).encode(), "it.json") == known


@pytest.mark.parametrize("column", ["education-num", "hours per week", "2nd", "gr\u00f6\u00dfe", "a.b", "class", "]*/"])
def test_what_was_written_of_a_model_is_read_again(column: str) -> None:
    known = document(changed(new=Feature(name=column, type="number", source="Float64")))
    assert read_description(json.dumps(known).encode(), "it.json") == known
    written = [next(iter(client_files(known, language).values())) for language in LANGUAGES]
    assert [f"{key}: " in text for key, text in zip((ascii(column), json.dumps(column)), written, strict=True)] == [
        True
    ] * 2


def test_the_known_cities_are_in_it() -> None:
    column = document(mixed_bundle())["components"]["schemas"]["Row"]["properties"]["city"]
    assert column["x-seen"] == {"categories": list(CITIES)}
