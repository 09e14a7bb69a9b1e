"""`modelyard drill`: break a server of one's own, and see what its callers notice."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelyard._kit.actor import user
from modelyard._kit.digest import short
from modelyard._kit.errors import UserError, near
from modelyard._kit.fields import parse_duration
from modelyard.cli.arguments import real, whole
from modelyard.cli.declaring import check_declared, declaration
from modelyard.cli.output import MARKS, data, json_line, paint, say, table
from modelyard.cli.project import add_file, add_json, endpoint_in, open_existing

if TYPE_CHECKING:
    from modelyard.automation.drill import Drilled, Order
    from modelyard.records import CheckResult

__all__ = ["add", "run"]

# Rows to send.
_ROWS = 4096
_WHAT = {
    "kill": "one process is killed",
    "disk": "the disk is full",
    "clock": "the clock jumps",
    "lock": "ledger and log are locked",
    "spike": "ten times what it holds",
    "restart": "the whole server is killed",
}
_COLUMNS = ("failed", "wrong", "back", "died", "lost")


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "drill",
        help="break a server of one's own, and see what its callers notice",
        description="Start a server of the champion on a free loopback port, with the guards of the file, a request "
        "log and a ledger of its own, ask it all the time, and break it one way after the other: "
        + "; ".join(f"{name}: {what}" for name, what in _WHAT.items())
        + ". Each answer is compared with the one before the fault. What serves already, its log and the ledger of the "
        "project are not touched; the result is kept as evidence and compared with the last drill on this machine. "
        "What cannot be brought about here is `not tried`, and not passed. Exit code 1: a limit is exceeded.",
        epilog="example:\n  modelyard drill\n  modelyard drill --only kill --only restart --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("endpoint", nargs="?", default="", metavar="ENDPOINT", help="which, where there are several")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help=f"this fault alone, repeatable: {', '.join(_WHAT)}"
    )
    parser.add_argument("--processes", type=whole(2), default=2, metavar="N", help="of the server (default: 2)")
    parser.add_argument(
        "--rate", type=real(1, 5000), default=100.0, metavar="RATE", help="requests a second meanwhile (default: 100)"
    )
    parser.add_argument(
        "--hold", type=real(1, 60), default=3.0, metavar="SECONDS", help="that a fault lasts (default: 3)"
    )
    parser.add_argument(
        "--search", type=real(5), default=10.0, metavar="SECONDS", help="to find what it holds (default: 10)"
    )
    parser.add_argument(
        "--deadline", default="250ms", metavar="DURATION", help="for who is served in the spike (default: 250ms)"
    )
    parser.add_argument("--rows", default="", metavar="TABLE", help="rows to send (default: drawn as in training)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of rows and arrivals (default: 0)")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Break, record, print."""
    from modelyard.automation.drill import drill, record
    from modelyard.cli.loads import in_loop, rows_of
    from modelyard.deploy.aliases import bundle_folder, pointed
    from modelyard.inference import open_bundle
    from modelyard.security.keys import trusted_keys

    order = _order(args)
    spec = declaration(args)
    declared = spec.deploy if spec is not None else None
    with open_existing(args, model=True) as store:
        deployment = pointed(store, endpoint_in(args, store))
        check_declared(args, spec, deployment.endpoint)
        model = deployment.model
        bundle = open_bundle(bundle_folder(store, deployment), trusted=trusted_keys(store.root), version=model)
        rows = rows_of(args.rows, bundle, store, count=_ROWS, seed=order.seed)
        say(f"breaking a server of its own of {deployment.endpoint} {short(model.digest)}")
        drilled = in_loop(drill(order, store, deployment, rows, declared=declared, tell=_tell))
        payload = record(store, deployment, order, drilled, actor=user())
    if args.json:
        json_line(payload)
    else:
        _print(f"{deployment.endpoint} {short(model.digest)}", drilled)
    return 1 if any(result.status == "failed" for result in drilled.results) else 0


