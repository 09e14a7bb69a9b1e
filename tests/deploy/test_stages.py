"""Stages: what a model needs to enter each, by whatever words it is asked for, and the way back."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.conftest import keep

from modelyard._kit.digest import short
from modelyard._kit.errors import ModelyardError
from modelyard.deploy.aliases import move, pointed, rollback, settle, withdraw
from modelyard.deploy.approving import approve, unapprove
from modelyard.deploy.promotion import DeclaredStage, declare, named, stages_of, standing
from modelyard.deploy.stages import Stage
from modelyard.logs.ledger import Teller
from modelyard.records import Alias, Deployment, Event, EventKind, ModelVersion
from modelyard.security.tokens import list_tokens
from modelyard.store import LocalStore, open_store

Yard = Callable[..., "subprocess.CompletedProcess[str]"]

STAGES = {"dev": Stage(), "staging": Stage(approvals=1), "prod": Stage(approvals=2)}
PLAIN = "project: hours\ndata: {t: {from: t.csv}}\nmodel: {target: a}\n"
FILE = f"""\
{PLAIN}deploy:
  stages:
    dev: {{}}
    staging: {{approvals: 1}}
    prod: {{approvals: 2}}
"""


def written(store: LocalStore, text: str = FILE, name: str = "modelyard.yaml") -> None:
    (store.root / "t.csv").write_text("a\n1\n")
    (store.root / name).write_text(text)


def deployed(name: str, model: ModelVersion) -> Deployment:
    return Deployment(endpoint=f"hours-{name}", alias="champion", model=model, revision=1)


def ran(store: LocalStore, model: ModelVersion) -> None:
    """Leave the first stage as a run does."""
    declare(store, "hours", STAGES, actor="user:ana")
    with settle(store, deployed("dev", model), actor="user:ana"):
        pass
    move(store, "hours-dev", "champion", model, reason="gate passed", actor="user:ana")


def stage(store: LocalStore, name: str) -> DeclaredStage:
    return named(stages_of(store), name)


def into(store: LocalStore, model: ModelVersion, name: str, *, by: str = "user:ana", alias: Alias = "champion") -> None:
    move(store, f"hours-{name}", alias, model, actor=by)


def yes(store: LocalStore, model: ModelVersion, name: str, *persons: str) -> None:
    for person in persons:
        approve(store, stage(store, name), model, actor=f"user:{person}")


def through(store: LocalStore, model: ModelVersion) -> None:
    """Take a model through every stage."""
    ran(store, model)
    yes(store, model, "staging", "bob")
    into(store, model, "staging")
    yes(store, model, "prod", "bob", "eve")
    into(store, model, "prod")


def newest(store: LocalStore, kind: EventKind) -> Event:
    return list(store.ledger.events(kinds=(kind,)))[-1]


def champions(store: LocalStore) -> dict[str, str]:
    return {one.stage: short(one.champion) for one in standing(store)}


def refused(call: Callable[[], object], code: str) -> ModelyardError:
    with pytest.raises(ModelyardError) as caught:
        call()
    assert caught.value.code == code, caught.value
    return caught.value


# -- the gate


def test_a_model_goes_through_the_stages_one_after_the_other(store: LocalStore, models: list[ModelVersion]) -> None:
    model = models[0]
    ran(store, model)
    said = refused(lambda: into(store, model, "prod"), "stage-skipped")
    assert "`staging` has no champion yet" in str(said)
    assert "--to staging" in said.problem.hint
    said = refused(lambda: into(store, model, "staging"), "approvals-missing")
    assert "needs 1 approval to enter `staging`, and it has none" in str(said)
    yes(store, model, "staging", "bob")
    into(store, model, "staging")
    assert pointed(store, "hours-staging").reason == "promoted from dev by user:ana, approved by user:bob"
    yes(store, model, "prod", "ana")
    said = refused(lambda: into(store, model, "prod"), "approvals-missing")
    assert "it has 1, of user:ana" in str(said)
    assert f"modelyard approve {short(model.digest)} --to prod" in said.problem.hint
    yes(store, model, "prod", "eve")
    into(store, model, "prod")
    event = newest(store, "alias.moved")
    assert event.payload["admitted"] == {
        "stage": "prod",
        "before": "staging",
        "approvals": 2,
        "approved": ["user:ana", "user:eve"],
    }
    assert champions(store) == dict.fromkeys(("dev", "staging", "prod"), short(model.digest))
    assert store.ledger.verify() == []


def test_the_same_person_counts_once_and_may_think_again(store: LocalStore, models: list[ModelVersion]) -> None:
    model = models[0]
    ran(store, model)
    yes(store, model, "staging", "bob")
    said = refused(lambda: yes(store, model, "staging", "bob"), "approved-already")
    assert "it has 1 of 1, of user:bob" in said.problem.hint
    assert f"`modelyard approve {short(model.digest)} --to staging --withdraw`" in said.problem.hint
    said = refused(lambda: unapprove(store, stage(store, "staging"), model, actor="user:eve"), "approval-not-found")
    assert "approved by user:bob" in said.problem.hint
    unapprove(store, stage(store, "staging"), model, actor="user:bob", reason="slow")
    refused(lambda: into(store, model, "staging"), "approvals-missing")
    refused(lambda: unapprove(store, stage(store, "staging"), model, actor="user:bob"), "approval-not-found")
    yes(store, model, "staging", "bob")
    into(store, model, "staging")
    kinds = [event.kind for event in store.ledger.events(kinds=("model.approved", "model.unapproved"))]
    assert kinds == ["model.approved", "model.unapproved", "model.approved"]


def test_nobody_approves_what_asks_for_no_approval(store: LocalStore, models: list[ModelVersion]) -> None:
    ran(store, models[0])
    refused(lambda: yes(store, models[0], "dev", "bob"), "approval-not-needed")
    declare(store, "hours", {"dev": Stage(), "prod": Stage()}, actor="user:ana")
    refused(lambda: yes(store, models[0], "prod", "bob"), "approval-not-needed")


def test_four_eyes_leaves_out_who_promotes(store: LocalStore, models: list[ModelVersion]) -> None:
    model = models[0]
    ran(store, model)
    declare(store, "hours", {"dev": Stage(), "prod": Stage(approvals=1, four_eyes=True)}, actor="user:ana")
    yes(store, model, "prod", "ana")
    said = refused(lambda: into(store, model, "prod"), "approvals-missing")
    assert "that of user:ana, who promotes, does not count" in str(said)
    # It has as many as it needs: another person at the keyboard will do.
    assert said.problem.hint == (
        f"somebody who has not approved it may promote it, or one more person approves it: "
        f"`modelyard approve {short(model.digest)} --to prod`"
    )
    into(store, model, "prod", by="user:bob")
    assert champions(store)["prod"] == short(model.digest)


def test_who_approved_is_on_record_even_where_it_did_not_count(store: LocalStore, models: list[ModelVersion]) -> None:
    ran(store, models[0])
    declare(store, "hours", {"dev": Stage(), "prod": Stage(approvals=1, four_eyes=True)}, actor="user:ana")
    yes(store, models[0], "prod", "ana", "bob")
    into(store, models[0], "prod")
    assert newest(store, "alias.moved").payload["admitted"]["approved"] == ["user:ana", "user:bob"]


def test_a_new_card_asks_for_new_approvals(
    store: LocalStore, models: list[ModelVersion], make: Callable[..., ModelVersion]
) -> None:
    model = models[0]
    through(store, model)
    again = make(1.0, card=b'{"ethics": "thought about"}')
    assert again.digest == model.digest
    ran(store, again)
    # What somebody approved was the other card.
    refused(lambda: into(store, again, "staging"), "approvals-missing")
    said = refused(lambda: yes(store, again, "prod", "bob"), "stage-skipped")
    assert "`staging` has it with another card" in str(said)
    yes(store, again, "staging", "eve")
    into(store, again, "staging")
    assert pointed(store, "hours-prod").model == model
    refused(lambda: into(store, again, "prod"), "approvals-missing")


def test_what_was_asked_for_is_what_was_declared_last(store: LocalStore, models: list[ModelVersion]) -> None:
    ran(store, models[0])
    assert not declare(store, "hours", STAGES, actor="user:ana")
    # A file that knows of no stages takes nobody's away.
    assert not declare(store, "hours", {}, actor="user:ana")
    refused(lambda: into(store, models[0], "staging"), "approvals-missing")
    assert declare(store, "hours", {"dev": Stage(), "staging": Stage()}, actor="user:bob")
    event = newest(store, "stages.declared")
    assert event.actor == "user:bob"
    into(store, models[0], "staging")
    assert list(stages_of(store)) == ["hours-dev", "hours-staging"]


def test_two_models_cannot_have_one_endpoint(
    store: LocalStore, models: list[ModelVersion], make: Callable[..., ModelVersion]
) -> None:
    ran(store, models[0])
    other = make(5.0, name="hours-test")
    move(store, "hours-test", "champion", other, reason="gate passed", actor="user:ana")
    said = refused(lambda: declare(store, "hours", {**STAGES, "test": Stage()}, actor="user:ana"), "stage-taken")
    assert "the endpoint `hours-test`, which `hours-test` has" in str(said)
    # Nor does a model of another name come into a stage.
    for call in (
        lambda: into(store, other, "dev"),
        lambda: into(store, other, "prod"),
    ):
        refused(call, "stage-other-model")


def test_two_models_cannot_declare_one_endpoint(store: LocalStore) -> None:
    declare(store, "hours", {"dev": Stage(), "day-prod": Stage()}, actor="user:ana")
    # Nothing answers there yet.
    said = refused(lambda: declare(store, "hours-day", {"prod": Stage()}, actor="user:ana"), "stage-taken")
    assert "the endpoint `hours-day-prod`, which `hours` has" in str(said)


# -- other spellings


def test_no_run_ends_in_a_later_stage(store: LocalStore, models: list[ModelVersion]) -> None:
    ran(store, models[0])
    yes(store, models[0], "staging", "bob")

    def ends() -> None:
        with settle(store, deployed("staging", models[0]), actor="user:ana"):
            pass

    assert "by a person" in str(refused(ends, "stage-by-run"))


def test_a_challenger_needs_the_same_and_wins_by_itself(store: LocalStore, models: list[ModelVersion]) -> None:
    from modelyard.serving.versions.settling import Pointer
    from modelyard.serving.versions.settling import settle as won

    first, second, third = models
    through(store, first)
    ran(store, second)
    refused(lambda: into(store, second, "prod", alias="challenger"), "stage-skipped")
    yes(store, second, "staging", "bob")
    into(store, second, "staging")
    refused(lambda: into(store, second, "prod", alias="challenger"), "approvals-missing")
    yes(store, second, "prod", "bob", "eve")
    into(store, second, "prod", alias="challenger")
    # The trial ends well while staging has gone on.
    ran(store, third)
    yes(store, third, "staging", "bob")
    into(store, third, "staging")
    champion, challenger = (pointed(store, "hours-prod", alias) for alias in ("champion", "challenger"))
    assert won(store, (Pointer(champion, 0.0, 0), Pointer(challenger, 0.0, 0)), champion, challenger, "held")
    assert champions(store)["prod"] == short(second.digest)
    assert rollback(store, "hours-prod", actor="user:ana").model == first


def test_a_person_ends_a_trial_by_the_approvals_that_stand(store: LocalStore, models: list[ModelVersion]) -> None:
    first, second, third = models
    through(store, first)
    ran(store, second)
    yes(store, second, "staging", "bob")
    into(store, second, "staging")
    yes(store, second, "prod", "bob", "eve")
    into(store, second, "prod", alias="challenger")
    ran(store, third)
    yes(store, third, "staging", "bob")
    into(store, third, "staging")
    unapprove(store, stage(store, "prod"), second, actor="user:eve")
    refused(lambda: into(store, second, "prod"), "approvals-missing")
    yes(store, second, "prod", "joe")
    into(store, second, "prod")
    assert champions(store)["prod"] == short(second.digest)


def test_what_was_in_a_stage_comes_back_at_once_and_other_stages_stay(
    store: LocalStore, models: list[ModelVersion]
) -> None:
    through(store, models[0])
    through(store, models[1])
    assert rollback(store, "hours-prod", actor="user:ana").model == models[0]
    was, now = short(models[0].digest), short(models[1].digest)
    assert champions(store) == {"dev": now, "staging": now, "prod": was}
    refused(lambda: rollback(store, "hours-prod", actor="user:ana", to=models[2].digest), "model-not-found")


def test_what_was_gone_back_from_asks_for_new_approvals(store: LocalStore, models: list[ModelVersion]) -> None:
    through(store, models[0])
    through(store, models[1])
    rollback(store, "hours-prod", actor="user:ana")
    # Nobody who approved it knew why it would leave.
    refused(lambda: into(store, models[1], "prod"), "approvals-missing")
    assert standing(store)[-1].missing == 2
    yes(store, models[1], "prod", "bob", "eve")
    into(store, models[1], "prod")
    # By another rollback it would have come without.
    rollback(store, "hours-prod", actor="user:ana")
    assert rollback(store, "hours-prod", actor="user:ana").model == models[1]


def test_a_lost_trial_asks_for_new_approvals(store: LocalStore, models: list[ModelVersion]) -> None:
    through(store, models[0])
    ran(store, models[1])
    yes(store, models[1], "staging", "bob")
    into(store, models[1], "staging")
    yes(store, models[1], "prod", "bob", "eve")
    into(store, models[1], "prod", alias="challenger")
    withdraw(store, "hours-prod", actor="user:ana")
    refused(lambda: into(store, models[1], "prod", alias="challenger"), "approvals-missing")


def test_a_trial_ends_at_once_whatever_the_champion_came_by(store: LocalStore, models: list[ModelVersion]) -> None:
    through(store, models[0])
    through(store, models[1])
    # So it has no approvals any more.
    rollback(store, "hours-prod", actor="user:ana")
    yes(store, models[1], "prod", "bob", "eve")
    into(store, models[1], "prod", alias="challenger")
    assert withdraw(store, "hours-prod", actor="user:ana").model == models[0]


def test_a_challenger_that_won_and_was_gone_back_from_is_on_trial_no_more(
    store: LocalStore, models: list[ModelVersion]
) -> None:
    first, second, third = models
    declare(store, "hours", {"dev": Stage(), "prod": Stage()}, actor="user:ana")
    for model in (first, second):
        move(store, "hours-dev", "champion", model, reason="gate passed", actor="user:ana")
        into(store, model, "prod", alias="champion" if model is first else "challenger")
    # As by the end of its trial; the challenger stays where it points.
    into(store, second, "prod")
    rollback(store, "hours-prod", actor="user:ana")
    # No server tries what was named for another champion; so it waits, as anything that is not there.
    assert (standing(store)[-1].challenger, standing(store)[-1].next) == ("", second.digest)
    # Nor is it a way into the stage once the stage before has gone on.
    move(store, "hours-dev", "champion", third, reason="gate passed", actor="user:ana")
    refused(lambda: into(store, second, "prod"), "stage-skipped")
    move(store, "hours-dev", "champion", second, reason="thought again", actor="user:ana")
    was = pointed(store, "hours-prod", "challenger").revision
    into(store, second, "prod", alias="challenger")
    now = pointed(store, "hours-prod", "challenger")
    assert (now.model, now.revision) == (second, was + 1)
    assert standing(store)[-1].challenger == second.digest
    # On trial by now, so there is nothing to do.
    into(store, second, "prod", alias="challenger")
    assert pointed(store, "hours-prod", "challenger") == now


def test_a_champion_may_end_the_trial_beside_it_while_the_stage_before_has_gone_on(
    store: LocalStore, models: list[ModelVersion]
) -> None:
    declare(store, "hours", {"dev": Stage(), "prod": Stage()}, actor="user:ana")
    move(store, "hours-dev", "champion", models[0], reason="gate passed", actor="user:ana")
    into(store, models[0], "prod")
    move(store, "hours-dev", "champion", models[1], reason="gate passed", actor="user:ana")
    into(store, models[1], "prod", alias="challenger")
    into(store, models[0], "prod", alias="challenger")
    assert standing(store)[-1].challenger == ""


def test_the_logs_tell_who_approved_what(store: LocalStore, models: list[ModelVersion]) -> None:
    ran(store, models[0])
    approve(store, stage(store, "staging"), models[0], actor="user:bob", reason="card read")
    line = Teller(store.ledger).line(newest(store, "model.approved"))
    assert line.message == f"user:bob approves model {short(models[0].digest)} for hours-staging: card read"
    assert line.endpoint == "hours-staging"


# -- as a person types it


def person(yard: Yard, name: str) -> Yard:
    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        return yard(*words, LOGNAME=name)

    return typed


@pytest.fixture
def people(yard: Yard, store: LocalStore, models: list[ModelVersion]) -> dict[str, Yard]:
    written(store)
    ran(store, models[0])
    return {name: person(yard, name) for name in ("ana", "bob", "eve")}


def test_a_person_takes_a_model_to_its_callers(people: dict[str, Yard], models: list[ModelVersion]) -> None:
    ana, bob, eve = people.values()
    digest = short(models[0].digest)
    done = ana("promote", "--to", "staging")
    assert (done.returncode, "error[approvals-missing]" in done.stderr) == (1, True), done.stderr
    done = bob("approve", "--to", "staging", "--reason", "card read")
    assert done.stdout == (
        f"linear {digest} is approved for staging by user:bob (1 of 1); next: modelyard promote --to staging\n"
    )
    assert re.search(rf"hours-staging may get {digest}, 1 of 1 approval, of user:bob", ana("status").stdout)
    done = ana("promote", "--to", "staging")
    assert done.stdout == (
        f"hours-staging/champion -> linear {digest} (promoted from dev by user:ana, approved by user:bob)\n"
    )
    assert done.stderr == "next: modelyard approve --to prod\n"
    assert "1 approval missing" in eve("approve", digest, "--to", "prod").stdout
    told = json.loads(bob("approve", "--to", "prod", "--json").stdout)
    assert (told["stage"], told["missing"], [one["actor"] for one in told["approved"]]) == (
        "prod",
        0,
        ["user:eve", "user:bob"],
    )
    listed = json.loads(ana("approve", "--list", "--json").stdout)
    assert [(one["stage"], one["next"][:12], one["missing"]) for one in listed] == [
        ("dev", "", 0),
        ("staging", "", 0),
        ("prod", digest, 0),
    ]
    assert json.loads(ana("promote", "--to", "prod", "--json").stdout)["endpoint"] == "hours-prod"
    assert ana("promote", "--to", "prod").stdout == f"hours-prod/champion is {digest} already\n"
    assert "modelyard" not in ana("approve", "--list").stdout
    assert "stage " not in ana("status").stdout


def test_a_stage_is_understood_where_an_endpoint_is_asked(
    people: dict[str, Yard], store: LocalStore, models: list[ModelVersion]
) -> None:
    ana = people["ana"]
    through(store, models[0])
    through(store, models[1])
    # It is not guessed where something is taken back.
    done = ana("rollback")
    assert "error[stage-unclear]" in done.stderr
    assert "name one: dev, staging, prod" in done.stderr
    assert ana("rollback", "prod").stdout.startswith("hours-prod/champion -> ")
    assert "error[ab-not-declared]" in ana("ab", "prod").stderr
    assert "error[profile-nothing]" in ana("profile", "prod").stderr
    assert ana("kill", "staging", "--reason", "x").stdout.startswith("hours-staging is switched off")
    assert ana("revive", "hours-staging").stdout == "hours-staging is switched on again\n"
    assert ana("token", "add", "joe", "--role", "prod=operator").returncode == 0
    assert list_tokens(store.root)[0].roles == {"hours-prod": "operator"}
    done = ana("serve", "prd")
    assert "did you mean `prod`" in done.stderr
    now = {one.stage: short(one.champion) for one in standing(store)}
    assert now == {"dev": short(models[1].digest), "staging": short(models[1].digest), "prod": short(models[0].digest)}


def test_one_stage_of_several_models_is_served_on_one_port(
    people: dict[str, Yard], store: LocalStore, models: list[ModelVersion], make: Callable[..., ModelVersion]
) -> None:
    through(store, models[0])
    written(store, FILE.replace("hours", "days"), "days.yaml")
    declare(store, "days", {"dev": Stage(), "prod": Stage()}, actor="user:ana")
    for name in ("days-dev", "days-prod"):
        move(store, name, "champion", make(4.0, name="days"), actor="user:ana")
    both = ("-f", "modelyard.yaml", "-f", "days.yaml", "--systemd", "-")
    done = people["ana"]("serve", "prod", *both)
    assert re.search(r'days\.yaml"? "?prod"? ', done.stdout), done
    done = people["ana"]("serve", "hours-prod", *both)
    assert "has dev, staging, prod" in done.stderr


def test_a_file_without_stages_goes_by_its_own_endpoint(
    people: dict[str, Yard], store: LocalStore, models: list[ModelVersion], make: Callable[..., ModelVersion]
) -> None:
    through(store, models[0])
    written(store, PLAIN.replace("hours", "days"), "days.yaml")
    for factor in (4.0, 5.0):
        move(store, "days", "champion", make(factor, name="days"), actor="user:ana")
    assert people["ana"]("rollback", "-f", "days.yaml").stdout.startswith("days/champion -> ")
    # So does the file that had some; what was in them stays, and is left to what was declared.
    written(store, PLAIN)
    assert people["ana"]("promote", models[1].digest).stdout.startswith("hours/champion -> ")
    assert "error[stage-skipped]" in people["ana"]("promote", models[1].digest, "--endpoint", "hours-prod").stderr


def test_digits_mean_the_card_that_a_model_has_in_the_stage_before(
    people: dict[str, Yard], store: LocalStore, models: list[ModelVersion], make: Callable[..., ModelVersion]
) -> None:
    model, bob = models[0], people["bob"]
    yes(store, model, "staging", "eve")
    into(store, model, "staging")
    ran(store, make(1.0, card=b'{"ethics": "thought about"}'))
    assert bob("approve", model.digest, "--to", "prod").returncode == 0
    yes(store, model, "prod", "eve")
    # It is the one that was approved, though a newer one waits to enter `staging`.
    assert bob("promote", model.digest, "--to", "prod").returncode == 0
    assert pointed(store, "hours-prod").model.identity == model.identity
    # Once that one has entered `staging`, it is what comes next.
    again = pointed(store, "hours-dev").model
    yes(store, again, "staging", "eve")
    into(store, again, "staging")
    assert "error[approvals-missing]" in bob("promote", model.digest, "--to", "prod").stderr


def test_a_stage_without_a_model_says_where_one_comes_from(people: dict[str, Yard]) -> None:
    done = people["ana"]("serve", "prod")
    assert "error[alias-not-found]" in done.stderr
    assert "`modelyard promote --to prod` takes the champion of `staging`" in done.stderr
    assert people["ana"]("kill", "prod", "--reason", "not yet").returncode == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("promote", "MODEL", "--to", "prod"), "stage-skipped"),
        (("promote", "MODEL", "--endpoint", "hours-prod"), "stage-skipped"),
        (("promote", "MODEL", "--endpoint", "prod"), "stage-skipped"),
        (("promote", "MODEL", "--to", "hours-staging"), "approvals-missing"),
        (("promote", "MODEL", "--endpoint", "hours-staging"), "approvals-missing"),
        (("promote", "MODEL", "--endpoint", "hours-staging", "--alias", "challenger"), "approvals-missing"),
        (("promote", "MODEL", "--endpoint", "hours-staging", "-f", "other.yaml"), "approvals-missing"),
        (("promote", "MODEL", "--endpoint", "hours-staging", "-f", "none.yaml"), "approvals-missing"),
        (("promote", "MODEL", "--endpoint", "hours-staging", "-f", "wrong.yaml"), "approvals-missing"),
        (("promote", "MODEL"), "stage-unclear"),
        (("promote", "MODEL", "--endpoint", "hours"), "stage-unclear"),
        (("promote", "MODEL", "-f", "other.yaml"), "stage-unclear"),
        (("promote", "challenger", "--to", "staging"), "alias-not-found"),
        (("promote", "OTHER", "--to", "staging"), "stage-skipped"),
        (("rollback", "staging", "--to", "MODEL"), "alias-not-found"),
    ],
)
def test_there_is_no_way_around(
    people: dict[str, Yard], store: LocalStore, models: list[ModelVersion], words: tuple[str, ...], code: str
) -> None:
    written(store, PLAIN.replace("hours", "other"), "other.yaml")
    written(store, "project: [\n", "wrong.yaml")
    digests = {"MODEL": models[0].digest, "OTHER": models[1].digest}
    before = {one.stage: one.champion for one in standing(store)}
    done = people["ana"](*(digests.get(word, word) for word in words))
    assert f"error[{code}]" in done.stderr, done
    assert {one.stage: one.champion for one in standing(store)} == before
    assert store.ledger.alias("hours", "champion") is None


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("promote", "--to", "prd"), "stage-not-found", "did you mean `prod`"),
        (("promote", "--to", "prod", "--endpoint", "x"), "cli-arguments", "not allowed"),
        (("promote",), "cli-arguments", "--to STAGE"),
        (("promote", "--to", "dev"), "cli-arguments", "promote MODEL --to dev"),
        (("approve", "--to", "dev"), "approval-not-needed", "modelyard run"),
        (("approve", "--to", "prd"), "stage-not-found", "did you mean `prod`"),
        (("approve", "--to", "prod"), "alias-not-found", "modelyard promote --to staging"),
        (("approve",), "cli-arguments", "--to STAGE"),
        (("approve", "--list", "--to", "prod"), "cli-value", "modelyard approve --list"),
        (("approve", "--to", "staging", "--withdraw"), "approval-not-found", "nobody has approved it"),
        (("approve", "zzz", "--to", "staging"), "model-not-found", ""),
        (("serve", "prod", "-f", "modelyard.yaml", "-f", "other.yaml"), "cli-value", "several files"),
    ],
)
def test_what_cannot_be_asked(
    people: dict[str, Yard], store: LocalStore, words: tuple[str, ...], code: str, says: str
) -> None:
    written(store, PLAIN.replace("hours", "other"), "other.yaml")
    done = people["ana"](*words)
    assert (done.returncode in (1, 2), f"error[{code}]" in done.stderr, says in done.stderr) == (True, True, True), done


def test_what_answers_in_a_stage_needs_no_more_approvals(
    people: dict[str, Yard], store: LocalStore, models: list[ModelVersion]
) -> None:
    through(store, models[0])
    assert "error[approval-nothing]" in people["eve"]("approve", "--to", "prod").stderr
    # What is there goes by a rollback.
    done = people["eve"]("approve", "--to", "prod", "--withdraw")
    assert ("error[approval-nothing]" in done.stderr, "`modelyard rollback prod`" in done.stderr) == (True, True), done
    written(store, FILE.replace("prod: {approvals: 2}", "prod: {}"))
    done = people["eve"]("approve", "--to", "prod")
    assert "error[approval-not-needed]" in done.stderr
    assert "deploy.stages.prod.approvals: 1" in done.stderr
    # Who has changed it, and when, is on record.
    assert "prod asks for 0 approvals" in done.stderr
    event = newest(store, "stages.declared")
    assert (event.actor, event.payload["file"]) == ("user:eve", "modelyard.yaml")


def test_a_stage_that_is_taken_out_is_said_to_ask_nobody(
    people: dict[str, Yard], store: LocalStore, models: list[ModelVersion]
) -> None:
    through(store, models[0])
    written(store, FILE.replace("prod: {approvals: 2}", "live: {}"))
    said = people["ana"]("approve", "--list").stderr
    assert "live asks for 0 approvals" in said
    assert "`prod` is no stage any more, and nobody is asked what enters `hours-prod`" in said
    # A stage that nothing has entered has no callers.
    written(store, FILE)
    assert "live" not in people["ana"]("approve", "--list").stderr


def test_who_takes_an_approval_back_during_a_trial_hears_that_it_goes_on(
    people: dict[str, Yard], store: LocalStore, models: list[ModelVersion]
) -> None:
    through(store, models[0])
    ran(store, models[1])
    yes(store, models[1], "staging", "bob")
    into(store, models[1], "staging")
    yes(store, models[1], "prod", "bob", "eve")
    assert "trial" not in people["eve"]("approve", "--to", "prod", "--withdraw").stderr
    yes(store, models[1], "prod", "eve")
    into(store, models[1], "prod", alias="challenger")
    done = people["eve"]("approve", "--to", "prod", "--withdraw")
    assert "1 approval missing" in done.stdout
    assert "its trial goes on, and may make it the champion" in done.stderr
    assert "`modelyard rollback prod --alias challenger` ends it" in done.stderr


def test_a_run_says_that_it_changes_the_stages(people: dict[str, Yard], store: LocalStore) -> None:
    lower = FILE.replace("staging: {approvals: 1}", "staging: {}")
    written(store, lower.replace("prod: {approvals: 2}", "prod: {approvals: 1, four_eyes: true}"))
    # Whatever comes of it: these data have nothing to learn from.
    said = people["eve"]("run").stderr
    assert "staging asks for 0 approvals, prod asks for 1 approval (four eyes)" in said
    line = Teller(store.ledger).line(newest(store, "stages.declared"))
    assert line.message == (
        "user:eve declares the stages of hours by modelyard.yaml: dev (0 approvals), staging (0 approvals), "
        "prod (1 approval, four eyes)"
    )
    assert "have changed" not in people["eve"]("run").stderr


def test_an_only_model_of_a_stage_leaves_it_by_the_next_one(
    people: dict[str, Yard], store: LocalStore, models: list[ModelVersion]
) -> None:
    through(store, models[0])
    said = people["ana"]("rollback", "prod").stderr
    assert "error[no-previous]" in said
    assert "`modelyard promote --to prod` takes the champion of `staging`" in said


def test_a_run_whose_endpoint_is_a_stage_of_another_model_is_refused_before_it_begins(
    people: dict[str, Yard], store: LocalStore
) -> None:
    written(store, PLAIN.replace("hours", "hours-prod"), "other.yaml")
    done = people["ana"]("run", "-f", "other.yaml")
    assert "error[stage-taken]" in done.stderr, done
    assert "`hours-prod` is the stage `prod` of `hours`" in done.stderr
    assert store.ledger.runs() == []
    # A file that makes no model may have any name.
    (store.root / "own.py").write_text("def one():\n    return 1\n")
    written(store, "project: hours-prod\nsteps: {one: {function: 'own.py:one'}}\n", "steps.yaml")
    assert people["ana"]("run", "-f", "steps.yaml").returncode == 0


def test_without_stages_it_is_said_how_they_are_declared(
    yard: Yard, store: LocalStore, models: list[ModelVersion]
) -> None:
    written(store, PLAIN)
    move(store, "hours", "champion", models[0], reason="gate passed", actor="user:ana")
    for words in (("promote", "--to", "prod"), ("approve", "--to", "prod"), ("approve", "--list")):
        done = yard(*words)
        assert "error[stages-not-declared]" in done.stderr, done
        assert "deploy: {stages: {dev: {}, prod: {approvals: 1}}}" in done.stderr
        assert ("`prod` names no stage: none are declared" in done.stderr) == ("prod" in words)
        assert "--list` names" not in done.stderr
    assert "`modelyard.yaml` declares no stages" in done.stderr
    assert list(store.ledger.events(kinds=("stages.declared",))) == []


def test_two_models_with_a_stage_of_one_name(
    yard: Yard, store: LocalStore, models: list[ModelVersion], make: Callable[..., ModelVersion]
) -> None:
    ran(store, models[0])
    declare(store, "days", {"dev": Stage(), "prod": Stage()}, actor="user:ana")
    # There is no file that says which is meant.
    done = yard("promote", "--to", "prod")
    assert "error[stage-unclear]" in done.stderr
    assert "hours-prod, days-prod" in done.stderr
    written(store)
    assert "`hours-staging` has no champion" in yard("promote", "--to", "prod").stderr
    assert "days" not in yard("approve", "--list").stdout


def test_a_rollout_tries_in_its_stage(yard: Yard, store: LocalStore, models: list[ModelVersion]) -> None:
    written(store, f"{PLAIN}deploy: {{stages: {{dev: {{}}, prod: {{rollout: {{canary: 10%}}}}}}}}\n")
    declare(store, "hours", {"dev": Stage(), "prod": Stage()}, actor="user:ana")
    for model in models[:2]:
        move(store, "hours-dev", "champion", model, reason="gate passed", actor="user:ana")
        done = yard("promote", "--to", "prod")
        assert done.returncode == 0, done.stderr
    # The first has nobody beside whom it could be tried.
    assert pointed(store, "hours-prod").model == models[0]
    assert pointed(store, "hours-prod", "challenger").model == models[1]
    assert "`modelyard promote challenger --to prod` ends the trial" in done.stderr
    listed = yard("approve", "--list").stdout
    assert f"prod   hours-prod  {short(models[0].digest)}, {short(models[1].digest)} on trial" in listed
    assert "modelyard promote" not in listed
    assert yard("promote", "--to", "prod").stdout == f"hours-prod/challenger is {short(models[1].digest)} already\n"
    assert yard("promote", "challenger", "--to", "prod").returncode == 0
    assert pointed(store, "hours-prod").model == models[1]
    assert yard("promote", models[0].digest, "--to", "dev", "--alias", "champion").returncode == 0
    assert yard("promote", "--to", "prod", "--alias", "champion").returncode == 0
    assert pointed(store, "hours-prod").model == models[0]


def test_the_champion_with_another_card_is_not_tried_beside_itself(
    yard: Yard, store: LocalStore, models: list[ModelVersion], make: Callable[..., ModelVersion]
) -> None:
    written(store, f"{PLAIN}deploy: {{stages: {{dev: {{}}, prod: {{rollout: {{canary: 10%}}}}}}}}\n")
    declare(store, "hours", {"dev": Stage(), "prod": Stage()}, actor="user:ana")
    for model in (models[0], make(1.0, card=b'{"ethics": "thought about"}')):
        move(store, "hours-dev", "champion", model, reason="gate passed", actor="user:ana")
        assert yard("promote", "--to", "prod").stdout.startswith("hours-prod/champion -> ")


def test_by_a_file_that_is_wrong_nothing_enters_a_stage(
    people: dict[str, Yard], store: LocalStore, models: list[ModelVersion]
) -> None:
    written(store, FILE.replace("approvals: 2", "approval: 3"))
    yes(store, models[0], "staging", "bob")
    # What it said before may be less than what somebody means to ask for.
    assert "error[spec-unknown-field]" in people["ana"]("promote", "--to", "staging").stderr
    assert store.ledger.alias("hours-staging", "champion") is None


def test_a_test_of_two_versions_is_that_of_a_stage(yard: Yard, store: LocalStore, models: list[ModelVersion]) -> None:
    written(store, f"{PLAIN}deploy: {{stages: {{dev: {{}}, prod: {{rollout: {{ab: {{share: 50%}}}}}}}}}}\n")
    declare(store, "hours", {"dev": Stage(), "prod": Stage()}, actor="user:ana")
    for model in models[:2]:
        move(store, "hours-dev", "champion", model, reason="gate passed", actor="user:ana")
        assert yard("promote", "--to", "prod").returncode == 0
    assert "no A/B test is declared for `hours-dev`" in yard("ab").stderr
    # It is on trial; no request was logged yet.
    assert "no requests are logged for endpoint `hours-prod`" in yard("ab", "prod").stderr


# -- other processes


def begin(root: Path, *words: str) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-P", "-m", "modelyard", *words]
    return subprocess.Popen(line, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_of_two_who_promote_at_once_one_does(people: dict[str, Yard], store: LocalStore, models: list[Any]) -> None:
    yes(store, models[0], "staging", "bob")
    both = [begin(store.root, "promote", "--to", "staging") for _ in range(2)]
    said = [process.communicate(timeout=60) for process in both]
    moves = [d for d in store.ledger.aliases("hours-staging") if d.alias == "champion"]
    assert len(moves) == 1, said
    # The other one comes later, or is told who is at it.
    assert {process.returncode for process in both} <= {0, 4}, said
    assert champions(store)["staging"] == short(models[0].digest)


@pytest.mark.thorough
def test_killed_on_the_way_leaves_what_was_or_what_is_wanted(
    people: dict[str, Yard], store: LocalStore, models: list[ModelVersion]
) -> None:
    through(store, models[0])
    for at, model in enumerate([models[1], models[2], models[0], models[1]]):
        was = pointed(store, "hours-staging").model
        move(store, "hours-dev", "champion", model, reason="gate passed", actor="user:ana")
        yes(store, model, "staging", "bob")
        process = begin(store.root, "promote", "--to", "staging")
        time.sleep(0.1 + 0.2 * at)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        assert store.ledger.verify() == []
        assert pointed(store, "hours-staging").model in (was, model)
        done = people["ana"]("promote", "--to", "staging")
        assert done.returncode == 0, done.stderr
        assert pointed(store, "hours-staging").model == model


def test_what_a_stage_comes_from_does_not_move_meanwhile(store: LocalStore, models: list[ModelVersion]) -> None:
    ran(store, models[0])
    yes(store, models[0], "staging", "bob")
    with (
        open_store(store.root) as other,
        other.hold("alias.hours-dev", who={"actor": "user:eve"}),
        pytest.raises(ModelyardError, match=r"alias\.hours-dev"),
    ):
        into(store, models[0], "staging")
    assert store.ledger.alias("hours-staging", "champion") is None


def test_nobody_approves_while_a_stage_moves(store: LocalStore, models: list[ModelVersion]) -> None:
    ran(store, models[0])
    yes(store, models[0], "staging", "eve")
    with open_store(store.root) as other, other.hold("alias.hours-staging", who={"actor": "user:eve"}):
        refused(lambda: yes(store, models[0], "staging", "bob"), "store-held")
        refused(lambda: unapprove(store, stage(store, "staging"), models[0], actor="user:eve"), "store-held")


@pytest.mark.cluster
def test_machines_that_share_a_store_share_the_gate(tmp_path: Path, postgres_address: str) -> None:
    address = f"{postgres_address}?schema=stages&files={tmp_path}/team"
    boxes = [tmp_path / "one", tmp_path / "other"]
    for box in boxes:
        box.mkdir()
    with open_store(boxes[0], address) as one, open_store(boxes[1], address) as other:
        model = keep(one, 1.0)  # type: ignore[arg-type]
        ran(one, model)  # type: ignore[arg-type]
        refused(lambda: move(other, "hours-staging", "champion", model, actor="user:eve"), "approvals-missing")
        approve(other, named(stages_of(other), "staging"), model, actor="user:bob")
        with other.hold("alias.hours-dev", who={"actor": "user:eve"}), pytest.raises(ModelyardError, match="hours-dev"):
            move(one, "hours-staging", "champion", model, actor="user:ana")
        move(one, "hours-staging", "champion", model, actor="user:ana")
        assert pointed(other, "hours-staging").reason == "promoted from dev by user:ana, approved by user:bob"
        assert other.ledger.verify() == []
