"""Approve that a model enters a stage, and take that back."""

from __future__ import annotations

from modelyard._kit.digest import short
from modelyard._kit.errors import NotFound, Refused
from modelyard.deploy.aliases import find_model, pointed
from modelyard.deploy.approvals import approvals, drafted, listed
from modelyard.deploy.promotion import DeclaredStage, may_come
from modelyard.records import ModelVersion
from modelyard.store.base import Store

__all__ = ["approve", "asking", "model_for", "unapprove"]


def model_for(store: Store, stage: DeclaredStage, digits: str) -> ModelVersion:
    """Return the model that a person means for a stage, with the card that it has where it comes from, or is tried.

    Args:
        store: Where models are.
        stage: The stage, not the first one if no digits are given.
        digits: First digits of its digest; empty: the champion of the stage before.

    Raises:
        NotFound: There is none (`model-not-found`), or the stage before has no champion (`alias-not-found`).
        UserError: Several models begin so (`model-unclear`).
    """
    if not digits:
        return pointed(store, stage.before_endpoint).model
    model = find_model(store, digits)
    there = [store.ledger.alias(stage.endpoint, "challenger"), store.ledger.alias(stage.endpoint, "champion")]
    if stage.before:
        there.insert(0, store.ledger.alias(stage.before_endpoint, "champion"))
    return next((to.model for to in there if to is not None and to.model.digest == model.digest), model)


def asking(stage: DeclaredStage) -> None:
    """Refuse to approve what nobody has asked for.

    Raises:
        Refused: The stage asks for no approval (`approval-not-needed`).
    """
    if stage.before and stage.approvals:
        return
    if stage.before:
        what, model, more = f"takes every champion of `{stage.before}`", "", f"deploy.stages.{stage.name}.approvals"
        more = f"; with `{more}: 1` it would ask for one"
    else:
        what, model, more = "is the first stage and takes what `modelyard run` makes", "MODEL ", ""
    raise Refused(
        "approval-not-needed",
        f"`{stage.name}` asks for no approval: it {what}",
        hint=f"`modelyard promote {model}--to {stage.name}` puts a model there{more}",
    )


def approve(store: Store, stage: DeclaredStage, model: ModelVersion, *, actor: str, reason: str = "") -> None:
    """Write down that a person approves a model.

    Args:
        store: Where the ledger is.
        stage: The stage that it is to enter.
        model: The version, with its card.
        actor: Who approves it.
        reason: Why, for the record.

    Raises:
        Refused: The stage asks for no approval (`approval-not-needed`), the model answers there already
            (`approval-nothing`), has not come so far (`stage-skipped`), or this person has approved it
            (`approved-already`).
        Busy: Somebody else moves an alias of this stage.
    """
    asking(stage)
    digest = short(model.digest)
    # Who holds it sees neither what is promoted meanwhile nor what is approved.
    with store.hold(f"alias.{stage.endpoint}", who={"actor": actor}):
        hint = f"the next one to approve is the next champion of `{stage.before}`: `modelyard approve --list`"
        _outside(store, stage, model, hint)
        may_come(store, stage, model)
        given = approvals(store, stage.endpoint, model)
        if any(one.actor == actor for one in given):
            raise Refused(
                "approved-already",
                f"{actor} has approved model `{digest}` for `{stage.name}` already; a person counts once",
                hint=f"it has {len(given)} of {stage.approvals}, of {listed(given)}; "
                f"`modelyard approve {digest} --to {stage.name} --withdraw` takes yours back",
            )
        draft = drafted("model.approved", stage.endpoint, stage.name, model, actor=actor, reason=reason)
        store.ledger.append(draft, durable=True)


def _outside(store: Store, stage: DeclaredStage, model: ModelVersion, hint: str) -> None:
    now = store.ledger.alias(stage.endpoint, "champion")
    if now is not None and now.model.identity == model.identity:
        message = f"model `{short(model.digest)}` is the champion of `{stage.name}` already"
        raise Refused("approval-nothing", message, hint=hint)


def unapprove(store: Store, stage: DeclaredStage, model: ModelVersion, *, actor: str, reason: str = "") -> None:
    """Take the approval of a person back. What entered the stage by it stays there: `rollback` takes it out.

    Args:
        store: Where the ledger is.
        stage: The stage.
        model: The version, with its card.
        actor: Who had approved it.
        reason: Why, for the record.

    Raises:
        Refused: The model answers there already (`approval-nothing`).
        NotFound: This person has not approved it (`approval-not-found`).
        Busy: Somebody else moves an alias of this stage.
    """
    with store.hold(f"alias.{stage.endpoint}", who={"actor": actor}):
        _outside(store, stage, model, f"`modelyard rollback {stage.name}` takes it out")
        given = approvals(store, stage.endpoint, model)
        if not any(one.actor == actor for one in given):
            by = f"it is approved by {listed(given)}" if given else "nobody has approved it"
            raise NotFound(
                "approval-not-found",
                f"{actor} has not approved model `{short(model.digest)}` for `{stage.name}`",
                hint=f"{by}; each takes back their own",
            )
        draft = drafted("model.unapproved", stage.endpoint, stage.name, model, actor=actor, reason=reason)
        store.ledger.append(draft, durable=True)
