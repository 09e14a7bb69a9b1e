"""What a model needs to enter a stage, by what the ledger says: the one gate that every move of an alias passes.

The declaration says which stages there are. What it says is written down (`stages.declared`) by whoever runs, approves
or promotes with it, and the gate goes by what stands there: so it is the same for every command, every machine and
every file of the folder, and a rule that was changed has a time and an actor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from modelyard._kit.digest import short
from modelyard._kit.errors import NotFound, Refused, UserError
from modelyard._kit.text import plural
from modelyard.deploy.approvals import Approval, approvals, every, listed
from modelyard.deploy.stages import Stage, endpoint_at
from modelyard.records import Deployment, Draft, ModelVersion
from modelyard.store.base import Store

__all__ = [
    "Admission",
    "DeclaredStage",
    "Standing",
    "admit",
    "arrive",
    "awaited",
    "counting",
    "declare",
    "may_come",
    "named",
    "stages_of",
    "standing",
    "tried",
    "undeclared",
]


class DeclaredStage(msgspec.Struct, frozen=True, kw_only=True):
    """A stage as it was declared last.

    Attributes:
        name: Its name.
        endpoint: The endpoint that it is.
        model: Name of the model whose stage it is.
        approvals: How many persons have to approve a model before it enters.
        four_eyes: The approval of the one who promotes does not count.
        before: Name of the stage before; empty: it is the first.
        before_endpoint: The endpoint that the stage before is.
    """

    name: str
    endpoint: str
    model: str
    approvals: int = 0
    four_eyes: bool = False
    before: str = ""
    before_endpoint: str = ""


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """What let a model into a stage, for the record.

    Attributes:
        stage: Name of the stage.
        before: Name of the stage that it came from.
        approvals: How many were asked for.
        approved: Who had approved it.
    """

    stage: str
    before: str
    approvals: int
    approved: tuple[str, ...]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A stage, what answers there, and what would come next.

    Attributes:
        stage: Its name.
        endpoint: The endpoint that it is.
        model: Name of the model whose stage it is.
        approvals: How many persons have to approve a model before it enters.
        four_eyes: The approval of the one who promotes does not count.
        champion: Digest of what answers there; empty: nothing yet.
        challenger: Digest of what is tried beside it; empty: nothing is.
        next: Digest of the champion of the stage before, where that is not in this one; empty: nothing waits.
        approved: Who has approved that one.
        missing: How many approvals it lacks, whoever promotes.
    """

    stage: str
    endpoint: str
    model: str
    approvals: int = 0
    four_eyes: bool = False
    champion: str = ""
    challenger: str = ""
    next: str = ""
    approved: tuple[Approval, ...] = ()
    missing: int = 0

    @property
    def then(self) -> str:
        """What a person types to bring in what waits; empty where nothing does."""
        return f"modelyard {'approve' if self.missing else 'promote'} --to {self.stage}" if self.next else ""


def declare(store: Store, model: str, stages: Mapping[str, Stage], *, file: str = "", actor: str) -> bool:
    """Write down which stages a model has, if that is news.

    Args:
        store: Where the ledger is.
        model: Name of the model.
        stages: What the file says, lowest first; without any nothing is written: a file that knows of no stages takes
            nobody's away.
        file: Name of the file.
        actor: Who has this file.

    Returns:
        Whether it was news.

    Raises:
        Refused: A stage would be an endpoint that another model has, or the model's own endpoint is a stage of another
            one (`stage-taken`).
    """
    known = stages_of(store)
    if not stages and (stage := known.get(model)) is not None:
        raise Refused(
            "stage-taken",
            f"`{model}` is the stage `{stage.name}` of `{stage.model}`, so no other model answers there",
            hint="give this one another name with `deploy.endpoint`",
        )
    told: list[dict[str, Any]] = [
        {
            "name": name,
            "endpoint": endpoint_at(model, name),
            "approvals": stage.approvals,
            "four_eyes": stage.four_eyes,
        }
        for name, stage in stages.items()
    ]
    if not told or _newest(store).get(model) == told:
        return False
    others = {endpoint: stage.model for endpoint, stage in known.items()}
    for one in told:
        endpoint = one["endpoint"]
        champion = store.ledger.alias(endpoint, "champion")
        whose = others.get(endpoint) or (champion.model.name if champion is not None else model)
        if whose != model:
            raise Refused(
                "stage-taken",
                f"the stage `{one['name']}` of `{model}` would be the endpoint `{endpoint}`, which `{whose}` has",
                hint="give the stage or, with `deploy.endpoint`, the model another name",
            )
    payload = {"model": model, "stages": told, "file": file}
    store.ledger.append(Draft(kind="stages.declared", actor=actor, payload=payload), durable=True)
    return True


