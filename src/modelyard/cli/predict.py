"""`modelyard predict`: answer the rows of a file with the champion, without a server."""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.cli.output import say
from modelyard.cli.project import add_file, add_json, load_spec, open_existing

if TYPE_CHECKING:
    import polars as pl

    from modelyard.data.base import Opened, Options
    from modelyard.inference import Bundle
    from modelyard.records import Signature

__all__ = ["add", "run"]

# Rows answered at once: large enough to be fast, small enough to stay in the cache.
_ROWS = 65_536


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "predict",
        help="answer the rows of a file",
        description="Answer every row of a CSV, Parquet or JSON lines file with the model that an alias points at, and "
        "write the rows with a column `prediction` and, for a classifier, one `probability.CLASS` each. The columns "
        "are those that the model takes, after `features:`; others are passed through. A CSV file is read as the "
        "declaration says of the table: `delimiter`, `null_values`, `comment`, `columns`.",
        epilog="example:\n  modelyard predict new.csv -o answered.parquet\n  cat new.csv | modelyard predict - --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", metavar="FILE", help="CSV, Parquet or JSON lines; - reads standard input")
    parser.add_argument(
        "-o", "--output", default="", metavar="OUT", help="write .csv, .parquet or .jsonl (default: CSV on stdout)"
    )
    parser.add_argument("--endpoint", default="", metavar="NAME", help="which, where there are several")
    parser.add_argument("--alias", default="champion", choices=["champion", "challenger"], help="default: champion")
    parser.add_argument("--table", default="", metavar="TABLE", help="read CSV as this table, where there are several")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Read, answer, write."""
    from modelyard._kit.errors import UserError
    from modelyard._kit.text import plural
    from modelyard.deploy.aliases import endpoint_of, pointed
    from modelyard.inference import open_bundle
    from modelyard.security.keys import trusted_keys

    kind = Path(args.output).suffix.lower() if args.output else ""
    if args.output and kind not in (".csv", ".parquet", ".jsonl", ".ndjson"):
        raise UserError(
            "predict-output", f"`{args.output}` is no .csv, .parquet or .jsonl file", hint="name one with -o"
        )
    with open_existing(args, model=True) as store:
        model = pointed(store, endpoint_of(store, args.endpoint), args.alias).model
        bundle = open_bundle(store.blobs.folder(model.address), trusted=trusted_keys(store.root), version=model)
    answered = _answer(_read(args, bundle.signature), bundle)
    if args.output:
        _write(answered, Path(args.output), kind)
        say(f"{plural(answered.height, 'row')} answered: {args.output}")
    elif args.json:
        sys.stdout.write(answered.write_ndjson())
    else:
        sys.stdout.write(answered.write_csv())
    return 0


def _read(args: argparse.Namespace, signature: Signature) -> pl.DataFrame:
    """Read rows with the types that the model wants, so that `007` stays a text where it was one in training."""
    import polars as pl

    from modelyard._kit.errors import DataError, NotFound

    name = args.rows
    if name == "-":
        raw = sys.stdin.buffer.read()
    else:
        path = Path(name)
        if not path.is_file():
            folder = path.parent
            raise NotFound.of("file", name, (str(folder / p.name) for p in folder.iterdir()) if folder.is_dir() else ())
        raw = path.read_bytes()
    first = raw.lstrip()[:1]
    try:
        if raw[:4] == b"PAR1":
            return pl.read_parquet(io.BytesIO(raw))
        if first == b"{":
            # JSON has types of its own; a number given for a category is made a text by the encoder, as in training.
            return pl.read_ndjson(io.BytesIO(raw), infer_schema_length=None)
        if first == b"[":
            return pl.read_json(raw)
        if name != "-":
            return _csv(path, name, args, signature)
        with tempfile.NamedTemporaryFile(suffix=".csv") as file:
            file.write(raw)
            file.flush()
            return _csv(Path(file.name), "standard input", args, signature)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            "predict-unreadable",
            f"`{name}` cannot be read: {str(error).splitlines()[0]}",
            where="" if name == "-" else name,
            hint="give CSV with a header, Parquet, or one JSON object a line",
        ) from None


def _csv(path: Path, name: str, args: argparse.Namespace, signature: Signature) -> pl.DataFrame:
    """Read a CSV file through the reader of the tables, so that a value means what it meant in training."""
    import polars as pl

    from modelyard.data.base import FILE, LINE, PROVENANCE, RAW
    from modelyard.data.readers import conform

    options, types = _as_declared(args)
    opened = _open(path, name, options, signature)
    rows = conform(opened, _kinds(opened, types, signature)).collect(engine="streaming")
    bad = rows.filter(pl.col(RAW).is_not_null()).head(1)
    if bad.height:
        line, found = bad[LINE][0], json.loads(bad[RAW][0])
        column, value = next((c, v) for c, v in found.items() if v is not None)
        raise _not_read(name, line, column if column != LINE else "", str(value), len(opened.columns))
    return rows.drop([c for c in (FILE, *PROVENANCE) if c in rows.columns])


def _not_read(name: str, line: int, column: str, value: str, columns: int) -> Exception:
    from modelyard._kit.errors import DataError

    if column:
        what = f"`{column}` is `{value[:60]}`, which the model cannot take"
        hint = f'mend it, or name it as missing: `null_values: ["{value[:60]}"]` at the table in modelyard.yaml'
    else:
        what, hint = f"`{value[:60]}` has not {columns} cells", "mend the line"
    return DataError("predict-unreadable", f"line {line}: {what}", where=f"{name}:{line}", hint=hint)


def _as_declared(args: argparse.Namespace) -> tuple[Options, Mapping[str, str]]:
    """How the table is written, and the declared types of its columns; the usual where nothing is declared."""
    from modelyard._kit.errors import NotFound, UserError
    from modelyard.data.base import Options

    if not args.table and not Path(args.file).exists():
        return Options(), {}
    tables = load_spec(args, files=False).data
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


def _open(path: Path, name: str, options: Options, signature: Signature) -> Opened:
    """Open a CSV file; one with names of its own, or without the target, is as good as one like the table's."""
    from modelyard._kit.errors import DataError
    from modelyard.data.base import Item
    from modelyard.data.readers import open_file

    item = Item(name, path.stat().st_size, "")
    if not options.columns:
        return open_file(path, item, options)
    try:
        opened = open_file(path, item, replace(options, columns=()))
        if {f.name for f in signature.features} <= set(opened.columns):
            return opened
    except DataError:
        pass  # the first line is a row, and no row has to be usable as names
    try:
        return open_file(path, item, options)
    except DataError as error:
        without = tuple(c for c in options.columns if c != signature.problem.target)
        if error.code != "data-header" or without == options.columns:
            raise
        try:
            return open_file(path, item, replace(options, columns=without))
        except DataError:
            raise error from None


