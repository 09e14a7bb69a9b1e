"""`modelyard init`: write a small project that runs, whole or not at all."""

from __future__ import annotations

import argparse
import csv
import getpass
import io
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import NotFound, UserError, near
from modelyard.cli.output import data, say

if TYPE_CHECKING:
    import polars as pl

__all__ = ["add", "run"]

_TEMPLATES = ("classification", "regression", "own")
# What stands there already is kept; only these may not be in the way.
_MUST_BE_NEW = ("modelyard.yaml", "data/samples.csv", "data/patients.csv")
_TABLES = (".csv", ".tsv", ".parquet")
# Rows that `--from` looks at to see which columns cannot be learned from.
_LOOK = 10_000


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "init",
        help="write a small project that runs",
        description="Write modelyard.yaml with a comment on every section, a README and, for the two examples, real "
        "data. `own` begins from a file of yours. Nothing that is there is overwritten.",
        epilog="example:\n  modelyard init tumours && cd tumours && modelyard run\n"
        "  modelyard init churn --from customers.csv --target left",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dir", nargs="?", default=".", metavar="DIR", help="folder of the project (default: this one)")
    parser.add_argument(
        "--template",
        choices=_TEMPLATES,
        default="",
        help="classification (569 tumours, the default), regression (442 patients), or own (your file)",
    )
    parser.add_argument("--from", dest="source", default="", metavar="FILE", help="your CSV or Parquet file (own)")
    parser.add_argument("--target", default="", metavar="COLUMN", help="the column to predict (own)")


def run(args: argparse.Namespace) -> int:
    """Write the project."""
    template = args.template or ("own" if args.source or args.target else "classification")
    folder = Path(args.dir).absolute()
    if template != "own" and (args.source or args.target):
        raise UserError(
            "init-value", f"`{template}` brings its own data", hint="take --from and --target out, or use own"
        )
    if folder.exists() and not folder.is_dir():
        raise UserError("init-exists", f"`{args.dir}` is a file", hint="name a folder: `modelyard init NAME`")
    values = {"project": _project_name(folder), "team": _team()}
    files = _own(folder, args, values) if template == "own" else _example(template, values)
    taken = [name for name in _MUST_BE_NEW if name in files and (folder / name).exists()]
    if taken:
        raise UserError(
            "init-exists",
            f"`{Path(args.dir) / taken[0]}` is there already, and nothing is overwritten",
            hint="choose another folder: `modelyard init NAME`",
        )
    kept = [name for name in files if (folder / name).exists()]
    new = {name: content for name, content in files.items() if name not in kept}
    try:
        _write(folder, new)
    except OSError as error:
        raise UserError(
            "init-unwritable",
            f"`{args.dir}` cannot be written: {error.strerror or error}",
            hint="nothing was written; make room, or choose a folder that you may write",
        ) from error
    for name in new:
        data(str(Path(args.dir) / name))
    for name in kept:
        say(
            f"kept {Path(args.dir) / name}, which was there"
            + (": add `.modelyard/` to it" if name == ".gitignore" else "")
        )
    begin = "" if folder == Path.cwd() else f"cd {args.dir} && "
    say(f"next: {begin}modelyard {'check' if template == 'own' else 'run'}")
    return 0


def _project_name(folder: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.name).strip("-_")
    return (name if re.match("[A-Za-z]", name) else f"model-{name}".strip("-"))[:63]


def _team() -> str:
    from modelyard.spec.sample import inline

    try:
        return inline(getpass.getuser())
    except (KeyError, OSError, ImportError):
        return "me"


def _filled(template: str, values: dict[str, str]) -> dict[str, bytes]:
    """Return the text files of a template, checked, without its data."""
    home = resources.files("modelyard.cli") / "templates"
    declaration = Template((home / template / "modelyard.yaml").read_text("utf-8")).substitute(values)
    readme = Template((home / template / "README.md").read_text("utf-8")).substitute(values)
    return {
        "modelyard.yaml": declaration.encode(),
        "README.md": readme.encode(),
        ".gitignore": (home / "gitignore").read_bytes(),
    }


def _example(template: str, values: dict[str, str]) -> dict[str, bytes]:
    name, rows = {"classification": ("samples", _tumours), "regression": ("patients", _patients)}[template]
    return {**_filled(template, values), f"data/{name}.csv": _csv(rows)}


