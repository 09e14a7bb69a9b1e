"""A run whose file declares a trial names a challenger; the server's traffic decides what becomes of it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import modelyard
from modelyard.cli.main import main
from modelyard.records import Deployment
from tests.automation.daemons import until
from tests.stories.conftest import SPEC, samples

Make = Callable[..., Path]
PLAIN = SPEC.replace("candidates: [logistic, lightgbm]", "candidates: [logistic]").replace(
    "  - beats: {margin: -0.05}\n", ""
)


def pointing(folder: Path, alias: str) -> Deployment | None:
    with modelyard.open_project(folder) as store:
        return store.ledger.alias("tumours", alias)


def digest(folder: Path, alias: str) -> str:
    to = pointing(folder, alias)
    assert to is not None
    return to.model.digest


@pytest.mark.thorough
def test_run_names_a_challenger_where_a_trial_is_declared(
    make_project: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = PLAIN + "deploy: {rollout: {canary: 20%}}\n"
    folder = make_project(spec=spec)
    monkeypatch.chdir(folder)
    # Nobody is there whom the first model could be tried beside.
    assert main(["run"]) == 0
    assert "tumours/champion -> linear" in capsys.readouterr().out
    first = digest(folder, "champion")
    assert pointing(folder, "challenger") is None

    (folder / "modelyard.yaml").write_text(spec.replace("seed: 7", "seed: 8"))
    assert main(["run"]) == 0
    said = capsys.readouterr().out
    second = digest(folder, "challenger")
    assert digest(folder, "champion") == first != second
    assert f"tumours/challenger -> linear {second[:12]} (gate passed, on trial)" in said
    assert f"linear {first[:12]} stays the champion meanwhile" in said

    # A trial that a person has ended is not begun again by a run with nothing changed.
    assert main(["rollback", "--alias", "challenger", "--reason", "not on a Friday"]) == 0
    assert digest(folder, "challenger") == first
    assert main(["rollback", "--alias", "challenger"]) == 1
    assert "error[no-trial]" in capsys.readouterr().err
    assert main(["run"]) == 0
    said = capsys.readouterr().out
    assert f"tumours/challenger -> linear {first[:12]} (not on a Friday)" in said
    assert f"this run made linear {second[:12]}" in said
    assert digest(folder, "challenger") == first
    assert main(["verify"]) == 0

    # Whom a person has made the champion, the run that made it says so.
    assert main(["promote", second[:12], "--reason", "by hand"]) == 0
    capsys.readouterr()
    assert main(["run"]) == 0
    assert f"tumours/champion -> linear {second[:12]} (by hand)" in capsys.readouterr().out


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    line = [sys.executable, "-m", "modelyard", "serve", "--port", "0"]
    server = subprocess.Popen(line, cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        yield next(found[1] for one in server.stderr or () if (found := re.search(r"(http://127\.0\.0\.1:\d+)", one)))
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=20)
        if server.stderr:
            server.stderr.close()


@pytest.mark.slow
@pytest.mark.parametrize("rollout", ["{canary: 50%, watch: 1s}", "{ab: {min: 100, promote: true}}"])
def test_what_the_trial_shows_decides(
    make_project: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rollout: str
) -> None:
    spec = PLAIN + f"deploy: {{rollout: {rollout}}}\n"
    folder = make_project(spec=spec)
    monkeypatch.chdir(folder)
    assert main(["run"]) == 0
    assert main(["token", "add", "story", "--role", "operator", "--json"]) == 0
    secret = json.loads(capsys.readouterr().out.splitlines()[-1])["token"]
    first = digest(folder, "champion")
    row = {name: float(text) for name, text in samples(0, 1)[0].items() if name not in ("id", "grain", "diagnosis")}
    with (
        serving(folder) as url,
        httpx.Client(base_url=url, headers={"authorization": f"Bearer {secret}"}, timeout=20) as client,
    ):
        (folder / "modelyard.yaml").write_text(spec.replace("seed: 7", "seed: 8"))
        assert main(["run"]) == 0
        second = digest(folder, "challenger")
        capsys.readouterr()

        def one() -> tuple[str, dict[str, str]]:
            answer = client.post("/predict", json={"rows": [{**row, "grain": "fine"}]})
            assert answer.status_code == 200, answer.text
            body = answer.json()
            # Whoever asked the new version was answered rightly, and wrongly by the old one.
            said = body["predictions"][0]
            other = next(label for label in said["probabilities"] if label != said["label"])
            truth = said["label"] if body["model"] == second else other
            return body["model"], {"id": body["id"], "truth": truth}

        def won() -> bool:
            outcomes = [outcome for _, outcome in (one() for _ in range(50))]
            assert client.post("/feedback", json=outcomes).status_code == 200
            return digest(folder, "champion") == second

        until(won)
        until(lambda: one()[0] == second)
        if "ab" in rollout:
            # The trial is over.
            assert main(["ab"]) == 2
            assert "error[ab-no-trial]" in capsys.readouterr().err
    to = pointing(folder, "champion")
    assert to is not None
    assert to.previous == first
    assert to.reason.startswith("A/B test: the challenger is better" if "ab" in rollout else "canary held")
    assert main(["run"]) == 0
    assert f"tumours/champion -> linear {second[:12]} ({to.reason})" in capsys.readouterr().out
