"""`modelyard predict`: answer the rows of a file with the champion, without a server."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.cli.output import say
from modelyard.cli.project import add_file, add_json, open_existing

if TYPE_CHECKING:
    import polars as pl

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
        "are those that the model takes, after `features:`; others are passed through.",
        epilog="example:\n  modelyard predict new.csv -o answered.parquet\n  cat new.csv | modelyard predict - --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", metavar="FILE", help="CSV, Parquet or JSON lines; - reads standard input")
    parser.add_argument(
        "-o", "--output", default="", metavar="OUT", help="write .csv, .parquet or .jsonl (default: CSV on stdout)"
    )
    parser.add_argument("--endpoint", default="", metavar="NAME", help="which, where there are several")
    parser.add_argument("--alias", default="champion", choices=["champion", "challenger"], help="default: champion")
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
    with open_existing(args) as store:
        model = pointed(store, endpoint_of(store, args.endpoint), args.alias).model
        bundle = open_bundle(store.blobs.folder(model.address), trusted=trusted_keys(store.root), version=model)
    answered = _answer(_read(args.rows, bundle.signature), bundle)
    if args.output:
        _write(answered, Path(args.output), kind)
        say(f"{plural(answered.height, 'row')} answered: {args.output}")
    elif args.json:
        sys.stdout.write(answered.write_ndjson())
    else:
        sys.stdout.write(answered.write_csv())
    return 0


def _read(name: str, signature: Signature) -> pl.DataFrame:
    """Read rows with the types that the model wants, so that `007` stays a text where it was one in training."""
    import polars as pl

    from modelyard._kit.errors import DataError, NotFound

    if name == "-":
        raw = sys.stdin.buffer.read()
    else:
        path = Path(name)
        if not path.is_file():
            folder = path.parent
            raise NotFound.of("file", name, (str(folder / p.name) for p in folder.iterdir()) if folder.is_dir() else ())
        raw = path.read_bytes()
    texts = {f.name: pl.String for f in signature.categories if f.source not in ("Boolean",)}
    numbers = {f.name: pl.Float64 for f in signature.numbers if f.source != "Boolean"}
    try:
        if raw[:4] == b"PAR1":
            return pl.read_parquet(io.BytesIO(raw))
        if raw.lstrip()[:1] in (b"{", b"["):
            # JSON has types of its own; a number given for a category is made a text by the encoder, as in training.
            return (
                pl.read_ndjson(io.BytesIO(raw), infer_schema_length=None)
                if raw.lstrip()[:1] == b"{"
                else pl.read_json(raw)
            )
        header = raw.partition(b"\n")[0].decode("utf-8-sig").strip()
        known = {column.strip('"') for column in header.split(",")}
        overrides = {column: kind for column, kind in {**texts, **numbers}.items() if column in known}
        return pl.read_csv(io.BytesIO(raw), schema_overrides=overrides, infer_schema_length=None)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise DataError(
            "predict-unreadable",
            f"`{name}` cannot be read: {str(error).splitlines()[0]}",
            where="" if name == "-" else name,
            hint="give CSV with a header, Parquet, or one JSON object a line",
        ) from None


def _answer(frame: pl.DataFrame, bundle: Bundle) -> pl.DataFrame:
    import numpy as np
    import polars as pl

    from modelyard.inference import picked

    problem = bundle.signature.problem
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
    shares = [pl.Series(f"probability.{name}", output[:, at]) for at, name in enumerate(problem.classes)]
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
