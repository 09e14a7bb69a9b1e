"""Aliases move to models with a card, back again, and leave a trace."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable

import msgspec
import pytest

from modelyard._kit.digest import short
from modelyard._kit.errors import Busy, NotFound, Refused, Tampered, UserError
from modelyard.deploy.aliases import endpoint_of, find_model, move, pointed, released, rollback, settle, withdraw
from modelyard.deploy.steps import promote
from modelyard.inference import open_bundle
from modelyard.records import Deployment, Draft, ModelVersion, plain
from modelyard.store import LocalStore


def champion(store: LocalStore, model: ModelVersion, **changes: str) -> Deployment:
    return move(store, "hours", "champion", model, **{"reason": "test", "actor": "user:ana", **changes})


def test_move_records_who_why_and_what_was_before(store: LocalStore, models: list[ModelVersion]) -> None:
    first, second = champion(store, models[0]), champion(store, models[1], reason="better")
    assert (first.revision, first.previous) == (1, "")
    assert (second.revision, second.previous, second.reason) == (2, models[0].digest, "better")
    assert store.ledger.alias("hours", "champion") == second
    (_, event) = store.ledger.events(kinds=("alias.moved",))
    assert event.actor == "user:ana"
    assert pointed(store, "hours") == second
    assert store.ledger.verify() == []


def test_moving_to_where_it_points_writes_nothing(store: LocalStore, models: list[ModelVersion]) -> None:
    first = champion(store, models[0])
    head = store.ledger.head()
    assert champion(store, models[0]) == first
    assert store.ledger.head() == head


def test_aliases_and_endpoints_are_apart(store: LocalStore, models: list[ModelVersion]) -> None:
    champion(store, models[0])
    challenger = move(store, "hours", "challenger", models[1], reason="try", actor="user:ana")
    assert challenger.revision == 1
    assert pointed(store, "hours").model == models[0]
    assert pointed(store, "hours", "challenger").model == models[1]
    assert endpoint_of(store) == "hours"
    move(store, "days", "champion", models[2], reason="", actor="user:ana")
    with pytest.raises(UserError, match=r"endpoint-unclear(.|\n)*days, hours"):
        endpoint_of(store)
    assert endpoint_of(store, "days") == "days"
    with pytest.raises(NotFound, match="did you mean `hours`"):
        endpoint_of(store, "hour")


def test_who_asks_for_an_alias_that_is_not_there_is_told_which_is_and_how_one_is_made(
    store: LocalStore, models: list[ModelVersion]
) -> None:
    champion(store, models[0])
    with pytest.raises(NotFound, match="`hours` has no challenger yet") as caught:
        pointed(store, "hours", "challenger")
    hint = caught.value.problem.hint
    assert f"its champion is {short(models[0].digest)}" in hint
    assert "modelyard promote MODEL --alias challenger" in hint
    assert "deploy: {rollout:" in hint
    assert "modelyard run" not in hint

    move(store, "days", "challenger", models[1], reason="try", actor="user:ana")
    with pytest.raises(NotFound, match="`days` has no champion yet") as caught:
        pointed(store, "days")
    assert f"its challenger is {short(models[1].digest)}" in caught.value.problem.hint
    assert "modelyard run" in caught.value.problem.hint
    # That another endpoint has one makes this endpoint no unknown one.
    with pytest.raises(NotFound, match="alias-not-found"):
        pointed(store, "hours", "challenger")
    with pytest.raises(NotFound, match="endpoint-not-found"):
        pointed(store, "hour", "challenger")


def test_model_without_a_card_is_refused(
    store: LocalStore, models: list[ModelVersion], make: Callable[..., ModelVersion]
) -> None:
    bare = make(4.0, released=False)
    for attempt in (
        lambda: champion(store, bare),
        lambda: promote(model=bare, endpoint="hours", state={"unkeyed": None}),
    ):
        with pytest.raises(Refused) as caught:
            attempt()
        assert (caught.value.code, caught.value.exit_code) == ("no-card", 1)
    assert store.ledger.alias("hours", "champion") is None
    assert bare not in released(store)
    assert released(store) == models[::-1]


def test_changed_bundle_is_not_promoted(store: LocalStore, models: list[ModelVersion]) -> None:
    path = store.blobs.folder(models[0].address) / "model.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.parent.chmod(0o755)
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(Tampered, match=r"model\.onnx"):
        champion(store, models[0])
    assert store.ledger.alias("hours", "champion") is None


def test_rollback_goes_to_the_one_before_and_returns(store: LocalStore, models: list[ModelVersion]) -> None:
    for model in models:
        champion(store, model)
    back = rollback(store, "hours", actor="user:ana")
    assert (back.model, back.revision, back.previous) == (models[1], 4, models[2].digest)
    assert back.reason == "rollback by user:ana"
    assert rollback(store, "hours", actor="user:ana").model == models[2]
    assert rollback(store, "hours", actor="user:ana", to=models[0].digest[:8]).model == models[0]
    assert [d.revision for d in store.ledger.aliases("hours")] == [1, 2, 3, 4, 5, 6]
    assert store.ledger.verify() == []


def test_rollback_with_nothing_before_is_refused(store: LocalStore, models: list[ModelVersion]) -> None:
    with pytest.raises(NotFound, match="alias-not-found"):
        rollback(store, "hours", actor="user:ana")
    champion(store, models[0])
    with pytest.raises(Refused, match="no-previous"):
        rollback(store, "hours", actor="user:ana")
    champion(store, models[1])
    with pytest.raises(NotFound, match="model-not-found"):
        rollback(store, "hours", actor="user:ana", to=models[2].digest)


def test_a_new_card_of_the_same_model_keeps_what_was_before(
    store: LocalStore, models: list[ModelVersion], make: Callable[..., ModelVersion]
) -> None:
    champion(store, models[0])
    champion(store, models[1])
    again = make(2.0, card=b'{"ethics": "thought about"}')
    assert again.digest == models[1].digest
    assert again.address != models[1].address
    then = champion(store, again)
    assert (then.revision, then.previous) == (3, models[0].digest)
    assert rollback(store, "hours", actor="user:ana").model == models[0]


def test_two_movers_at_once_do_not_share_a_revision(store: LocalStore, models: list[ModelVersion]) -> None:
    with store.hold("alias.hours", who={"actor": "user:bob"}), pytest.raises(Busy):
        champion(store, models[0])
    assert champion(store, models[0]).revision == 1


def settled(store: LocalStore, deployment: Deployment) -> Deployment | None:
    """Write a step's deployment as a run does."""
    with settle(store, deployment) as then:
        if then is not None:
            draft = Draft(kind="alias.moved", run="run-1", actor="user:ana", payload={"deployment": plain(then)})
            store.ledger.append(draft, durable=True)
    return then


