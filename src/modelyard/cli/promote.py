"""`modelyard promote`: point an alias at a model, or take a model into the next stage."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelyard._kit.actor import user
from modelyard._kit.digest import short
from modelyard._kit.errors import NotFound, UserError
from modelyard.cli.output import data, json_line, say
from modelyard.cli.project import add_file, add_json, endpoint_in, open_existing, stages_in

if TYPE_CHECKING:
    from modelyard.deploy.promotion import DeclaredStage
    from modelyard.records import Alias, Deployment, ModelVersion
    from modelyard.spec import Spec
    from modelyard.store import Store

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "promote",
        help="point an alias at a model, or take a model into the next stage",
        description="Point the champion (or the challenger) at a model that has a card: one that passed every blocking "
        "check of its run. Its bundle's signature and bytes are checked first. A server that runs takes the "
        "champion over within a second. Where `deploy.stages` are declared, --to takes the champion of the stage "
        "before into this one, once as many persons have approved it as the stage asks for; it becomes the champion "
        "there, or with a rollout that tries it first the challenger.",
        epilog="example:\n  modelyard promote 3fa9c1d2b4e5\n  modelyard promote challenger\n"
        "  modelyard promote --to prod",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        nargs="?",
        default="",
        metavar="MODEL",
        help="first digits of its digest, or `challenger` (default, with --to: the champion of the stage before)",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--to", default="", metavar="STAGE", help="stage of `deploy.stages` that it enters")
    where.add_argument(
        "--endpoint", default="", metavar="NAME", help="default: the endpoint that the model was made for"
    )
    parser.add_argument(
        "--alias",
        choices=["champion", "challenger"],
        help="default: champion; in a stage with a champion whose rollout tries new ones, challenger",
    )
    parser.add_argument("--reason", default="", help="why, for the record")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Move the alias."""
    from modelyard.deploy.aliases import move
    from modelyard.deploy.promotion import awaited
    from modelyard.records import plain

    if not args.model and not args.to:
        hint = "for example `modelyard promote 3fa9c1d2b4e5`, or `modelyard promote --to STAGE`"
        raise UserError("cli-arguments", "`modelyard promote` needs MODEL", hint=hint)
    actor = user()
    with open_existing(args, model=True) as store:
        spec, stages = stages_in(args, store, needed=bool(args.to))
        stage = _stage(args, stages)
        if stage is not None:
            endpoint, model = stage.endpoint, _model_for(args, store, stage)
        else:
            endpoint, model = _plain(args, store, spec, stages)
        alias = args.alias or _alias(args, store, spec, stage, model)
        before = store.ledger.alias(endpoint, alias)
        now = move(store, endpoint, alias, model, reason=args.reason, actor=actor)
        champion = store.ledger.alias(endpoint, "champion")
        then = awaited(store, endpoint)
    if args.json:
        json_line(plain(now))
    elif before is not None and now.revision == before.revision:
        data(f"{now.endpoint}/{now.alias} is {short(now.model.digest)} already")
    else:
        data(f"{now.endpoint}/{now.alias} -> {now.model.family} {short(now.model.digest)} ({now.reason})")
    if stage is not None:
        _say_next(stage, now, champion, then)
    return 0


def _stage(args: argparse.Namespace, stages: Mapping[str, DeclaredStage]) -> DeclaredStage | None:
    """Return the stage that is meant, however it is named; none where no stage is."""
    from modelyard.deploy.promotion import named

    if args.to:
        return named(stages, args.to)
    names = {name for stage in stages.values() for name in (stage.name, stage.endpoint)}
    return named(stages, args.endpoint) if args.endpoint in names else None


def _model_for(args: argparse.Namespace, store: Store, stage: DeclaredStage) -> ModelVersion:
    """Return the model that is meant for a stage: by digits, that with the card that it has where it comes from."""
    from modelyard.deploy.aliases import pointed
    from modelyard.deploy.approving import model_for

    if args.model == "challenger":
        return pointed(store, stage.endpoint, "challenger").model
    if not args.model and not stage.before:
        raise UserError(
            "cli-arguments",
            f"`{stage.name}` is the first stage, so no stage before says which model",
            hint=f"`modelyard promote MODEL --to {stage.name}`; `modelyard run` puts what it makes there by itself",
        )
    return model_for(store, stage, args.model)


def _plain(
    args: argparse.Namespace, store: Store, spec: Spec | None, stages: Mapping[str, DeclaredStage]
) -> tuple[str, ModelVersion]:
    """Return endpoint and model where no stage is named."""
    from modelyard.deploy.aliases import find_model, pointed

    if args.model == "challenger":
        endpoint = endpoint_in(args, store, back=True)
        return endpoint, pointed(store, endpoint, "challenger").model
    model = find_model(store, args.model)
    endpoint = args.endpoint or model.name
    mine = [stage.name for stage in stages.values() if stage.model == model.name]
    if endpoint == model.name and mine and (spec is None or spec.stages or spec.model_name != model.name):
        raise UserError(
            "stage-unclear",
            f"`{model.name}` has stages, and a model enters one of them",
            hint=f"say which: `modelyard promote {short(model.digest)} --to {mine[0]}` (there is: {', '.join(mine)})",
        )
    # A model is named after the endpoint it was made for; any other has to be there already.
    known = {model.name, *(d.endpoint for d in store.ledger.aliases())}
    if endpoint not in known:
        raise NotFound.of("endpoint", endpoint, known)
    return endpoint, model


def _alias(
    args: argparse.Namespace, store: Store, spec: Spec | None, stage: DeclaredStage | None, model: ModelVersion
) -> Alias:
    """Return the alias that a model gets where none is named: in a stage, the same as from a run."""
    if stage is None or args.model == "challenger" or spec is None or not spec.deployed(stage.endpoint).rollout.trial:
        return "champion"
    champion = store.ledger.alias(stage.endpoint, "champion")
    return "champion" if champion is None or champion.model.digest == model.digest else "challenger"


def _say_next(stage: DeclaredStage, now: Deployment, champion: Deployment | None, then: str) -> None:
    """Say what a person does next, to get the model to its callers."""
    if now.alias == "challenger":
        if champion is not None and champion.model.digest != now.model.digest:
            stays = f"{champion.model.family} {short(champion.model.digest)} stays the champion meanwhile"
            say(f"{stays}; `modelyard promote challenger --to {stage.name}` ends the trial")
        return
    if then:
        say(f"next: {then}")
