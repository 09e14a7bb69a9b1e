"""`modelyard runtimes`: measure what can answer for a model on this machine, and choose the cheapest within limits."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.actor import user
from modelyard._kit.clock import as_text
from modelyard._kit.digest import short
from modelyard._kit.errors import NotFound
from modelyard._kit.text import number, plural, size_text
from modelyard.cli.arguments import real
from modelyard.cli.output import MARKS, data, json_line, paint, say, table
from modelyard.cli.project import add_file, add_json, endpoint_in, load_spec, open_existing
from modelyard.cli.stopping import stoppable

if TYPE_CHECKING:
    from modelyard.checks.runtimes import Cell
    from modelyard.records import ModelVersion
    from modelyard.store import Store

__all__ = ["LOADS", "add", "run"]

LOADS = ("modelyard.automation.runtimes", "modelyard.deploy.aliases", "modelyard.spec")

# Seconds of a cell at least: in less, the rounds tell nothing of each other.
_LEAST = 0.1


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "runtimes",
        help="measure what can answer for a model here, and choose the cheapest within limits",
        description="Measure every runtime that can answer for a model on this machine, with one thread and with all "
        "cores, for 1, 32 and 1,000 rows at once: the library that trained it (which is trained again for that), our "
        "own form of trees, ONNX Runtime, and ONNX Runtime with weights of 8 bits. The cheapest that keeps to "
        "`deploy.runtime` is chosen, by CPU a row, and servers take it for this model at once. Exit code 1: nothing "
        "keeps to the limits.",
        epilog="example:\n  modelyard runtimes champion --seconds 2\n  modelyard runtimes --last",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", nargs="?", default="champion", metavar="MODEL", help="alias or first digits (default: %(default)s)"
    )
    parser.add_argument("--endpoint", default="", metavar="NAME", help="which, where there are several")
    parser.add_argument(
        "--seconds",
        type=real(_LEAST, 60),
        default=1.0,
        metavar="N",
        help=f"time for each cell, {_LEAST} to 60 (default: 1); a slow one takes as long as 102 predictions need, or "
        "20 times this",
    )
    parser.add_argument("--last", action="store_true", help="show what was measured last; nothing is measured")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, record, print."""
    from modelyard.automation.runtimes import measure_runtimes, record
    from modelyard.deploy.runtime import limits_of
    from modelyard.store.decisions import newest_decision

    declared = load_spec(args, files=False).deploy.runtime if Path(args.file).exists() else None
    with open_existing(args, model=True) as store:
        model = _model(store, args)
        if args.last:
            event = newest_decision(store.ledger, model.digest)
            if event is None:
                raise NotFound(
                    "runtimes-not-measured",
                    f"the runtimes of {short(model.digest)} were never measured",
                    hint=f"modelyard runtimes {short(model.digest)}",
                )
            payload = event.payload
            say(f"measured {as_text(event.time)} by {event.actor}")
        else:
            stoppable()
            limits = limits_of(declared)
            measured = measure_runtimes(store, model, limits, seconds=args.seconds, say=say, tell=_tell)
            payload = record(store, measured, limits, actor=user())
    if args.json:
        json_line(payload)
    else:
        _print(f"{model.name} {short(model.digest)}", payload)
    return 0 if payload["runtime"] else 1


def _model(store: Store, args: argparse.Namespace) -> ModelVersion:
    from modelyard.deploy.aliases import find_model, pointed

    if args.model == "champion" or args.model == "challenger":
        return pointed(store, endpoint_in(args, store), args.model).model
    return find_model(store, args.model)


def _tell(cell: Cell) -> None:
    """Write one cell to stderr."""
    rows, threads = plural(cell.batch, "row"), plural(cell.threads, "thread")
    say(
        f"{cell.runtime:<12} {threads:>9} {rows:>10}  p50 {_ms(cell.p50_ms)}  p99 {_ms(cell.p99_ms)}  "
        f"{number(cell.cpu_us, digits=3)} µs of CPU a row"
    )


def _print(name: str, payload: Mapping[str, Any]) -> None:
    from modelyard.records import CheckResult, read_value

    result = read_value(payload["result"])
    assert isinstance(result, CheckResult)  # noqa: S101 - as it was written
    details = result.evidence.details
    machine = details["machine"]
    data(f"{name} on {plural(machine['cores'], 'core')} of {machine['processor']}; {details['rows']}")
    data("")
    head = ("runtime", "threads", "rows", "p50", "p99", "CPU a row", "memory", "size", "loss", "timings")
    table(head, [_row(cell) for cell in details["cells"]], right=tuple(range(1, len(head))))
    data("")
    for runtime, why in details["left_out"].items():
        data(f"{runtime} is left out: {why}")
    for note in details["notes"]:
        data(note)
    if metric := details.get("metric"):
        scores = ", ".join(f"{one} {number(value, digits=6)}" for one, value in metric.items() if one != "name")
        data(f"{metric['name']} on these rows: {scores}")
    data("")
    data(f"{paint(MARKS[result.status], result.status)} {result.reason}")
    if found := payload["runtime"]:
        data(f"{found['name']} on {plural(found['threads'], 'thread')} answers for it wherever it is served")
    else:
        data(f"nothing is changed: {details['usual']} answers for it, as it was released")


def _row(cell: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        cell["runtime"],
        str(cell["threads"]),
        f"{cell['batch']:,}",
        _ms(cell["p50_ms"]),
        _ms(cell["p99_ms"]),
        f"{number(cell['cpu_us'], digits=3)} µs",
        size_text(cell["memory"]),
        size_text(cell["size"]),
        f"{number(cell['loss'] * 100, digits=3)}%",
        f"{cell['n']:,}",
    )


def _ms(value: float) -> str:
    return f"{number(value, digits=3)} ms"
