"""The command line of a server: of this machine's Python, with what the declaration says of access."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from modelyard._kit.errors import NotFound
from modelyard.checks.ab import Question
from modelyard.deploy.aliases import move, trace_of
from modelyard.deploy.guards import Alarm, Extraction, Guards
from modelyard.deploy.local import command, telling
from modelyard.deploy.rollout import Ab, Rollout
from modelyard.deploy.section import Access, Deploy, Traces
from modelyard.records import Deployment, Draft, ModelVersion, plain
from modelyard.serving.guards.policy import read_policy
from modelyard.serving.versions.rollout import read_plan
from modelyard.store import LocalStore


@pytest.fixture
def deployment(store: LocalStore, models: list[ModelVersion]) -> Deployment:
    return move(store, "hours", "champion", models[1], reason="test", actor="user:ana")


def test_access_stands_on_the_line(store: LocalStore, deployment: Deployment) -> None:
    access = Access(roles=("analyst", "operator"), per_minute=60)
    line = command(telling(store, deployment, declared=Deploy(access=access)), host="::1", port=0)
    assert line[:4] == [sys.executable, "-P", "-m", "modelyard.serving"]
    given = list(zip(line[4::2], line[5::2], strict=True))
    assert Path(dict(given)["--bundle"]).is_dir()
    # What was unloaded before is not of the server's time.
    assert dict(given)["--since"] == str(store.ledger.head()[0])
    assert [one for one in given if one[0] not in ("--bundle", "--since")] == [
        ("--host", "::1"),
        ("--port", "0"),
        ("--project", str(store.root)),
        ("--endpoint", "hours"),
        ("--follow", "champion"),
        ("--role", "analyst"),
        ("--role", "operator"),
        ("--per-minute", "60"),
    ]
    assert not {"--role", "--per-minute", "--processes", "--store"} & set(telling(store, deployment))
    line = command(telling(store, deployment), processes=2)
    assert line[line.index("--processes") + 1] == "2"


def test_rollout_stands_on_the_line(store: LocalStore, deployment: Deployment) -> None:
    assert "--canary" not in telling(store, deployment, declared=Deploy())
    tried = Deploy(rollout=Rollout(canary=0.1, watch=3600.0, shadow=True, p99=0.005))
    line = telling(store, deployment, declared=tried)
    assert line[-7:] == ["--p99", "0.005", "--canary", "0.1", "--watch", "3600.0", "--shadow"]
    line = telling(store, deployment, declared=Deploy(rollout=Rollout(probation=0.0)))
    assert line[-2:] == ["--probation", "0.0"]
    line = telling(store, deployment, declared=Deploy(rollout=Rollout(ab=Ab(share=0.2, metric="ms", promote=True))))
    plan = read_plan(0.0, 0.0, False, line[line.index("--ab") + 1])
    assert plan.share == 0.2
    assert plan.ab == Question(share=0.2, metric="ms", promote=True)
    # Whoever declares nothing is told nothing, and both mean the same by it.
    assert plan.probation == Rollout().probation
    assert "--probation" not in line


def test_who_is_tried_harms_nobody(store: LocalStore, deployment: Deployment, tmp_path: Path) -> None:
    """Rows of a load test are made up: they are no traffic to trace, to raise an alarm, or to suspect a caller for."""
    declared = Deploy(
        access=Access(roles=("analyst",), per_minute=60, per_day=100, log="all"),
        guards=Guards(unseen="reject", alarm=Alarm(then="kill"), extraction=Extraction(do="limit")),
        traces=Traces(to="http://127.0.0.1:4318"),
        rollout=Rollout(canary=0.1),
    )
    line = telling(store, deployment, declared=declared, apart=tmp_path)
    assert not {"--per-minute", "--canary", "--follow"} & set(line)
    assert line[line.index("--role") + 1] == "analyst"
    told = read_policy(line[line.index("--policy") + 1])
    assert told.traces is None
    assert told.access.per_day is None
    assert told.access.log == "all"
    assert told.guards is not None
    assert (told.guards.unseen, told.guards.alarm, told.guards.extraction) == ("reject", None, None)


def test_the_trace_of_the_run_that_made_the_model_stands_on_the_line(
    store: LocalStore, deployment: Deployment, models: list[ModelVersion]
) -> None:
    # Nobody knows the run: nothing is made up.
    assert "--trace" not in telling(store, deployment)
    store.ledger.append(Draft(kind="run.started", run="run-1", payload={"project": "p", "trace": "ab" * 16}))
    # A person promoted it; the run that released it is the way back.
    line = telling(store, deployment)
    assert line[line.index("--trace") + 1] == "ab" * 16
    # A run that found it in the cache and promoted it did not make it.
    store.ledger.append(
        Draft(kind="run.started", run="run-2", payload={"project": "p", "trace": "cd" * 16}),
        Draft(kind="alias.moved", run="run-2", payload={"deployment": plain(deployment)}),
    )
    assert trace_of(store, deployment) == "ab" * 16


def test_a_run_that_promoted_a_model_stands_for_one_that_nobody_knows(
    store: LocalStore, deployment: Deployment
) -> None:
    store.ledger.append(
        Draft(kind="run.started", run="run-2", payload={"project": "p", "trace": "cd" * 16}),
        Draft(kind="alias.moved", run="run-2", payload={"deployment": plain(deployment)}),
    )
    assert trace_of(store, deployment) == "cd" * 16


def test_bundle_that_is_gone(store: LocalStore, deployment: Deployment, models: list[ModelVersion]) -> None:
    folder = store.blobs.folder(deployment.model.address)
    folder.chmod(0o755)
    folder.rename(store.root / "elsewhere")
    with pytest.raises(NotFound) as caught:
        telling(store, deployment)
    # A run makes the model of today, so it is no way back to this one.
    assert caught.value.code == "folder-not-found"
    assert "hours/champion" in caught.value.problem.message
    there = next(m for m in reversed(models) if m.identity != deployment.model.identity)
    assert f"`modelyard promote {there.digest[:12]}`" in caught.value.problem.hint
    assert "modelyard rollback" in caught.value.problem.hint
    for other in store.blobs.folder(there.address).parents[1].glob("*/*"):
        other.chmod(0o755)
        other.rename(store.root / f"gone-{other.name}")
    with pytest.raises(NotFound, match="then `modelyard promote MODEL`"):
        telling(store, deployment)