def _kinds(opened: Opened, types: Mapping[str, str], signature: Signature) -> dict[str, str]:
    """The type of each column: of what the model takes as in training, of the others as declared or as they look."""
    from modelyard.data.types import infer

    numbers = {f.name for f in signature.numbers}
    known = {c: kind for c, kind in types.items() if c not in numbers or kind in ("int", "float", "bool")}
    known.update({f.name: "text" for f in signature.categories})
    known.update({f.name: "bool" for f in signature.numbers if f.source == "Boolean"})
    if not opened.text:
        return dict.fromkeys(opened.columns, "")
    looks = infer([opened], [c for c in opened.columns if c not in known])
    looks.update({c: "float" for c in numbers & looks.keys() if looks[c] != "int"})
    return {c: known.get(c) or looks[c] for c in opened.columns}


def _answer(frame: pl.DataFrame, bundle: Bundle) -> pl.DataFrame:
    import numpy as np
    import polars as pl

    from modelyard._kit.errors import DataError
    from modelyard.inference import picked

    problem = bundle.signature.problem
    names = (
        ["prediction"]
        if problem.task == "regression"
        else ["prediction", *(f"probability.{c}" for c in problem.classes)]
    )
    taken = next((name for name in names if name in frame.columns), None)
    if taken is not None:
        raise DataError(
            "predict-column-taken",
            f"the rows have a column `{taken}` already, which the answer would replace",
            where=taken,
            hint="rename it, or take it out",
        )
    predictor = bundle.predictor()
    outputs = [
        predictor.predict(bundle.encode({c: part[c] for c in part.columns}))
        for part in frame.iter_slices(_ROWS)
        if part.height
    ]
    if not outputs:
        outputs = [np.empty((0, max(1, len(problem.classes))), np.float32)]
    output = np.concatenate(outputs)
    if problem.task == "regression":
        return frame.with_columns(pl.Series("prediction", output[:, 0]))
    labels = list(bundle.labels or problem.classes)
    chosen = pl.Series("prediction", labels).gather(picked(output, problem))
    shares = [pl.Series(name, output[:, at]) for at, name in enumerate(names[1:])]
    return frame.with_columns(chosen, *shares)


def _write(frame: pl.DataFrame, path: Path, kind: str) -> None:
    from modelyard._kit.files import write_atomic

    buffer = io.BytesIO()
    if kind == ".parquet":
        frame.write_parquet(buffer)
    elif kind == ".csv":
        frame.write_csv(buffer)
    else:
        frame.write_ndjson(buffer)
    write_atomic(path, buffer.getvalue())
