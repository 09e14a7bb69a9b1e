"""What can stand in `deploy.stages`, and what follows from it."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from modelyard._kit.errors import SpecError
from modelyard.pipeline.compose import compose
from modelyard.spec import Spec, json_schema, load

SMALL = "project: p\ndata: {t: {from: a.csv}}\nmodel: {target: y}\n"


def declared(folder: Path, deploy: str, more: str = "") -> Path:
    (folder / "a.csv").write_text("id,y\n1,a\n2,b\n")
    path = folder / "modelyard.yaml"
    path.write_text(f"{SMALL}{more}deploy: {deploy}\n")
    return path


def params(spec: Spec, step: str) -> dict[str, object]:
    return next(one.params for one in compose(spec).steps if one.name == step)


def test_each_stage_is_an_endpoint_and_a_run_ends_in_the_first(tmp_path: Path) -> None:
    path = declared(tmp_path, "{endpoint: income, stages: {dev: {}, prod: {approvals: 2, four_eyes: true}}}")
    spec = load(path)
    assert spec.stages == {"dev": "income-dev", "prod": "income-prod"}
    assert (spec.endpoint, spec.model_name) == ("income-dev", "income")
    assert (spec.deploy.stages["prod"].approvals, spec.deploy.stages["prod"].four_eyes) == (2, True)
    jsonschema.validate(yaml.safe_load(path.read_text()), json_schema())
    # A model has the name of no stage: it is the same in all of them.
    assert params(spec, "fit")["name"] == "income"
    assert params(spec, "promote")["endpoint"] == "income-dev"


def test_stages_are_no_reason_to_train_again(tmp_path: Path) -> None:
    before = load(declared(tmp_path, "{endpoint: income}"))
    assert before.stages == {}
    assert (before.endpoint, before.model_name) == ("income", "income")
    after = load(declared(tmp_path, "{endpoint: income, stages: {dev: {}}}"))
    assert [params(before, step) for step in ("fit", "card")] == [params(after, step) for step in ("fit", "card")]


def test_a_stage_may_try_in_its_own_way(tmp_path: Path) -> None:
    text = "{rollout: {canary: 5%}, stages: {dev: {rollout: {}}, qa: {}, prod: {rollout: {canary: 10%}}}}"
    spec = load(declared(tmp_path, text))
    shares = [spec.deployed(endpoint).rollout.canary for endpoint in spec.stages.values()]
    assert shares == [None, 0.05, 0.1]
    assert spec.deployed("p") is spec.deploy
    # Nobody has to be spared in the first one.
    assert "alias" in params(spec, "promote")


@pytest.mark.parametrize(
    ("stages", "line", "code", "says"),
    [
        ("{dev: {approvals: 1}}", 4, "spec-contradiction", "the first stage"),
        ("{dev: {}, prod: {four_eyes: true}}", 4, "spec-contradiction", "asks for no approval"),
        ("{dev: {}, prod: {}, Prod: {}}", 4, "spec-contradiction", "differ in capitals only"),
        (f"{{dev: {{}}, {'x' * 62}: {{}}}}", 4, "spec-contradiction", "64 characters, 63 at most"),
        ("{dev: {}, prod: {approvals: -1}}", 4, "spec-bad-value", "approvals"),
        ("{dev: {}, prod: {approvals: two}}", 4, "spec-wrong-type", "approvals"),
        ("{dev: {}, prod: {approval: 1}}", 4, "spec-unknown-field", "approval"),
        ("{dev: {}, 'pro d': {}}", 4, "spec-bad-value", "pro d"),
        ("{}", 4, "spec-missing-field", "stages"),
        ("[dev, prod]", 4, "spec-wrong-type", "stages"),
        ("{dev: {}, prod: {rollout: {watch: 1h}}}", 4, "spec-contradiction", "no canary"),
    ],
)
def test_what_cannot_stand_there(tmp_path: Path, stages: str, line: int, code: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(declared(tmp_path, f"{{stages: {stages}}}"))
    problem = caught.value.problem
    assert (problem.code, problem.where.endswith(f":{line}"), says in str(problem)) == (code, True, True), problem


def test_consumers_name_the_stage_that_they_call(tmp_path: Path) -> None:
    contract = "consumer: ward\nendpoint: NAME\ninteractions: [{name: a, request: {path: /v2/health/ready}}]\n"
    path = declared(tmp_path, "{stages: {dev: {}, prod: {}}, consumers: ward.yaml}")
    (tmp_path / "ward.yaml").write_text(contract.replace("NAME", "p-prod"))
    load(path)
    (tmp_path / "ward.yaml").write_text(contract.replace("NAME", "p"))
    with pytest.raises(SpecError, match="the endpoints are p-dev, p-prod") as caught:
        load(path)
    assert caught.value.code == "contract-endpoint"
