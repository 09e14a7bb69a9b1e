"""A model goes from a run to its callers through stages, and back: typed as persons would, on real data."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import modelyard
from modelyard._kit.digest import short
from modelyard.deploy.promotion import standing
from tests.serving.conftest import started
from tests.stories.conftest import LOGISTIC, samples, write_csv
from tests.typed import typed

STAGES = """\
deploy:
  stages:
    dev: {}
    staging: {approvals: 1}
    prod: {approvals: 2, four_eyes: true}
"""


def now(folder: Path) -> dict[str, str]:
    with modelyard.open_project(folder) as store:
        return {one.stage: one.champion for one in standing(store)}


@pytest.mark.thorough
def test_a_model_comes_to_its_callers_and_goes_back(ran: Path) -> None:
    def by(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return typed(ran, *words, LOGNAME=name)

    (ran / "modelyard.yaml").write_text(LOGISTIC + STAGES)
    # What was made before there were stages need not be made again.
    with modelyard.open_project(ran) as store:
        made = store.ledger.latest("fit")
        assert made is not None
        model = made.outputs["model"]["digest"]
    done = by("ana", "run")
    assert done.returncode == 0, done.stderr
    assert (
        f"tumours-dev/champion -> linear {short(model)} (gate passed)\nnext: modelyard approve --to staging\n"
        in done.stdout
    )
    assert now(ran) == {"dev": model, "staging": "", "prod": ""}

    assert "error[stage-skipped]" in by("ana", "promote", short(model), "--to", "prod").stderr
    assert "error[approvals-missing]" in by("ana", "promote", "--to", "staging").stderr
    assert by("bob", "approve", "--to", "staging").returncode == 0
    assert by("ana", "promote", "--to", "staging").returncode == 0
    for name in ("ana", "bob"):
        assert by(name, "approve", "--to", "prod", "--reason", "card read").returncode == 0
    said = by("ana", "promote", "--to", "prod").stderr
    assert "that of user:ana, who promotes, does not count" in said
    assert by("eve", "approve", "--to", "prod").returncode == 0
    assert by("ana", "promote", "--to", "prod").returncode == 0
    assert now(ran) == dict.fromkeys(("dev", "staging", "prod"), model)
    assert "next:" not in by("ana", "run").stdout

    # Another card of the same model is another thing to approve.
    spec = LOGISTIC.replace("caveats: One hospital.", "caveats: Two hospitals.") + STAGES
    (ran / "modelyard.yaml").write_text(spec)
    assert by("ana", "run").returncode == 0
    assert now(ran) == dict.fromkeys(("dev", "staging", "prod"), model)
    assert "error[approvals-missing]" in by("ana", "promote", "--to", "staging").stderr
    # Who is asked can read the card that it is about, and that which callers have.
    cards = [by("ana", "card", stage, "--format", "md").stdout for stage in ("dev", "prod")]
    assert ["Two hospitals." in card for card in cards] == [True, False]

    # A new model, by new data, goes the same way; meanwhile callers have the old one.
    write_csv(ran / "data" / "two.csv", samples(300, 500))
    assert by("ana", "run").returncode == 0
    new = now(ran)["dev"]
    assert new != model
    assert by("bob", "approve", "--to", "staging").returncode == 0
    assert by("ana", "promote", "--to", "staging").returncode == 0
    # What answers there needs nobody's word.
    assert "error[approval-nothing]" in by("bob", "approve", short(model), "--to", "prod").stderr
    for name in ("bob", "eve"):
        assert by(name, "approve", "--to", "prod").returncode == 0
    assert by("ana", "promote", "--to", "prod").returncode == 0
    back = by("ana", "rollback", "prod", "--reason", "errors since noon")
    assert re.match(rf"tumours-prod/champion -> linear {short(model)} \(errors since noon\)", back.stdout), back
    assert now(ran) == {"dev": new, "staging": new, "prod": model}
    assert "error[approvals-missing]" in by("ana", "promote", "--to", "prod").stderr
    # A run with nothing changed leaves all that as it is.
    assert by("ana", "run").returncode == 0
    assert now(ran) == {"dev": new, "staging": new, "prod": model}
    assert by("ana", "verify", "--ledger").returncode == 0

    # Each stage is served, watched and asked for by its own name.
    rows = json.loads(by("ana", "contract", "request", "--endpoint", "prod").stdout)
    token = by("ana", "token", "add", "ana", "--role", "prod=analyst").stdout.strip()
    line = [sys.executable, "-P", "-m", "modelyard", "serve", "prod", "--port", "0"]
    server = started(ran, line, cwd=ran, analyst=token)
    try:
        with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {token}"}) as client:
            assert client.post("/predict", json=rows).headers["x-model-version"] == short(model)
            assert client.get("/v2/models/tumours-prod").json()["name"] == "tumours-prod"
            assert client.get("/v2/models/tumours").status_code == 404
    finally:
        assert server.stop() == 0, server.said
    watched = json.loads(by("ana", "watch", "prod", "--json").stdout)
    assert (watched["endpoint"], watched["model"], watched["window"]["rows"]) == ("tumours-prod", model, 1)
    # Nobody has asked the first one.
    assert by("ana", "watch").returncode == 2
