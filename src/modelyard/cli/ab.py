"""`modelyard ab`: how the A/B test of an endpoint stands."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from modelyard._kit.clock import as_text
from modelyard._kit.digest import short
from modelyard._kit.errors import NotFound, UserError
from modelyard._kit.places import log_path
from modelyard._kit.text import number
from modelyard.cli.output import data, json_line, table
from modelyard.cli.project import add_file, add_json, endpoint_in, load_spec, open_existing

if TYPE_CHECKING:
    from modelyard.checks.ab import Compared, Question
    from modelyard.records import Event, Problem
    from modelyard.spec import Spec
    from modelyard.store import Store

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "ab",
        help="how the A/B test of an endpoint stands",
        description="Compare what champion and challenger answered since the challenger was named, as "
        "`deploy.rollout.ab` declares it: the difference, an interval that holds however often you look, and the "
        "verdict once there is one. Looking changes nothing; the server decides by the same test.",
        epilog="example:\n  modelyard ab\n  modelyard ab income --json | jq .p",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("endpoint", nargs="?", default="", metavar="ENDPOINT", help="default: that of the file")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Compare once."""
    import msgspec

    from modelyard.checks.ab import Question

    spec = load_spec(args, files=False)
    if all(spec.deployed(one).rollout.ab is None for one in (*spec.stages.values(), spec.endpoint)):
        raise _undeclared(spec)
    with open_existing(args, model=True) as store:
        endpoint = endpoint_in(args, store) if args.endpoint in spec.stages else args.endpoint or spec.endpoint
        ab = spec.deployed(endpoint).rollout.ab
        if ab is None:
            raise _undeclared(spec, f" for `{endpoint}`")
        question = msgspec.convert(msgspec.to_builtins(ab), Question)
        champion, challenger = _moves(store, endpoint)
        models = tuple(_digest(event) for event in (champion, challenger))
        problem = _problem(challenger)
        ended = [e for e in store.ledger.events(kinds=("ab.finished",)) if e.payload["began"] == challenger.seq]
        found = _compared(store, endpoint, (models[0], models[1]), challenger.time, question, problem)
    verdict = ended[-1] if ended else None
    if args.json:
        written = {"decided": verdict.payload["found"] if verdict else None}
        about = {"endpoint": endpoint, "champion": models[0], "challenger": models[1], "since": challenger.time}
        json_line({**about, **msgspec.to_builtins(found), **written})
    else:
        _print(endpoint, models, challenger.time, found, question, verdict)
    return 0


def _undeclared(spec: Spec, where: str = "") -> UserError:
    hint = "declare it: deploy: {rollout: {ab: {share: 50%}}}"
    return UserError("ab-not-declared", f"no A/B test is declared{where}", where=str(spec.path), hint=hint)


def _moves(store: Store, endpoint: str) -> tuple[Event, Event]:
    """Return the moves that made the two versions what they are."""
    from modelyard.deploy.aliases import endpoint_of

    endpoint = endpoint_of(store, endpoint)
    newest: dict[str, Event] = {}
    for event in store.ledger.events(kinds=("alias.moved",)):
        if event.payload["deployment"]["endpoint"] == endpoint:
            newest[event.payload["deployment"]["alias"]] = event
    champion, challenger = newest.get("champion"), newest.get("challenger")
    on_trial = champion is not None and challenger is not None and challenger.seq > champion.seq
    if champion is None or challenger is None or not on_trial or _digest(champion) == _digest(challenger):
        raise NotFound(
            "ab-no-trial",
            f"no challenger of `{endpoint}` is on trial",
            hint="`modelyard run` names one, or `modelyard promote MODEL --alias challenger`",
        )
    return champion, challenger


def _digest(event: Event) -> str:
    return str(event.payload["deployment"]["model"]["digest"])


def _problem(event: Event) -> Problem:
    import msgspec

    from modelyard.records import Deployment

    return msgspec.convert(event.payload["deployment"], Deployment).model.signature.problem


def _compared(
    store: Store, endpoint: str, models: tuple[str, str], since: float, question: Question, problem: Problem
) -> Compared:
    from modelyard.checks.ab import compare
    from modelyard.checks.arms import Arms
    from modelyard.monitoring.window import reading

    with reading(log_path(store.root, endpoint)) as db:
        arms = Arms(models, since, question, classes=problem.classes).read(db)
    return compare(*arms, question, time.time() - since)


def _print(
    endpoint: str, models: tuple[str, ...], since: float, found: Compared, question: Question, verdict: Event | None
) -> None:
    from modelyard.checks.ab import MISMATCH

    data(f"{endpoint}: A/B test since {as_text(since)}, {question.share:.1%} for the challenger")
    data("")
    better = "more is better" if found.higher_is_better else "less is better"
    counts = zip(found.requests, found.keys, found.outcomes, found.held, found.means, strict=True)
    rows = zip(("champion", "challenger"), models, counts, strict=True)
    table(
        ("", "model", "requests", "keys", "with outcome", "held back", f"{found.metric} ({better})"),
        [
            (
                name,
                short(model),
                number(asked),
                number(keys),
                number(known),
                "" if held is None else f"{held:.1%}",
                number(mean),
            )
            for name, model, (asked, keys, known, held, mean) in rows
        ],
        right=(2, 3, 4, 5, 6),
    )
    data("")
    if found.low is not None and found.high is not None:
        span = f"{number(found.low)} to {number(found.high)}"
        data(f"difference {number(found.difference)} ({span}, {found.level:.0%} at every look), p {number(found.p)}")
    if found.share_p < MISMATCH:
        data(f"the shares are not as declared: p {number(found.share_p)}")
    if verdict is not None:
        data(f"decided {as_text(verdict.time)}: {verdict.payload['found']['reason']}")
    else:
        data({"open": "no verdict yet", "none": "over"}.get(found.decision, "to be decided") + f": {found.reason}")