def _order(args: argparse.Namespace) -> Order:
    """Check what was asked for.

    Raises:
        UserError: There is no such fault (`drill-unknown`), or a value cannot be used (`cli-value`).
    """
    from modelyard.automation.drill import Order

    for name in args.only:
        if name not in _WHAT:
            close = near(name, _WHAT)
            hint = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(_WHAT)}"
            raise UserError("drill-unknown", f"there is no fault `{name}`", hint=hint)
    try:
        deadline = parse_duration(args.deadline)
    except ValueError as error:
        raise UserError("cli-value", f"--deadline is `{args.deadline}`", hint="for example `250ms`") from error
    return Order(
        only=tuple(name for name in _WHAT if name in args.only),
        processes=args.processes,
        rate=args.rate,
        hold=args.hold,
        search=args.search,
        deadline=deadline,
        seed=args.seed,
    )


def _tell(name: str, results: Sequence[CheckResult]) -> None:
    """Write how far it is to stderr."""
    if not results:
        say(f"{name}: {_WHAT[name]}")
        return
    for result in results:
        if result.status != "passed":
            say(f"  {MARKS[result.status]} {result.check.name}: {result.reason}")


def _print(name: str, drilled: Drilled) -> None:
    by_fault: dict[str, list[CheckResult]] = {}
    for result in drilled.results:
        by_fault.setdefault(result.check.name.split(".")[1], []).append(result)
    data(name)
    data("")
    rows = [_row(fault, results) for fault, results in by_fault.items()]
    table(("", "fault", "asked", *_COLUMNS, "what happened"), rows, right=(2, 3, 4, 5, 6, 7))
    bad = [result for result in drilled.results if result.status != "passed"]
    if bad:
        data("")
    for result in bad:
        data(f"{paint(MARKS[result.status], result.status)} {result.check.name}: {result.reason}")
    if drilled.before:
        data("")
        changed = [one for one in drilled.results if _worse(one, drilled)]
        data("since the last drill: " + (", ".join(map(_since(drilled), changed)) or "no limit was crossed"))


def _worse(result: CheckResult, drilled: Drilled) -> bool:
    """Say whether a limit was crossed since the last time, one way or the other."""
    last = drilled.last.get(result.check.name)
    if last is None or result.limit is None or result.evidence.value is None:
        return False
    return (last <= result.limit.value) != (result.evidence.value <= result.limit.value)


def _since(drilled: Drilled) -> Any:
    return lambda one: f"{one.check.name} {drilled.last[one.check.name]:g} -> {one.evidence.value:g}"


def _row(fault: str, results: Sequence[CheckResult]) -> tuple[str, ...]:
    status = next(
        (s for s in ("failed", "skipped", "insufficient") if any(one.status == s for one in results)), "passed"
    )
    by_measure = {one.evidence.measure: one for one in results}
    cells = []
    for measure in _COLUMNS:
        one = by_measure.get(measure)
        if one is None:
            cells.append("")
        elif one.evidence.value is None:
            cells.append("never")
        else:
            shown = f"{one.evidence.value:.2f} s" if measure == "back" else f"{one.evidence.value:,.0f}"
            limit = f"/{one.limit.value:g}" if one.limit is not None else ""
            cells.append(shown + limit)
    asked = f"{results[0].evidence.n:,}" if results[0].evidence.n else ""
    return (paint(MARKS[status], status), fault, asked, *cells, _happened(fault, by_measure))


def _happened(fault: str, found: dict[str, CheckResult]) -> str:
    if "failed" not in found:
        return "not tried"
    told = found["failed"].evidence.details
    if fault == "spike":
        slow = f" (each row made {told['burden'] * 1000:g} ms slower)" if told["burden"] else ""
        held = f"held {told['holds']:,.0f}/s{slow}, asked {told['times']:.1f} times that"
        return f"{held}: {told['answered']:,} served, {told['refused']:,} refused"
    if fault == "restart":
        return f"{_WHAT[fault]}, and started again"
    return _WHAT[fault]
