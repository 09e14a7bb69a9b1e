"""A step without a network, as whoever runs a project sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.pipeline.networks import listening

import modelyard
from modelyard._kit.errors import UserError
from modelyard.api import open_project
from modelyard.cli.main import main
from modelyard.data import sources
from modelyard.pipeline.causes import cause_of
from modelyard.pipeline.compose import compose

Capture = pytest.CaptureFixture[str]
STEPS = """\
import urllib.request

import modelyard


def fetch(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


@modelyard.step(network=True)
def may(url):
    return fetch(url)


def features(tables):
    fetch("http://127.0.0.1:9/")
    return tables["people"]
"""
KNOWN = """

def known(url):
    return PRICES
"""
LOOKS = """\
import socket

with socket.socket(socket.AF_INET) as sock:
    FOUND = sock.family.name


def found(url):
    return FOUND
"""
FILE = "project: prices\nsteps:\n  fetch: {{function: 'steps.py:{function}', params: {{url: '{url}'}}{more}}}\n"

CONTRACT = """\
consumer: billing
endpoint: p
interactions: [{name: x, request: {path: /v2/health/ready}}]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "steps.py").write_text(STEPS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def declare(project: Path, url: str, *, function: str = "fetch", more: str = "") -> None:
    (project / "modelyard.yaml").write_text(FILE.format(function=function, url=url, more=more))


@pytest.mark.parametrize("own", ["", ", resources: {own_process: true}"], ids=["in the runner", "in its own"])
def test_the_message_says_who_wanted_what_where_and_what_to_do(own: str, project: Path, capsys: Capture) -> None:
    with listening() as server:
        declare(project, f"http://127.0.0.1:{server.port}/", more=own)
        assert main(["run"]) == 5
        said = capsys.readouterr().err
        assert server.seen == 0
    assert "[step-network]" in said
    assert "steps.py:7: step `fetch` wanted to reach `127.0.0.1:" in said
    assert "hint: if it has to, give it `network: true` under `resources`" in said
    assert "Traceback" not in said
    assert said.count("[step-network]") == 1
    with open_project(project) as store:
        (listed,) = store.ledger.runs()
        run = store.ledger.run(listed.id)
        assert run is not None
        cause = cause_of(store, run, "fetch")
    assert cause is not None
    assert cause.kind == "permission"
    assert "`network: true`" in cause.next


def test_the_error_is_explained(capsys: Capture) -> None:
    assert main(["explain", "step-network"]) == 0
    assert "network: true" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("function", "more"),
    [
        ("fetch", ", resources: {network: true}"),
        ("fetch", ", resources: {network: true, own_process: true}"),
        ("may", ""),
    ],
)
def test_what_the_file_or_the_function_allows_goes_through(function: str, more: str, project: Path) -> None:
    with listening() as server:
        declare(project, f"http://127.0.0.1:{server.port}/", function=function, more=more)
        assert main(["run"]) == 0
        assert server.seen == 1


@pytest.mark.parametrize("own", ["", "own_process: true"], ids=["in the runner", "in its own"])
def test_what_a_file_does_as_it_is_loaded_is_the_steps_as_well(own: str, project: Path, capsys: Capture) -> None:
    """The runner loads it before the step begins, to see what it is."""
    with listening() as server:
        (project / "steps.py").write_text(f"{STEPS}\n\nPRICES = fetch('http://127.0.0.1:{server.port}/')\n{KNOWN}")
        declare(project, "", function="known", more=f", resources: {{{own}}}")
        assert main(["run"]) == 5
        assert server.seen == 0
        said = capsys.readouterr().err
        assert "steps.py:7: step `fetch` wanted to reach `127.0.0.1:" in said
        declare(
            project, "", function="known", more=f", resources: {{{', '.join(filter(None, [own, 'network: true']))}}}"
        )
        assert main(["run"]) == 0
        assert server.seen > 0


def test_a_library_may_look_for_ipv6_as_it_is_imported(project: Path) -> None:
    """It remembers what it found, for steps that have the network as well."""
    (project / "steps.py").write_text(LOOKS)
    declare(project, "", function="found")
    assert modelyard.run()["fetch"] == "AF_INET"


def test_the_file_wins_over_the_function(project: Path) -> None:
    declare(project, "http://127.0.0.1:9/", function="may", more=", resources: {network: false}")
    assert main(["run"]) == 5


def test_a_value_that_is_none_is_refused_before_anything_runs(project: Path, capsys: Capture) -> None:
    declare(project, "http://127.0.0.1:9/", more=", resources: {network: 1}")
    assert main(["check", "--json"]) == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["code"], problem["where"]) == ("spec-wrong-type", "modelyard.yaml:3")
    (project / "steps.py").write_text(STEPS.replace("network=True", 'network="yes"'))
    declare(project, "http://127.0.0.1:9/", function="may")
    with pytest.raises(UserError) as caught:
        compose(modelyard.load())
    assert "network='yes'" in str(caught.value)


def test_features_are_told_to_have_a_step_of_their_own_fetch_it(project: Path, capsys: Capture) -> None:
    (project / "people.csv").write_text("id,age\n1,30\n")
    (project / "modelyard.yaml").write_text(
        "project: people\ndata: {people: {from: people.csv, key: id}}\n"
        "features: steps.py:features\nmodel: {target: age}\n"
    )
    assert main(["run"]) == 5
    said = capsys.readouterr().err
    assert "step `features` wanted to reach `127.0.0.1:9`" in said
    assert "in a step of your own" in said


def test_a_replay_is_held_as_the_run_was(project: Path, capsys: Capture) -> None:
    with listening() as server:
        declare(project, f"http://127.0.0.1:{server.port}/")
        assert main(["run"]) == 5
        assert main(["replay"]) == 0, "it fails as it did"
        assert server.seen == 0
        assert "step-network" in capsys.readouterr().out
        declare(project, f"http://127.0.0.1:{server.port}/", more=", resources: {network: true}")
        assert main(["run"]) == 0
        assert main(["replay", "fetch"]) == 0
        assert server.seen == 2


def test_a_source_of_a_library_and_what_asks_a_server_of_ours_have_theirs(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Point:
        name = "mem"

        def load(self) -> type:
            return sources.FileSource

    monkeypatch.setattr(sources, "entry_points", lambda *, group: [Point()] if group == "modelyard.sources" else [])
    (project / "people.csv").write_text("id,age\n1,30\n")
    (project / "billing.yaml").write_text(CONTRACT)
    (project / "modelyard.yaml").write_text(
        "project: p\ndata: {near: {from: people.csv, key: id}, far: {from: 'mem://rows', key: id}}\n"
        "features: steps.py:features\nmodel: {target: age}\ndeploy: {consumers: billing.yaml}\n"
    )
    plan = compose(modelyard.load())
    assert {step.name for step in plan.steps if step.resources.network} == {"load.far", "check.consumers"}