def test_a_runs_deployment_comes_after_what_a_person_did_meanwhile(
    store: LocalStore, models: list[ModelVersion]
) -> None:
    first = champion(store, models[0])
    returned = promote(model=models[1], endpoint="hours", state={"unkeyed": plain(first)})
    champion(store, models[2], reason="by hand")
    then = settled(store, returned)
    assert then is not None
    assert (then.revision, then.previous, then.reason) == (3, models[2].digest, "gate passed")
    assert [d.revision for d in store.ledger.aliases("hours")] == [1, 2, 3]
    assert rollback(store, "hours", actor="user:ana").model == models[2]


def test_a_deployment_of_what_is_served_already_is_not_written(store: LocalStore, models: list[ModelVersion]) -> None:
    first = champion(store, models[0])
    returned = promote(model=models[0], endpoint="hours", state={"unkeyed": plain(first)})
    head = store.ledger.head()
    assert settled(store, returned) is None
    # A person promoted the same model while the run went on.
    returned = promote(model=models[1], endpoint="hours", state={"unkeyed": plain(first)})
    champion(store, models[1])
    assert settled(store, returned) is None
    assert len(store.ledger.aliases("hours")) == 2
    assert store.ledger.head() != head


def test_the_alias_is_held_while_a_runs_deployment_is_written(store: LocalStore, models: list[ModelVersion]) -> None:
    returned = promote(model=models[0], endpoint="hours", state={"unkeyed": None})
    with settle(store, returned), pytest.raises(Busy):
        champion(store, models[1])
    holds, let_go = threading.Event(), threading.Event()

    def somebody() -> None:
        with store.hold("alias.hours", who={"actor": "user:bob"}):
            holds.set()
            let_go.wait(5)

    mover = threading.Thread(target=somebody)
    mover.start()
    assert holds.wait(5)
    with pytest.raises(Busy), settle(store, returned, seconds=0):
        pass
    threading.Timer(0.1, let_go.set).start()
    then = settled(store, returned)
    mover.join()
    assert then is not None
    assert then.revision == 1
    # What goes wrong while it is held is not taken for a lock that somebody else has.
    with pytest.raises(Busy, match="other"), settle(store, returned):
        raise Busy("other", "other")