def _csv(rows: Callable[[], Iterator[list[Any]]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows())
    return text.getvalue().encode()


def _tumours() -> Iterator[list[Any]]:
    """Yield header and rows of scikit-learn's breast-cancer data."""
    from sklearn.datasets import load_breast_cancer

    loaded = load_breast_cancer()
    yield ["id", *(name.replace(" ", "_") for name in loaded.feature_names), "diagnosis"]
    for number, (row, target) in enumerate(zip(loaded.data.tolist(), loaded.target, strict=True), start=1):
        yield [number, *row, loaded.target_names[target]]


def _patients() -> Iterator[list[Any]]:
    """Yield header and rows of scikit-learn's diabetes data, in their own units."""
    from sklearn.datasets import load_diabetes

    loaded = load_diabetes(scaled=False)
    yield ["id", *loaded.feature_names, "progression"]
    whole = {"age", "sex"}
    for number, (row, target) in enumerate(zip(loaded.data.tolist(), loaded.target.tolist(), strict=True), start=1):
        cells = zip(loaded.feature_names, row, strict=True)
        yield [number, *(int(value) if name in whole else value for name, value in cells), target]


def _own(folder: Path, args: argparse.Namespace, values: dict[str, str]) -> dict[str, bytes]:
    """Return the files of a project about the user's own table."""
    from modelyard.spec.sample import inline

    path = Path(args.source).absolute() if args.source else _only_table(folder)
    if not path.is_file():
        raise _no_file(args.source, path)
    columns, delimiter = _columns(path)
    if not args.target:
        shown = ", ".join(f"`{c}`" for c in columns[:12])
        raise UserError(
            "init-value", "which column is to be predicted?", hint=f"say it with --target; there is {shown}"
        )
    if args.target not in columns:
        raise NotFound.of("column", args.target, columns)
    rows = _rows(path, delimiter)
    source = path.relative_to(folder) if path.is_relative_to(folder) else path
    table = re.sub(r"[^A-Za-z0-9_]+", "_", path.stem).strip("_").lower()
    values |= {
        "table": table if re.match("[a-z]", table) else "rows",
        "source": inline(str(source)),
        "target": inline(args.target),
        **_of_target("" if rows is None else _task(rows, args.target)),
        "drop": _dropped([] if rows is None else _unlearnable(rows, args.target)),
        "delimiter": "" if delimiter == "," else f"    delimiter: {inline(delimiter)}\n",
    }
    return _filled("own", values)


def _no_file(name: str, path: Path) -> NotFound:
    folder = path.parent
    known = [p.name for p in folder.iterdir() if p.suffix.lower() in _TABLES] if folder.is_dir() else []
    if near(path.name, known):
        return NotFound.of("file", name, [str(Path(name).with_name(one)) for one in known])
    if known:
        there = f"beside it there is: {', '.join(sorted(known)[:8])}"
    else:
        there = "no CSV or Parquet file is beside it" if folder.is_dir() else f"there is no folder `{folder}`"
    return NotFound("file-not-found", f"no file `{name}`", hint=f"{there}; name the file with your rows with --from")


def _rows(path: Path, delimiter: str) -> pl.DataFrame | None:
    """Return the first rows; none where they cannot be read: `modelyard run` says what is wrong, and where."""
    import polars as pl

    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            rows = pl.scan_parquet(path).head(_LOOK).collect()
        else:
            rows = pl.read_csv(
                path, separator=delimiter[0], n_rows=_LOOK, try_parse_dates=True, infer_schema_length=None
            )
        texts = rows.rename(str.strip).with_columns(pl.col(pl.String).str.strip_chars())
        # Behind a space a number was taken for a text.
        numbers = texts.select(pl.col(pl.String).cast(pl.Float64, strict=False)) if " " in delimiter else pl.DataFrame()
        whole = [one for one in numbers if one.null_count() == texts[one.name].null_count()]
        return texts.with_columns(whole)
    except (OSError, pl.exceptions.PolarsError):
        return None


def _task(rows: pl.DataFrame, target: str) -> str:
    """Return what the first rows say of the problem, as a run would; empty where they say nothing."""
    from modelyard._kit.errors import DataError
    from modelyard.data.problem import problem_of

    try:
        return problem_of(rows.drop_nulls(target), target=target).task
    except DataError:
        return ""


def _of_target(task: str) -> dict[str, str]:
    """Return the lines of the file that fit only some kinds of problem."""
    positive = "  # positive: yes                     # of two classes, the one whose probability is the score\n"
    metric = "roc_auc: {at_least: 0.8, with_confidence: 95%}"
    if task == "regression":
        positive = "  task: regression                    # a number is predicted\n"
        metric = "r2: {at_least: 0.5, with_confidence: 95%}"
    elif task == "multiclass":
        positive = ""
    return {"positive": positive, "metric": metric}


def _unlearnable(rows: pl.DataFrame, target: str) -> list[str]:
    """Return the columns that a model can learn nothing from: dates, and texts that differ in nearly every row."""
    import polars as pl

    found = []
    for name, column in zip(rows.columns, rows, strict=True):
        names_rows = column.dtype == pl.String and len(column) >= 20 and column.n_unique() > 0.9 * len(column)
        if name != target and (column.dtype.is_temporal() or names_rows):
            found.append(name)
    return found


def _dropped(columns: list[str]) -> str:
    from modelyard.spec.sample import inline

    if not columns:
        return "  # drop: [name]                      # columns that the model must not see\n"
    return f"  drop: {inline(columns)}  # dates, and texts that differ in nearly every row: nothing to learn from\n"


def _only_table(folder: Path) -> Path:
    places = [p for place in (folder, folder / "data") if place.is_dir() for p in sorted(place.iterdir())]
    found = [p for p in places if p.suffix.lower() in _TABLES and p.is_file()]
    if len(found) == 1:
        return found[0]
    hint = "name it: --from FILE --target COLUMN"
    if found:
        hint += "; there is " + ", ".join(f"`{p.relative_to(folder)}`" for p in found[:8])
    raise UserError("init-value", "which file holds your rows?", hint=hint)


def _columns(path: Path) -> tuple[list[str], str]:
    """Return the names of the columns, and what stands between two cells."""
    if path.suffix.lower() in (".parquet", ".pq"):
        import polars as pl

        try:
            return list(pl.read_parquet_schema(path)), ","
        except (OSError, pl.exceptions.PolarsError) as error:
            raise UserError(
                "init-value", f"`{path.name}` is not a Parquet file: {error}", hint="name another"
            ) from error
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline(1 << 20)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            "init-value", f"`{path.name}` cannot be read as UTF-8 text: {error}", hint="save it as UTF-8"
        ) from error
    delimiter = max((",", ";", "\t", "|"), key=header.count)
    names = next(csv.reader([header], delimiter=delimiter), [])
    spaced = delimiter == "," and len(names) > 1 and all(name.startswith(" ") for name in names[1:])
    names = [name.strip() for name in names] if spaced else names
    if not any(names):
        raise UserError("init-value", f"`{path.name}` has no header line", hint="write the names of the columns first")
    return names, ", " if spaced else delimiter


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Write all files or none: they are made beside, and moved when they are whole."""
    new = not folder.exists()
    nearest = next(p for p in (folder, *folder.parents) if p.is_dir())
    stage = nearest / f".modelyard-init.{secrets.token_hex(4)}.part"
    made: list[Path] = []
    try:
        for name, content in files.items():
            path = stage / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        _check(stage)
        if new:
            for parent in reversed(folder.parents):
                if not parent.exists():
                    parent.mkdir()
                    made.append(parent)
            stage.rename(folder)
            return
        for name in files:
            path = folder / name
            if not path.parent.exists():
                path.parent.mkdir(parents=True)
                made.append(path.parent)
            _place(stage / name, path)
            made.append(path)
    except BaseException:
        for path in reversed(made):
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _place(whole: Path, path: Path) -> None:
    """Give a whole file its name; a link fails where the name is taken, a rename would overwrite."""
    try:
        os.link(whole, path)
    except FileExistsError:
        raise
    except OSError:
        # A file system without links.
        with path.open("xb") as file:
            file.write(whole.read_bytes())


def _check(stage: Path) -> None:
    """A template that is not right must not be written; the data may lie elsewhere."""
    from modelyard.spec import load

    load(stage / "modelyard.yaml", files=False)
