"""`modelyard watch`: compare the logged requests with the training data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.actor import user
from modelyard._kit.clock import as_text
from modelyard._kit.digest import short
from modelyard._kit.errors import NotFound
from modelyard._kit.places import log_path
from modelyard._kit.text import plural
from modelyard.cli.arguments import whole
from modelyard.cli.output import MARKS, data, json_line, paint, say
from modelyard.cli.project import add_file, add_json, endpoint_in, load_spec, open_existing
from modelyard.cli.repeat import add_every, repeated
from modelyard.cli.report import print_checks

if TYPE_CHECKING:
    from modelyard.records import CheckResult, Deployment, Problem
    from modelyard.store import Store

__all__ = ["LOADS", "add", "run"]

LOADS = (
    "modelyard.deploy.aliases",
    "modelyard.inference",
    "modelyard.monitoring.watch",
    "modelyard.monitoring.window",
    "modelyard.security.seal",
    "modelyard.spec",
)


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "watch",
        help="compare the logged requests with the training data",
        description="Compare a window of answered requests with what the model was trained on: drift of each column, "
        "missing and unseen values, shift of the predictions, and the metric where outcomes are known. "
        "Exit code 1 when something moved too far.",
        epilog="example:\n  modelyard watch --last 500 --json\n  modelyard watch prod",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("endpoint", nargs="?", default="", metavar="ENDPOINT", help="default: that of the file")
    parser.add_argument(
        "--last", type=whole(0), default=0, metavar="N", help="newest N requests (default: `monitor.window`)"
    )
    parser.add_argument("--truth", metavar="FILE", help="first join outcomes to requests: a CSV file with id,truth")
    parser.add_argument("--all", action="store_true", help="print the checks that hold as well")
    add_every(parser)
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Watch, once or again and again."""
    return repeated(args, lambda: _once(args))


def _once(args: argparse.Namespace) -> int:
    """Watch once, record it, and print what moved."""
    from modelyard.deploy.aliases import bundle_folder
    from modelyard.inference import open_bundle
    from modelyard.monitoring.watch import watch
    from modelyard.monitoring.window import read_window
    from modelyard.records import Draft, plain
    from modelyard.security.keys import trusted_keys

    spec = load_spec(args, files=False)
    store = open_existing(args, model=True)
    endpoint = endpoint_in(args, store) if args.endpoint else spec.endpoint
    champion = _champion(store, endpoint)
    bundle = open_bundle(bundle_folder(store, champion), trusted=trusted_keys(store.root), version=champion.model)
    log = log_path(store.root, endpoint)
    if args.truth:
        _join(log, Path(args.truth), bundle.signature.problem)
    last = args.last or spec.monitor.window
    window = read_window(log, model=champion.model.digest, last=last)
    results = watch(window, bundle.profile, bundle.signature, spec.monitor)
    span = window.describe()
    payload = {
        "endpoint": endpoint,
        "model": champion.model.digest,
        "window": span,
        "results": [plain(result) for result in results],
    }
    store.ledger.append(Draft(kind="watch.finished", actor=user(), payload=payload))
    failed = [result for result in results if result.status == "failed"]
    if args.json:
        json_line(payload)
    else:
        _print(results, failed, args.all, f"{endpoint} {short(champion.model.digest)}", span)
    return 1 if failed else 0


def _join(log: Path, file: Path, problem: Problem) -> None:
    from modelyard.monitoring.truth import join_truths, read_truths

    if not file.is_file():
        raise NotFound("file-not-found", f"there is no file `{file}`", hint="give a CSV file with the columns id,truth")
    joined = join_truths(log, read_truths(file, problem))
    text = f"{plural(joined.joined, 'outcome')} joined, {joined.known:,} known before, {joined.replaced:,} replaced"
    say(f"{text}, {joined.strange:,} of no logged request")


def _champion(store: Store, endpoint: str) -> Deployment:
    champion = store.ledger.alias(endpoint, "champion")
    if champion is None:
        raise NotFound(
            "champion-not-found", f"endpoint `{endpoint}` has no champion", hint="`modelyard run` promotes the first"
        )
    return champion


def _print(results: list[CheckResult], failed: list[CheckResult], every: bool, name: str, span: dict[str, Any]) -> None:
    back = f" ({span['held']:,} held back)" if span["held"] else ""
    tests = f", {span['tests']:,} of load tests left out" if span["tests"] else ""
    data(f"{name}: {plural(span['rows'], 'request')}{back}{tests}, {as_text(span['from'])} to {as_text(span['to'])}")
    shown = [r for r in results if every or r.status != "passed"]
    if shown:
        data("")
        print_checks(shown)
        data("")
    held = sum(r.status == "passed" for r in results)
    if failed:
        text = f"{plural(len(failed), 'check')} of {len(results)} failed: the requests are not what was trained on"
        data(f"{paint(MARKS['failed'], 'failed')} {text}")
    elif held:
        data(f"{paint(MARKS['passed'], 'passed')} {plural(held, 'check')} hold, none failed")
    else:
        data(f"{paint(MARKS['insufficient'], 'insufficient')} too few requests to tell")