def test_a_model_is_tried_again_once_the_champion_has_moved(store: LocalStore, models: list[ModelVersion]) -> None:
    for alias, model in (("champion", models[0]), ("challenger", models[1]), ("champion", models[1])):
        move(store, "hours", alias, model, actor="user:ana")
    rollback(store, "hours", actor="user:ana")
    # A server tries what was named after the champion moved, so "already" would be said of no trial at all.
    again = move(store, "hours", "challenger", models[1], actor="user:ana")
    assert (again.model, again.revision, again.reason) == (models[1], 2, "promoted by user:ana")
    assert move(store, "hours", "challenger", models[1], actor="user:ana") == again
    # A run that makes the same model once more has nothing to say of it.
    assert settled(store, again) is None
    assert withdraw(store, "hours", actor="user:ana").model == models[0]
    # The champion itself is tried by nobody.
    move(store, "hours", "champion", models[1], actor="user:ana")
    rollback(store, "hours", actor="user:ana")
    assert move(store, "hours", "challenger", models[0], actor="user:ana").revision == 3


def test_models_are_found_by_their_first_digits(store: LocalStore, models: list[ModelVersion]) -> None:
    assert find_model(store, models[1].digest[:12]) == models[1]
    with pytest.raises(NotFound, match="there is: "):
        find_model(store, "zzzz")
    with pytest.raises(UserError, match="model-unclear"):
        find_model(store, "")


def test_step_takes_a_version_or_an_opened_bundle(store: LocalStore, models: list[ModelVersion]) -> None:
    bundle = open_bundle(store.blobs.folder(models[0].address), version=models[0])
    first = promote(model=bundle, endpoint="hours", alias="champion", state={"unkeyed": None})
    assert (first.model, first.revision, first.reason) == (models[0], 1, "gate passed")
    second = promote(model=models[1], endpoint="hours", state={"unkeyed": plain(first)})
    assert (second.revision, second.previous) == (2, models[0].digest)
    # A promotion that is made once more, after a crash say, is the same promotion.
    assert promote(model=models[1], endpoint="hours", state={"unkeyed": plain(second)}) == second
    moved = msgspec.structs.replace(models[1], address="elsewhere")
    assert promote(model=moved, endpoint="hours", state={"unkeyed": plain(second)}).previous == models[0].digest


def test_rolling_back_to_where_it_points_says_so(
    store: LocalStore, models: list[ModelVersion], yard: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    champion(store, models[0])
    now, head = champion(store, models[1]), store.ledger.head()
    done = yard("rollback", "--to", now.model.digest[:12], "--reason", "again")
    assert (done.returncode, done.stdout) == (0, f"hours/champion is {short(now.model.digest)} already\n")
    assert store.ledger.head() == head


def test_without_a_champion_the_card_is_named_as_what_may_be_missing(store: LocalStore) -> None:
    with pytest.raises(NotFound) as caught:
        endpoint_of(store)
    assert "nothing is missing in the card" in caught.value.problem.hint
    assert "`modelyard runs`" in caught.value.problem.hint
