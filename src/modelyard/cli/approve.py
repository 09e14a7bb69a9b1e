"""`modelyard approve`: say that a model may enter a stage, take that back, and see who has said so."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from modelyard._kit.actor import user
from modelyard._kit.digest import short
from modelyard._kit.errors import UserError
from modelyard._kit.text import plural
from modelyard.cli.output import data, json_line, say, table
from modelyard.cli.project import add_file, add_json, open_existing, stages_in

if TYPE_CHECKING:
    from modelyard.deploy.promotion import DeclaredStage, Standing
    from modelyard.records import ModelVersion
    from modelyard.store import Store

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "approve",
        help="say that a model may enter a stage",
        description="Say that a model, as its card describes it, may enter a stage of `deploy.stages`: one of so many "
        "persons as the stage asks for. A person is a login of this machine and counts once; a new card asks for new "
        "approvals. `--withdraw` takes yours back, as long as the model is not there; what is there goes by "
        "`modelyard rollback`. `--list` shows what answers in each stage, what waits to enter it and who has "
        "approved that.",
        epilog="example:\n  modelyard approve --list\n  modelyard approve --to prod --reason 'card read, drill passed'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        nargs="?",
        default="",
        metavar="MODEL",
        help="first digits of its digest (default: the champion of the stage before)",
    )
    parser.add_argument("--to", default="", metavar="STAGE", help="stage that it may enter")
    parser.add_argument("--reason", default="", help="why, for the record")
    parser.add_argument("--withdraw", action="store_true", help="take your approval back")
    parser.add_argument("--list", action="store_true", help="show every stage; nothing is approved")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Approve, withdraw or list."""
    from modelyard.deploy.approving import approve, asking, model_for, unapprove
    from modelyard.deploy.promotion import named, standing, tried, undeclared

    if args.list and (args.model or args.to or args.withdraw):
        raise UserError("cli-value", "`--list` shows every stage", hint="modelyard approve --list")
    if not args.list and not args.to:
        raise UserError(
            "cli-arguments", "`modelyard approve` needs --to STAGE", hint="`modelyard approve --list` shows the stages"
        )
    actor = user()
    with open_existing(args, model=True) as store:
        _, stages = stages_in(args, store, needed=True)
        if args.list:
            if not stages:
                raise undeclared(f"`{args.file}` declares no stages")
            return _list([one for one in standing(store) if one.endpoint in stages], args)
        stage = named(stages, args.to)
        asking(stage)
        model = model_for(store, stage, args.model)
        said = unapprove if args.withdraw else approve
        said(store, stage, model, actor=actor, reason=args.reason)
        given = _given(store, stage, model)
        trial = tried(store, stage.endpoint)
    if args.withdraw and trial is not None and trial.model.identity == model.identity:
        ends = f"`modelyard rollback {stage.name} --alias challenger` ends it"
        say(f"note: its trial goes on, and may make it the champion; {ends}")
    lacks = max(0, stage.approvals - len(given))
    if args.json:
        json_line(
            {
                "endpoint": stage.endpoint,
                "stage": stage.name,
                "model": model.digest,
                "identity": model.identity,
                "approvals": stage.approvals,
                "approved": given,
                "missing": lacks,
            }
        )
        return 0
    what = "is no longer approved" if args.withdraw else "is approved"
    text = f"{model.family} {short(model.digest)} {what} for {stage.name} by {actor}"
    more = f"{plural(lacks, 'approval')} missing" if lacks else f"next: modelyard promote --to {stage.name}"
    data(f"{text} ({len(given)} of {stage.approvals}); {more}")
    return 0


def _given(store: Store, stage: DeclaredStage, model: ModelVersion) -> Any:
    from modelyard.deploy.approvals import approvals

    return approvals(store, stage.endpoint, model)


def _list(stages: list[Standing], args: argparse.Namespace) -> int:
    if args.json:
        json_line(stages)
        return 0
    table(
        ("stage", "endpoint", "champion", "waits to enter", "approvals", "approved by", ""),
        [
            (
                one.stage,
                one.endpoint,
                (short(one.champion) or "none yet") + (f", {short(one.challenger)} on trial" if one.challenger else ""),
                short(one.next),
                f"{len(one.approved)} of {one.approvals}" if one.next and one.approvals else str(one.approvals),
                ", ".join(approval.actor for approval in one.approved),
                one.then,
            )
            for one in stages
        ],
    )
    return 0