def _newest(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Return what was declared last for each model."""
    events = store.ledger.events(kinds=("stages.declared",))
    return {event.payload["model"]: event.payload["stages"] for event in events}


def stages_of(store: Store) -> dict[str, DeclaredStage]:
    """Return every stage by its endpoint; those of a model lowest first."""
    found: dict[str, DeclaredStage] = {}
    for model, told in _newest(store).items():
        before = {"name": "", "endpoint": ""}
        for one in told:
            stage = DeclaredStage(**one, model=model, before=before["name"], before_endpoint=before["endpoint"])
            found[stage.endpoint] = stage
            before = one
    return found


def undeclared(message: str) -> UserError:
    """Return the error for a project without stages (`stages-not-declared`), and how they are declared."""
    hint = "declare them, lowest first: deploy: {stages: {dev: {}, prod: {approvals: 1}}}"
    return UserError("stages-not-declared", message, hint=hint)


def named(stages: Mapping[str, DeclaredStage], name: str) -> DeclaredStage:
    """Return the stage of this name, or that is the endpoint of this name.

    Raises:
        UserError: There are no stages (`stages-not-declared`), or several of this name (`stage-unclear`).
        NotFound: There is none of this name (`stage-not-found`).
    """
    if not stages:
        raise undeclared(f"`{name}` names no stage: none are declared")
    if name in stages:
        return stages[name]
    found = [stage for stage in stages.values() if stage.name == name]
    if not found:
        raise NotFound.of("stage", name, {stage.name for stage in stages.values()})
    if len(found) > 1:
        names = ", ".join(stage.endpoint for stage in found)
        raise UserError("stage-unclear", f"several models have a stage `{name}`", hint=f"name one: {names}")
    return found[0]


def admit(store: Store, endpoint: str, model: ModelVersion, *, actor: str) -> Admission | None:
    """Say what lets a model into a stage; whoever asks holds the aliases of the stage and of the one before.

    Args:
        store: Where the ledger is.
        endpoint: Where an alias is to point at it.
        model: The version.
        actor: Who moves the alias.

    Returns:
        None where nothing is asked for: the endpoint is no stage, or it is the first.

    Raises:
        Refused: The stage is one of another model (`stage-other-model`), the model is not the champion of the stage
            before (`stage-skipped`), or approvals are missing (`approvals-missing`).
    """
    stage = _stage_of(store, endpoint, model)
    if stage is None or not stage.before:
        return None
    may_come(store, stage, model)
    given = approvals(store, endpoint, model)
    count = counting(stage, given, actor)
    if len(count) < stage.approvals:
        raise _missing(stage, model, given, count, actor)
    return Admission(
        stage=stage.name, before=stage.before, approvals=stage.approvals, approved=tuple(one.actor for one in given)
    )


def arrive(store: Store, endpoint: str, model: ModelVersion) -> None:
    """Refuse a model that a run, or a step of one's own, would put into a stage other than the first.

    Raises:
        Refused: Only a person promotes into this stage (`stage-by-run`), or it is one of another model
            (`stage-other-model`).
    """
    stage = _stage_of(store, endpoint, model)
    if stage is not None and stage.before:
        raise Refused(
            "stage-by-run",
            f"no run puts a model into the stage `{stage.name}`: it comes from `{stage.before}`, by a person",
            hint=f"`modelyard promote --to {stage.name}`",
        )


def _stage_of(store: Store, endpoint: str, model: ModelVersion) -> DeclaredStage | None:
    stage = stages_of(store).get(endpoint)
    if stage is not None and model.name != stage.model:
        raise Refused(
            "stage-other-model",
            f"`{endpoint}` is the stage `{stage.name}` of `{stage.model}`, and model `{short(model.digest)}` was made "
            f"for `{model.name}`",
            hint="give that one's endpoint another name with `deploy.endpoint`",
        )
    return stage


def may_come(store: Store, stage: DeclaredStage, model: ModelVersion) -> None:
    """Refuse a model that has not come so far: approvals aside, only the stage before leads into a stage.

    A challenger on trial in the stage came from there when it was named; by the end of it that may have moved on.

    Raises:
        Refused: It is not the champion of the stage before (`stage-skipped`).
    """
    now = store.ledger.alias(stage.before_endpoint, "champion")
    there = (now, store.ledger.alias(stage.endpoint, "champion"), tried(store, stage.endpoint))
    if any(to is not None and to.model.identity == model.identity for to in there):
        return
    digest = short(model.digest)
    if now is None:
        why = f"`{stage.before}` has no champion yet"
    elif now.model.digest == model.digest:
        why = f"`{stage.before}` has it with another card"
    else:
        why = f"the champion of `{stage.before}` is `{short(now.model.digest)}`"
    raise Refused(
        "stage-skipped",
        f"model `{digest}` comes into `{stage.name}` by `{stage.before}` alone, and {why}",
        hint=f"`modelyard promote {digest} --to {stage.before}` first; `modelyard approve --list` shows every stage",
    )


def tried(store: Store, endpoint: str) -> Deployment | None:
    """Return the challenger that is on trial at an endpoint; none where its trial is over.

    It goes on pointing at what was tried, which by then is the champion, or was named for another one. So servers
    decide it as well.
    """
    moves = store.ledger.aliases(endpoint)
    newest = {move.alias: at for at, move in enumerate(moves)}
    if "challenger" not in newest:
        return None
    found = moves[newest["challenger"]]
    if "champion" in newest and (
        newest["champion"] > newest["challenger"] or moves[newest["champion"]].model.digest == found.model.digest
    ):
        return None
    return found


def counting(stage: DeclaredStage, given: tuple[Approval, ...], actor: str) -> tuple[Approval, ...]:
    """Return the approvals that count when this person promotes."""
    return tuple(one for one in given if not (stage.four_eyes and one.actor == actor))


def _missing(
    stage: DeclaredStage, model: ModelVersion, given: tuple[Approval, ...], count: tuple[Approval, ...], actor: str
) -> Refused:
    digest, lacks = short(model.digest), stage.approvals - len(count)
    command = f"`modelyard approve {digest} --to {stage.name}`"
    if len(given) >= stage.approvals:
        hint = f"somebody who has not approved it may promote it, or one more person approves it: {command}"
    else:
        more = "one more person has" if lacks == 1 else f"{lacks} more persons have"
        hint = f"{more} to say so: {command}"
    has = f"it has {len(given)}, of {listed(given)}" if given else "it has none"
    if len(count) < len(given):
        has += f"; that of {actor}, who promotes, does not count"
    return Refused(
        "approvals-missing",
        f"model `{digest}` needs {plural(stage.approvals, 'approval')} to enter `{stage.name}`, and {has}",
        hint=hint,
    )


def awaited(store: Store, endpoint: str) -> str:
    """Return what a person types to take the champion of a stage on; empty where there is nothing to do.

    Args:
        store: Where the ledger is.
        endpoint: The endpoint that the stage is.
    """
    after = next((stage for stage in stages_of(store).values() if stage.before_endpoint == endpoint), None)
    return "" if after is None else _standing(store, after, every(store)).then


def standing(store: Store) -> tuple[Standing, ...]:
    """Return how every stage stands; those of a model lowest first."""
    stages = stages_of(store)
    # Few have any, and each look goes through all events.
    given = every(store) if stages else {}
    return tuple(_standing(store, stage, given) for stage in stages.values())


def _standing(store: Store, stage: DeclaredStage, approved: Mapping[tuple[str, str], tuple[Approval, ...]]) -> Standing:
    now = store.ledger.alias(stage.endpoint, "champion")
    challenger = tried(store, stage.endpoint)
    comes = store.ledger.alias(stage.before_endpoint, "champion") if stage.before else None
    if comes is not None and any(
        to is not None and comes.model.identity == to.model.identity for to in (now, challenger)
    ):
        comes = None
    given = approved.get((stage.endpoint, comes.model.identity), ()) if comes is not None else ()
    return Standing(
        stage=stage.name,
        endpoint=stage.endpoint,
        model=stage.model,
        approvals=stage.approvals,
        four_eyes=stage.four_eyes,
        champion=now.model.digest if now is not None else "",
        challenger=challenger.model.digest if challenger is not None else "",
        next=comes.model.digest if comes is not None else "",
        approved=given,
        missing=max(0, stage.approvals - len(given)) if comes is not None else 0,
    )
