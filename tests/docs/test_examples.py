"""What the guides type and send to the endpoint of `examples/income` is answered by it, as they say."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
GUIDES = ROOT / "docs" / "guides"
# The same columns and classes in seconds: one family, and claims that it keeps.
_SMALLER = [
    (r"candidates: .*", "candidates: [logistic]"),
    (r"trials: 8, folds: 3", "trials: 1, folds: 2"),
    (r"checks:\n(  - .*\n)+", "checks:\n  - roc_auc: {at_least: 0.7}\n"),
]
pytestmark = pytest.mark.slow


def blocks(page: str, *languages: str) -> list[str]:
    text = (GUIDES / page).read_text(encoding="utf-8")
    return [found[2] for found in re.finditer(r"^```(\w+)\n(.*?)^```", text, re.M | re.S) if found[1] in languages]


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """The project, with a champion."""
    folder = tmp_path_factory.mktemp("income") / "income"
    shutil.copytree(ROOT / "examples" / "income", folder)
    bash(folder, f"{sys.executable} prepare.py {shared_data / 'adult'}")
    text = (folder / "modelyard.yaml").read_text()
    for pattern, smaller in _SMALLER:
        text, times = re.subn(pattern, smaller, text)
        assert times == 1, pattern
    (folder / "modelyard.yaml").write_text(text)
    bash(folder, "modelyard run")
    return folder


@pytest.fixture(scope="module")
def port(yard: Path) -> Iterator[str]:
    """The port of its endpoint."""
    line = [sys.executable, "-m", "modelyard", "serve", "--port", "0"]
    server = subprocess.Popen(line, cwd=yard, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    found = next(
        match for said in server.stderr if (match := re.match(r"ready http://\S+:(\d+) .* trace=[0-9a-f]{32}$", said))
    )
    yield found[1]
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=30)


def bash(folder: Path, text: str) -> str:
    env = {**os.environ, "NO_COLOR": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["/bin/bash", "-ec", text], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_what_the_page_types_is_answered(yard: Path, port: str) -> None:
    typed = [text for text in blocks("serving.md", "bash") if "curl" in text or "TOKEN=" in text]
    assert sum(text.count("curl") for text in typed) >= 6
    # `-f`: a refusal is an error.
    said = bash(
        yard, "".join(typed).replace("127.0.0.1:8080", f"127.0.0.1:{port}").replace("curl -s", "curl -sf -w '\\n'")
    )
    assert '"predictions":[{"label":"<=50K","probabilities"' in said
    assert '"predictions":["<=50K"]' in said
    assert '"outputs":[' in said


def test_the_row_on_the_page_is_the_one_that_is_written(yard: Path) -> None:
    row = bash(yard, "modelyard contract request")
    (shown,) = [text for text in blocks("serving.md", "json") if text.startswith('{"rows"')]
    assert re.sub(r"\s+", " ", shown) == row.replace("\n", " ")


def test_the_sample_of_triton_is_answered(yard: Path, port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tritonclient.http")
    monkeypatch.chdir(yard)
    bash(yard, "modelyard contract request > row.json")
    (sample,) = [text for text in blocks("serving.md", "text") if "tritonclient.http" in text]
    names: dict[str, Any] = {"token": bash(yard, "modelyard token add triton").strip()}
    exec(sample.replace("127.0.0.1:8080", f"127.0.0.1:{port}"), names)  # noqa: S102 - the page of the docs
    names["client"].close()
    assert names["answer"].as_numpy("label").tolist() == [b"<=50K"]


def test_the_generated_client_and_the_contract_of_the_page_hold(
    yard: Path, port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bash(yard, "modelyard contract client -o . && modelyard contract request > row.json && mkdir -p contracts")
    monkeypatch.chdir(yard)
    monkeypatch.syspath_prepend(str(yard))
    (sample,) = [text for text in blocks("integration.md", "text") if "income_client" in text]
    names: dict[str, Any] = {"token": bash(yard, "modelyard token add client").strip()}
    exec(sample.replace("127.0.0.1:8080", f"127.0.0.1:{port}"), names)  # noqa: S102 - the page of the docs
    assert names["answer"]["label"] == "<=50K"
    (contract,) = [text for text in blocks("integration.md", "yaml") if text.startswith("consumer:")]
    (yard / "contracts" / "billing.yaml").write_text(contract)
    bash(yard, "modelyard contract check contracts/billing.yaml")


def test_guards_of_the_page_are_those_of_the_example() -> None:
    (guards,) = [text for text in blocks("guards.md", "yaml") if "guards:" in text]
    assert yaml.safe_load(guards)["deploy"]["guards"]["fallback"] in ("<=50K", ">50K")
