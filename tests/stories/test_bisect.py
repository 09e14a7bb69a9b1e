"""A model gets worse because somebody edited the features: the run, the file and the function are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import modelyard
from modelyard.cli.main import main
from tests.stories.conftest import SPEC, samples, write_csv

FEATURES = """\
import narwhals as nw


def scaled(rows):
    return rows.with_columns(area=nw.col("worst_area") / 1000)


def build(tables):
    return scaled(tables["samples"])
"""


@pytest.mark.slow
def test_the_edit_that_spoiled_the_model_is_found(
    make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = SPEC.replace("candidates: [logistic, lightgbm]", "candidates: [logistic]")
    spec = spec.replace("model:\n", "features: features.py:build\nmodel:\n").replace("at_least: 0.80", "at_least: 0.55")
    folder = make_project(spec=spec)
    monkeypatch.chdir(folder)
    features = folder / "features.py"
    features.write_text(FEATURES)
    assert main(["run"]) == 0
    write_csv(folder / "data" / "two.csv", samples(300, 360))
    assert main(["run"]) == 0
    # All the numbers that a model could learn from are gone.
    columns = [c for c in samples(0, 1)[0] if c not in ("id", "diagnosis")]
    spoiled = ", ".join(f"{c}=nw.lit(1.0)" for c in columns if c not in ("grain", "mean_texture"))
    features.write_text(FEATURES.replace('area=nw.col("worst_area") / 1000', spoiled))
    main(["run"])
    write_csv(folder / "data" / "three.csv", samples(360, 420))
    main(["run"])
    capsys.readouterr()
    assert main(["bisect", "--metric", "roc_auc", "--worse-than", "0.9", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kinds"] == ["code"]
    assert found["step"] == "features"
    assert found["changes"][0]["files"] == ["features.py"]
    assert found["changes"][0]["functions"] == ["scaled"]
    assert [one["verdict"] for one in found["judged"]] == ["good", "good", "bad", "bad"]
    assert main(["replay", found["last_good"], "features", "--old-code"]) == 0
    with modelyard.open_project(folder) as store:
        good = store.ledger.run(found["last_good"])
    assert good is not None
    training = [step.name for step in good.steps if step.name.startswith("train.")]
    for step in (*training, "fit", "evaluate", "curves", "check.roc_auc", "card", "package"):
        assert main(["replay", good.id, step]) == 0, step
