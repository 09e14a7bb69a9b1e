"""`modelyard predict`: answer the rows of a table with the champion, without a server."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.stopping import stopped
from modelyard.cli.arguments import whole
from modelyard.cli.output import as_it_is, json_line, say
from modelyard.cli.project import add_file, endpoint_in, load_spec, open_existing
from modelyard.cli.stopping import stoppable

if TYPE_CHECKING:
    from modelyard.data.base import Options
    from modelyard.inference import Bundle
    from modelyard.pipeline.scoring import Rows, Scored
    from modelyard.records import Deployment, Signature
    from modelyard.store import Store

__all__ = ["LOADS", "add", "kept", "run"]

LOADS = ("modelyard.deploy.aliases", "modelyard.inference", "modelyard.pipeline.scoring", "modelyard.security.seal")

# Seconds between two lines of progress where no terminal draws them in place.
_EVERY = 10.0


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "predict",
        help="answer the rows of a table",
        description="Answer every row of a table with the model that an alias points at, and write the rows with a "
        "column `prediction` and, for a classifier, one `probability.CLASS` each. A table is a CSV, Parquet or JSON "
        "lines file, a folder of CSV or Parquet files, a Delta table, or a version that a run made (`NAME@VERSION`, "
        "see `modelyard show tables`). The columns are those that the model takes, after `features:`; others are "
        "passed through. A CSV file is read as the declaration says of the table: `delimiter`, `null_values`, "
        "`comment`, `columns`. Rows go through in a stream, on every core. The output appears when it is whole; the "
        "same command goes on where one that was killed stopped, as long as rows, model and output are the same. "
        "`deploy.guards` are those of the server: here no row is refused, clipped or held back.",
        epilog="example:\n  modelyard predict new.csv -o answered.parquet\n"
        "  modelyard predict arrivals/ -o answered/      # a folder of Parquet parts with a manifest\n"
        "  cat new.csv | modelyard predict - --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", metavar="TABLE", help="file, folder, Delta table or NAME@VERSION; - reads stdin")
    parser.add_argument(
        "-o",
        "--output",
        default="",
        metavar="OUT",
        help="write .csv, .parquet, .jsonl, or a folder/ of Parquet parts (default: CSV on stdout)",
    )
    parser.add_argument("--endpoint", default="", metavar="NAME", help="which, where there are several")
    parser.add_argument("--alias", default="champion", choices=["champion", "challenger"], help="default: champion")
    parser.add_argument("--table", default="", metavar="TABLE", help="read CSV as this table, where there are several")
    parser.add_argument("--workers", type=whole(1), default=0, metavar="N", help="parts at once (default: the cores)")
    add_file(parser)
    parser.add_argument("--json", action="store_true", help="JSON on stdout: with -o what was done, else rows")


def run(args: argparse.Namespace) -> int:
    """Read, answer, write."""
    from modelyard.deploy.aliases import bundle_folder, pointed
    from modelyard.inference import open_bundle
    from modelyard.pipeline.machine import cores
    from modelyard.pipeline.scoring.parts import kind_of
    from modelyard.security.keys import trusted_keys

    kind = kind_of(args.output) if args.output else "csv"
    output = _output(args)
    workers = args.workers or cores()
    stoppable()
    with open_existing(args, model=True) as store:
        deployment = pointed(store, endpoint_in(args, store), args.alias)
        model = deployment.model
        bundle = open_bundle(bundle_folder(store, deployment), trusted=trusted_keys(store.root), version=model)
        with _opened(args, bundle.signature, store) as rows:
            if not args.output:
                return _print(rows, bundle, workers, as_json=args.json)
            from modelyard.pipeline.scoring import score

            with _progress() as observe:
                scored = score(rows, bundle, output, kind, workers=workers, observe=observe)
            _record(store, deployment, rows, output, scored)
    _report(args, scored)
    return 0


def kept(args: argparse.Namespace) -> str:
    """Return what of an output is there when it did not become whole, and how it goes on; empty where nothing is."""
    from modelyard._kit.files import target_of
    from modelyard.pipeline.scoring.parts import Parts

    if not args.output:
        return ""
    target = target_of(_output(args))
    if not target.name:
        return ""
    folder = Parts(target, "csv", {}).folder
    if not any(folder.glob("part-*")):
        return ""
    return f"finished parts are kept in `{folder}` until the same command goes on from them: {shlex.join(args.line)}"


def _output(args: argparse.Namespace) -> Path:
    """Return the output that is named; `.` where none is.

    Raises:
        UserError: It is a folder without a name of its own, which nothing can take the place of (`predict-output`).
    """
    from modelyard._kit.errors import UserError

    output = Path(os.path.normpath(args.output))
    if args.output and output.name in ("", ".."):
        raise UserError(
            "predict-output",
            f"`{args.output}` names no folder that answers could take the place of",
            hint="name one with -o; a folder ends with `/` and gets Parquet parts and a manifest",
        )
    return output


@contextmanager
def _opened(args: argparse.Namespace, signature: Signature, store: Store | None) -> Iterator[Rows]:
    """Open the table; standard input is kept in a file meanwhile, since it has to be read more than once."""
    from modelyard.pipeline.scoring import open_rows

    options, types = _as_declared(args)
    if args.rows != "-":
        yield open_rows(args.rows, signature, options=options, types=types, store=store)
        return
    with tempfile.NamedTemporaryFile(prefix="modelyard-", suffix=".rows") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
        file.flush()
        yield open_rows("standard input", signature, options=options, types=types, path=Path(file.name), store=store)


def _as_declared(args: argparse.Namespace) -> tuple[Options, Mapping[str, str]]:
    """How the table is written, and the declared types of its columns; the usual where nothing is declared."""
    from modelyard._kit.errors import NotFound, UserError
    from modelyard.data.base import Options

    if not args.table and not Path(args.file).exists():
        return Options(), {}
    spec = load_spec(args, files=False)
    if spec.deploy.guards is not None:
        say("note: `deploy.guards` are those of the server: these rows are answered without them")
    tables = spec.data
    if args.table and args.table not in tables:
        raise NotFound.of("table", args.table, tables)
    chosen = [tables[args.table]] if args.table else list(tables.values())
    ways = {Options(t.delimiter, t.null_values, t.comment or "", t.columns) for t in chosen}
    if len(ways) > 1:
        raise UserError(
            "table-unclear",
            "the tables are written in different ways",
            where=args.file,
            hint=f"say which one the rows are written like: --table {' or --table '.join(tables)}",
        )
    contract = chosen[0].contract if len(chosen) == 1 else {}
    return ways.pop(), {name: rule.type for name, rule in contract.items() if rule.type}


def _print(rows: Rows, bundle: Bundle, workers: int, *, as_json: bool) -> int:
    """Write the answered rows to stdout as they come."""
    from modelyard.pipeline.scoring import stream

    header = True
    for frame in stream(rows, bundle, workers=workers):
        stopped()
        as_it_is(frame.write_ndjson() if as_json else frame.write_csv(include_header=header))
        header = False
    return 0


@contextmanager
def _progress() -> Iterator[Any]:
    """Tell how many rows are done: in place on a terminal, now and then a line elsewhere."""
    from modelyard._kit.text import number

    live, began = sys.stderr.isatty(), time.monotonic()
    last, first = [began], [-1]

    def observe(done: int, of: int) -> None:
        stopped()
        first[0] = done if first[0] < 0 else first[0]
        now = time.monotonic()
        if now - last[0] < (0.2 if live else _EVERY):
            return
        last[0] = now
        text = f"{number(done)} of {number(of)} rows, {number(int((done - first[0]) / (now - began)))} a second"
        sys.stderr.write(f"\r\x1b[2K{text}" if live else f"{text}\n")
        sys.stderr.flush()

    try:
        yield observe
    finally:
        if live:
            sys.stderr.write("\r\x1b[2K")


def _record(store: Store, deployment: Deployment, rows: Rows, output: Path, scored: Scored) -> None:
    """Keep in the ledger what was answered by which model, and where it went."""
    from modelyard._kit.actor import user
    from modelyard._kit.errors import ModelyardError
    from modelyard.records import Draft

    payload = {
        "endpoint": deployment.endpoint,
        "alias": deployment.alias,
        "model": deployment.model.digest,
        "table": rows.name,
        "table_digest": rows.digest,
        "rows": scored.rows,
        "output": str(output),
        "output_digest": scored.digest,
        "seconds": scored.seconds,
    }
    if scored.there:
        # Who was killed after the output appeared may not have come to say so.
        told = store.ledger.events(kinds=("predict.finished",))
        if any(e.payload["output_digest"] == scored.digest and e.payload["output"] == str(output) for e in told):
            return
    try:
        store.ledger.append(Draft(kind="predict.finished", actor=user(), payload=payload))
    except ModelyardError as error:
        # The rows are answered; whoever may only read the project can still use them.
        say(f"note: not in the ledger: {error.problem.message}")


def _report(args: argparse.Namespace, scored: Scored) -> None:
    from modelyard._kit.text import plural, seconds_text

    if scored.why:
        say(f"note: {scored.why} since an attempt that was not finished, so all rows were answered anew")
    elif scored.resumed and not scored.there:
        say(f"note: {plural(scored.resumed, 'row')} were there from an attempt that was not finished")
    if args.json:
        told = {"output": args.output, "rows": scored.rows, "resumed": scored.resumed, "digest": scored.digest}
        json_line({**told, "seconds": scored.seconds})
    elif not scored.there:
        say(f"{plural(scored.rows, 'row')} answered in {seconds_text(scored.seconds)}: {args.output}")
    else:
        say(f"{plural(scored.rows, 'row')} are there already: {args.output}")
