"""Approve that a model enters a stage, and take that back."""

from __future__ import annotations

from modelyard._kit.digest import short
from modelyard._kit.errors import NotFound, Refused
from modelyard.deploy.approvals import approvals, drafted, listed
from modelyard.deploy.promotion import DeclaredStage, may_come
from modelyard.records import ModelVersion
from modelyard.store.base import Store

__all__ = ["approve", "asking", "unapprove"]


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
        now = store.ledger.alias(stage.endpoint, "champion")
        if now is not None and now.model.identity == model.identity:
            raise Refused(
                "approval-nothing",
                f"model `{digest}` is the champion of `{stage.name}` already",
                hint=f"the next one to approve is the next champion of `{stage.before}`: `modelyard approve --list`",
            )
        may_come(store, stage, model)
        given = approvals(store, stage.endpoint, model)
        if any(one.actor == actor for one in given):
            raise Refused(
                "approved-already",
                f"{actor} has approved model `{digest}` for `{stage.name}` already; a person counts once",
                hint=f"it has {len(given)} of {stage.approvals}, of {listed(given)}; "
                "`modelyard approve --withdraw` takes yours back",
            )
        draft = drafted("model.approved", stage.endpoint, stage.name, model, actor=actor, reason=reason)
        store.ledger.append(draft, durable=True)


def unapprove(store: Store, stage: DeclaredStage, model: ModelVersion, *, actor: str, reason: str = "") -> None:
    """Take the approval of a person back. What entered the stage by it stays there: `rollback` takes it out.

    Args:
        store: Where the ledger is.
        stage: The stage.
        model: The version, with its card.
        actor: Who had approved it.
        reason: Why, for the record.

    Raises:
        NotFound: This person has not approved it (`approval-not-found`).
        Busy: Somebody else moves an alias of this stage.
    """
    with store.hold(f"alias.{stage.endpoint}", who={"actor": actor}):
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
