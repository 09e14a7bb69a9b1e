"""What cannot stand in `deploy.rollout`."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from modelyard._kit.errors import SpecError
from modelyard.spec import json_schema, load

SMALL = "project: p\ndata: {t: {from: a.csv}}\nmodel: {target: y}\n"


def declared(folder: Path, rollout: str) -> Path:
    (folder / "a.csv").write_text("id,y\n1,a\n2,b\n")
    path = folder / "modelyard.yaml"
    path.write_text(f"{SMALL}deploy:\n  rollout: {rollout}\n")
    return path


def test_watch_needs_a_canary(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load(declared(tmp_path, "{watch: 1h}"))
    assert caught.value.code == "spec-contradiction"


@pytest.mark.parametrize("rollout", ["{canary: 10%, ab: {share: 20%}}", "{ab: {metric: label}}", "{ab: {label: good}}"])
def test_ab_alone_says_the_share_and_what_is_compared(tmp_path: Path, rollout: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(declared(tmp_path, rollout))
    assert caught.value.code == "spec-contradiction"


def test_ab_is_read(tmp_path: Path) -> None:
    given = "{ab: {share: 20%, metric: label, label: good, higher_is_better: false, alpha: 0.01, at_most: 2d}}"
    rollout = load(declared(tmp_path, given)).deploy.rollout
    assert rollout.ab is not None
    assert (rollout.ab.share, rollout.ab.label, rollout.ab.at_most) == (0.2, "good", 172_800.0)
    assert rollout.trial


@pytest.mark.parametrize(("given", "seconds"), [("{}", 300.0), ("{probation: 90s}", 90.0), ("{probation: 0}", 0.0)])
def test_probation_is_read(tmp_path: Path, given: str, seconds: float) -> None:
    path = declared(tmp_path, given)
    assert load(path).deploy.rollout.probation == seconds
    jsonschema.validate(yaml.safe_load(path.read_text()), json_schema())


@pytest.mark.parametrize("given", ["-1m", "1", "off"])
def test_probation_is_a_time(tmp_path: Path, given: str) -> None:
    path = declared(tmp_path, f"{{probation: {given}}}")
    with pytest.raises(SpecError) as caught:
        load(path)
    assert caught.value.code == "spec-bad-duration"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(path.read_text()), json_schema())


def test_units_are_read(tmp_path: Path) -> None:
    rollout = load(declared(tmp_path, "{canary: 10%, watch: 1h, shadow: true, p99: 5ms}")).deploy.rollout
    assert (rollout.canary, rollout.watch, rollout.shadow, rollout.p99) == (0.1, 3600.0, True, 0.005)
