"""Run a notebook as a step: parameters in, the executed copy and the variables that are asked for out."""

from __future__ import annotations

import ast
import builtins
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.digest import digest_file, digest_of
from modelyard._kit.errors import MissingExtra, ModelyardError, NotFound, StepFailed, UserError
from modelyard._kit.source import imported_sources
from modelyard.pipeline.lasting import lasting
from modelyard.records import FileDraft, Value, plain
from modelyard.security.redact import redact

if TYPE_CHECKING:
    from modelyard.pipeline.probes import Context

__all__ = ["GIVEN_AS", "execute_notebook", "notebook_probe"]

# Before the parameters of a notebook, which may be called like those of the function that runs it.
GIVEN_AS = "given_"
MEDIA = "application/x-ipynb+json"
_KERNEL = "python3"
# Lines for the shell or for IPython, which are no Python.
_MAGIC = ("%", "!", "?")
# A socket's path may have 107 characters; this many leave room for our name and the socket's number.
_LONGEST_FOLDER = 96
# What a kernel says at its start if it has no network: it cannot show what processes print that a cell forks.
_UNSAID = "ignore:Couldn't bind IOPub Pipe"

# Runs in the notebook's kernel after its last cell; it is not part of the copy that is kept.
_KEEP = """\
def _modelyard_keep(names, folder):
    import json, pathlib
    place, found = pathlib.Path(folder), {{}}
    for name in names:
        value = globals()[name]
        value = value.collect() if hasattr(value, "collect") and hasattr(value, "lazy") else value
        write = getattr(value, "write_parquet", None) or getattr(value, "to_parquet", None)
        if write is not None:
            write(place / (name + ".parquet"))
        else:
            found[name] = value.item() if hasattr(value, "item") else value
    (place / "kept.json").write_text(json.dumps(found, allow_nan=False))
_modelyard_keep({names!r}, {folder!r})
"""


def notebook_probe(ctx: Context, *, notebook: str, **_: Any) -> dict[str, Any]:
    """See what a notebook is made of: the source of its cells, and the files of the project that they import.

    What its cells showed when somebody last saved it does not count.

    Args:
        ctx: Where the project is.
        notebook: The file, relative to the project.

    Raises:
        NotFound: There is no such file (`notebook-not-found`).
        UserError: It is no notebook (`notebook-unreadable`).
    """
    read = _read(notebook, ctx.root)
    cells = [[cell["cell_type"], _source(cell), cell.get("metadata", {}).get("tags", [])] for cell in read["cells"]]
    folder = (ctx.root / notebook).resolve().parent
    sources = imported_sources(_tree(read), folder, ctx.root.resolve())
    return {
        "cells": digest_of(cells),
        "kernel": _kernel(read),
        "imports": digest_of([[_shown(file, ctx.root), digest_file(file)] for file in sources]),
        "unkeyed": {"root": str(ctx.root)},
    }


def execute_notebook(
    *,
    notebook: str,
    params: dict[str, Any],
    kept: Sequence[str],
    state: dict[str, Any],
    partition: str = "",
    **inputs: Any,
) -> Any:
    """Run a notebook with papermill, in a kernel of its own, from the folder that it stands in.

    Args:
        notebook: The file, relative to the project.
        params: Variable -> value; they are set in a cell after the one tagged `parameters`, or before the first.
        kept: Names of variables that are returned: tables (Polars, pandas) or plain JSON.
        state: What `notebook_probe` saw.
        partition: What it is run for; set as the variable `partition`.
        **inputs: `given_NAME` -> value for the variable `NAME`; a table is written to a Parquet file, of which the
            notebook gets the path.

    Returns:
        The executed copy, and with `kept` a tuple of it and the values.

    Raises:
        MissingExtra: papermill is not installed.
        UserError: A cell raised an error that would come again (`notebook-failed`), an input is neither a table nor
            plain JSON (`notebook-input`), a kept variable is not there (`notebook-output`), or there is no such
            kernel (`notebook-kernel`).
        StepFailed: A cell raised an error that may pass (`notebook-failed`).
    """
    root = Path(state["unkeyed"]["root"])
    with tempfile.TemporaryDirectory(prefix="yard-") as folder:
        place = Path(folder)
        given = {**params, **{n.removeprefix(GIVEN_AS): _given(n, v, place) for n, v in inputs.items()}}
        if partition:
            given["partition"] = partition
        executed = _run(notebook, root, given, kept, place)
        file = FileDraft(
            Path(notebook).name, json.dumps(_masked(executed), indent=1, ensure_ascii=False).encode(), MEDIA
        )
        values = _values(kept, place) if kept else []
    return (file, *values) if kept else file


