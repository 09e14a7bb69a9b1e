"""Run the user's function that makes features of tables, and say where in their code it failed."""

from __future__ import annotations

import ast
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.digest import digest_file
from modelyard._kit.errors import DataError, near
from modelyard._kit.source import source_digest
from modelyard._kit.usercode import Neighbours, importable, module_of
from modelyard.data.base import Context

if TYPE_CHECKING:
    import polars as pl

__all__ = ["build", "features_probe"]


def features_probe(ctx: Context, *, function: str = "", **_: Any) -> dict[str, Any]:
    """See what the user's function is made of: its file and every file of the project that this imports.

    Modules found at run time (`importlib`) and files that the function reads by itself cannot be seen here.

    Args:
        ctx: Where the project is.
        function: `FILE.py:FUNCTION`, relative to the project's folder; empty for none.

    Raises:
        DataError: There is no such file (`features-missing`).
    """
    if not function:
        return {"code": "", "unkeyed": {"root": str(ctx.root)}}
    file, _name = _find(function, ctx.root)
    try:
        code = source_digest(file, ctx.root.resolve())
    except (SyntaxError, ValueError):
        # It cannot run either; the step says at which line.
        code = digest_file(file)
    return {"code": code, "unkeyed": {"root": str(ctx.root)}}


def build(
    function: str, tables: Sequence[pl.LazyFrame | pl.DataFrame], names: Sequence[str], root: Path
) -> pl.LazyFrame | pl.DataFrame:
    """Call the user's function and return its rows.

    Args:
        function: `FILE.py:FUNCTION`; empty passes a single table through.
        tables: The tables, in the order of `names`.
        names: Their names.
        root: Folder of the project; its modules can be imported while the function runs.

    Returns:
        What the function returned, computed, so that an error of the user's code shows up here.

    Raises:
        DataError: What is given is no table (`features-not-a-table`), there is no such function
            (`features-missing`), it is needed and not given, it raised, or returned
            something other than rows (`features-failed`).
    """
    for table, name in zip(tables, names, strict=True):
        if not hasattr(table, "lazy"):
            raise DataError(
                "features-not-a-table",
                f"what stands for the table `{name}` is a `{type(table).__name__}`",
                where="features",
                hint="the first output of a step that `feeds` has to be a frame of Polars",
            )
    if not function:
        if len(tables) == 1:
            return tables[0]
        raise DataError(
            "features-missing",
            f"there are {len(tables)} tables ({', '.join(f'`{n}`' for n in names)}) and no function that joins them",
            where="features",
            hint="write one that takes them by name and returns rows: `features: features.py:build`",
        )
    import narwhals as nw

    file, name = _find(function, root)
    given = {n: nw.from_native(t.lazy()) for n, t in zip(names, tables, strict=True)}
    with importable(Neighbours.of(file, root)):
        try:
            called = _function(file, name)
            rows = _rows(called(given), function)
        except DataError:
            raise
        except Exception as error:
            raise _failed(function, file, root, error) from error
    if not rows.height or not rows.width:
        raise DataError("features-failed", f"`{function}` returned no rows", where=function, hint="see what it filters")
    return rows


def _find(function: str, root: Path) -> tuple[Path, str]:
    path, _, name = function.rpartition(":")
    file = (root / path).resolve()
    if file.is_file():
        return file, name
    others = [p.relative_to(root).as_posix() for p in root.glob("*.py")]
    close = near(path, others)
    raise DataError(
        "features-missing",
        f"there is no file `{path}`, which `features` names",
        where="features",
        hint=f"did you mean `{close[0]}:{name}`?" if close else f"write `{path}` with a function `{name}`",
    )


def _function(file: Path, name: str) -> Callable[..., Any]:
    """Run the user's file as a module of its own and return the function."""
    module = module_of(file)
    function = getattr(module, name, None)
    if callable(function):
        return function  # type: ignore[no-any-return]
    known = [n.name for n in ast.parse(file.read_bytes()).body if isinstance(n, ast.FunctionDef)]
    close = near(name, known)
    raise DataError(
        "features-missing",
        f"`{file.name}` has no function `{name}`",
        where=file.name,
        hint=f"did you mean `{close[0]}`?" if close else f"define `def {name}(tables): ...` in it",
    )


def _rows(returned: Any, function: str) -> pl.DataFrame:
    import narwhals as nw
    import polars as pl

    native = nw.to_native(returned, pass_through=True)
    if isinstance(native, pl.LazyFrame):
        return native.collect(engine="streaming")
    if isinstance(native, pl.DataFrame):
        return native
    try:
        frame = nw.from_native(native)
        return (frame.collect() if isinstance(frame, nw.LazyFrame) else frame).to_polars()
    except TypeError as error:
        raise DataError(
            "features-failed",
            f"`{function}` returned `{type(returned).__name__}`, not rows",
            where=function,
            hint="return a frame of narwhals or Polars, lazy or not",
        ) from error


def _failed(function: str, file: Path, root: Path, error: Exception) -> DataError:
    """Say what was raised, and at which line of the user's code."""
    if isinstance(error, SyntaxError) and error.filename:
        place, line = Path(error.filename), error.lineno
    else:
        place, line = file, None
        for frame in traceback.extract_tb(error.__traceback__):
            path = Path(frame.filename)
            if path == file or (path.is_relative_to(root.resolve()) and "site-packages" not in path.parts):
                place, line = path, frame.lineno
    shown = place.relative_to(root.resolve()).as_posix() if place.is_relative_to(root.resolve()) else str(place)
    text = str(error).strip().partition("\n")[0]
    return DataError(
        "features-failed",
        f"`{function}` raised {type(error).__name__}{': ' + text if text else ''}",
        where=f"{shown}:{line}" if line else shown,
        hint="correct the function; the tables it takes are kept and not loaded again",
    )