def _masked(notebook: Any) -> Any:
    """Return an executed notebook without secrets in what its cells said: it is kept for good."""
    for cell in notebook.get("cells", ()):
        if "outputs" in cell:
            cell["outputs"] = _masked_in(cell["outputs"])
    return notebook


def _masked_in(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [_masked_in(item) for item in value]
    if isinstance(value, dict):
        return {key: _masked_in(item) for key, item in value.items()}
    return value


def _run(notebook: str, root: Path, given: dict[str, Any], kept: Sequence[str], place: Path) -> Any:
    """Return the executed notebook, without the cell that wrote what is kept."""
    try:
        import nbformat
        import papermill
        from jupyter_client.kernelspec import NoSuchKernel
        from papermill.exceptions import PapermillExecutionError
        from traitlets.config import Config
    except ImportError as error:
        raise MissingExtra(f"the notebook `{notebook}` needs `{error.name}`", extra="notebooks") from error
    read = nbformat.from_dict(_read(notebook, root))
    if kept:
        read.cells.append(nbformat.v4.new_code_cell(_KEEP.format(names=list(kept), folder=str(place))))
    settings = Config()
    # Sockets in a folder of our own rather than ports, which need a network and anybody on this machine can reach.
    settings.KernelManager.transport = "ipc"
    try:
        with _jupyter_in(place, root), _short(place) as folder:
            settings.KernelManager.ip = f"{folder}/k"
            done = papermill.execute_notebook(
                read,
                None,
                parameters=given,
                kernel_name=_kernel(read),
                cwd=str((root / notebook).resolve().parent),
                config=settings,
                progress_bar=False,
                stdout_file=sys.stdout,
                stderr_file=sys.stdout,
            )
    except PapermillExecutionError as error:
        raise _failed(notebook, error, len(read.cells), kept, given) from error
    except NoSuchKernel as error:
        raise UserError(
            "notebook-kernel",
            f"`{notebook}` wants the kernel `{error.name}`, which is not installed",
            where=notebook,
            hint=f"install it, or save the notebook with the kernel `{_KERNEL}`",
        ) from error
    return _cleaned(done, given, 1 if kept else 0)


def _cleaned(done: Any, given: dict[str, Any], added: int) -> Any:
    """Take out what differs from run to run without saying anything: times, and ids of what was added."""
    if added:
        done.cells = done.cells[:-added]
    done.metadata["papermill"] = {"parameters": given}
    for number, cell in enumerate(done.cells):
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = f"parameters-{number}"
    return done


def _failed(notebook: str, error: Any, cells: int, kept: Sequence[str], given: dict[str, Any]) -> ModelyardError:
    """Say which cell raised what, counted as its author counts them."""
    # With parameters there is one cell more, in front of this one unless a cell before it holds the defaults.
    number = error.cell_index + 1
    if kept and error.cell_index >= cells - 1 + bool(given):
        name = error.evalue.strip("'\"")
        gone = error.ename == "KeyError" and name in kept
        what = f"has no variable `{name}` after its last cell" if gone else f"cannot keep a variable: {error.evalue}"
        return UserError(
            "notebook-output",
            f"`{notebook}` {what}",
            where=notebook,
            hint="`outputs` names variables that hold tables or plain JSON (numbers, texts, lists, dicts)",
        )
    first = next((line.strip() for line in error.source.splitlines() if line.strip()), "")
    kind = getattr(builtins, error.ename, None)
    comes_again = isinstance(kind, type) and issubclass(kind, BaseException) and lasting(kind.__new__(kind))
    message = f"`{notebook}` failed in [{error.exec_count}] `{first[:80]}`: {error.ename}: {error.evalue}"
    where = f"{notebook}, cell {number}"
    hint = "correct the cell; what other steps made is kept"
    if comes_again:
        return UserError("notebook-failed", message, where=where, hint=hint)
    return StepFailed("notebook-failed", message, where=where, hint=hint)


def _given(parameter: str, value: Any, place: Path) -> Any:
    """Return an input as the notebook gets it."""
    name = parameter.removeprefix(GIVEN_AS)
    if isinstance(value, list):
        return [_given(f"{name}-{number}", item, place) for number, item in enumerate(value)]
    if type(value).__module__.startswith("polars."):
        file = place / f"{name}.parquet"
        value.lazy().sink_parquet(file)
        return str(file)
    if isinstance(value, Value):
        return plain(value)
    try:
        return json.loads(json.dumps(value, allow_nan=True))
    except TypeError as error:
        raise UserError(
            "notebook-input",
            f"the input `{name}` is a `{type(value).__name__}`, which a notebook cannot be given",
            hint="give it tables, numbers, texts, lists or dicts",
        ) from error


def _values(kept: Sequence[str], place: Path) -> list[Any]:
    import polars as pl

    found = json.loads((place / "kept.json").read_text("utf-8"))
    return [found[name] if name in found else pl.read_parquet(place / f"{name}.parquet") for name in kept]


@contextmanager
def _short(place: Path) -> Iterator[str]:
    """Give a folder for sockets: this one, or where its path is too long another that goes away as well."""
    if len(str(place)) <= _LONGEST_FOLDER:
        yield str(place)
        return
    with tempfile.TemporaryDirectory(prefix="yard-", dir="/tmp") as folder:
        yield folder


@contextmanager
def _jupyter_in(place: Path, root: Path) -> Iterator[None]:
    """Let Jupyter keep its files in a folder that goes away, read no settings, and import the project's modules."""
    mine = {
        "JUPYTER_RUNTIME_DIR": str(place),
        "IPYTHONDIR": str(place / "ipython"),
        "PYTHONWARNINGS": ",".join(filter(None, [os.environ.get("PYTHONWARNINGS", ""), _UNSAID])),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(root.resolve()), os.environ.get("PYTHONPATH", "")])),
    }
    before = {name: os.environ.get(name) for name in mine}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _read(notebook: str, root: Path) -> dict[str, Any]:
    file = root / notebook
    if not file.is_file():
        raise NotFound("notebook-not-found", f"there is no notebook `{notebook}`", hint="write it, or mend its name")
    try:
        read: dict[str, Any] = json.loads(file.read_bytes())
        if read["nbformat"] != 4 or not isinstance(read["cells"], list):
            raise ValueError(f"its format is {read['nbformat']}")
        for cell in read["cells"]:
            _source(cell)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            "notebook-unreadable",
            f"`{notebook}` is not a notebook of format 4: {error}",
            where=notebook,
            hint="save it again",
        ) from error
    return read


def _source(cell: dict[str, Any]) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def _kernel(read: dict[str, Any]) -> str:
    return str(read.get("metadata", {}).get("kernelspec", {}).get("name") or _KERNEL)


def _tree(read: dict[str, Any]) -> ast.Module:
    """Return what the code cells import; a cell that is no Python is the kernel's to complain of."""
    body: list[ast.stmt] = []
    for cell in read["cells"]:
        if cell["cell_type"] == "code":
            lines = [line for line in _source(cell).splitlines() if not line.lstrip().startswith(_MAGIC)]
            try:
                body += ast.parse("\n".join(lines)).body
            except (SyntaxError, ValueError):
                continue
    return ast.Module(body, [])


def _shown(file: Path, root: Path) -> str:
    root = root.resolve()
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
