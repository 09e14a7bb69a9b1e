"""Look at what the file names outside itself: data files, and the user's function, without running it."""

from __future__ import annotations

import ast
import glob
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from modelyard._kit.errors import DataError, near
from modelyard.spec.functions import parsed

__all__ = ["file_problems", "function_problems", "notebook_problems", "pattern_problems", "source_problems"]

# Code, message and hint.
_Found = tuple[str, str, str]
_MAGIC = re.compile(r"[*?\[]")


def source_problems(pattern: str, root: Path) -> Iterator[_Found]:
    """Yield what is wrong with one `from` of a table."""
    if "://" in pattern:
        yield from _address_problems(pattern, root)
        return
    yield from pattern_problems(pattern, root, "from: data/*.csv")


def pattern_problems(pattern: str, root: Path, example: str) -> Iterator[_Found]:
    """Yield what is wrong with a name of a file, or with a pattern of names.

    Args:
        pattern: The name, relative to the project.
        root: Folder of the project.
        example: The field with a value, as the file has it.
    """
    field = example.partition(":")[0]
    if not pattern.strip():
        yield "spec-bad-value", f'a name in "{field}" is empty', f"for example `{example}`"
        return
    if "\0" in pattern:
        yield "spec-bad-value", f'a name in "{field}" holds a NUL character', f"for example `{example}`"
        return
    outside = _outside(pattern, root)
    if outside:
        yield outside
    elif not _anything(root / Path(pattern).expanduser()):
        yield "spec-missing-file", f'"{pattern}" matches no file', _near_files(pattern, root)


def _address_problems(address: str, root: Path) -> Iterator[_Found]:
    """Ask the house that reads them whether anything installed reads such addresses."""
    from modelyard.data.sources import source_for

    try:
        source_for(address, root)
    except DataError as error:
        yield error.code, error.problem.message, error.problem.hint


def function_problems(path: str, root: Path, parameters: str = "tables") -> Iterator[_Found]:
    """Yield what is wrong with `FILE.py:FUNCTION`; the file is parsed and never run.

    Args:
        path: `FILE.py:FUNCTION`, relative to the project.
        root: Folder of the project.
        parameters: What the function takes, as the hint writes it.
    """
    name, _, function = path.rpartition(":")
    outside = _outside(name, root)
    if outside:
        yield outside
        return
    file = root / name
    if not file.is_file():
        yield "spec-missing-file", f'there is no file "{name}"', _near_files(name, root)
        return
    try:
        tree = parsed(file.read_bytes(), name)
    except SyntaxError as error:
        yield "spec-bad-function", f'"{name}" is not Python: {error.msg}, line {error.lineno}', "mend that line"
        return
    except (ValueError, OSError, RecursionError, MemoryError) as error:
        yield "spec-bad-function", f'"{name}" cannot be read: {error}', "mend the file"
        return
    known = list(_names(tree))
    if function not in known:
        close = near(function, known)
        hint = f"did you mean `{name}:{close[0]}`?" if close else f"write `def {function}({parameters})` in {name}"
        yield "spec-missing-function", f'"{name}" has no function "{function}"', hint


def file_problems(name: str, root: Path) -> Iterator[_Found]:
    """Yield what is wrong with the name of one file; what stands in it is not looked at."""
    if not name.strip() or "\0" in name:
        yield "spec-bad-value", f'"{name.strip()}" is no name of a file', "name a file of the project"
    elif outside := _outside(name, root):
        yield outside
    elif not (root / Path(name).expanduser()).is_file():
        yield "spec-missing-file", f'there is no file "{name}"', _near_files(name, root)


def notebook_problems(name: str, root: Path) -> Iterator[_Found]:
    """Yield what is wrong with a notebook; it is read and never run."""
    outside = _outside(name, root)
    if outside:
        yield outside
        return
    file = root / name
    if not file.is_file():
        yield "spec-missing-file", f'there is no file "{name}"', _near_files(name, root)
        return
    try:
        read = json.loads(file.read_bytes())
        cells, version = read["cells"], read["nbformat"]
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        yield "spec-bad-notebook", f'"{name}" is not a notebook', "save it again, as a notebook of format 4"
        return
    if not isinstance(cells, list) or version != 4:
        yield "spec-bad-notebook", f'"{name}" is a notebook of format {version}', "save it as a notebook of format 4"


def _outside(name: str, root: Path) -> _Found | None:
    """An absolute path is the user's word; a relative one may not climb out of the project."""
    if Path(name).expanduser().is_absolute():
        return None
    if Path(os.path.normpath(name)).parts[:1] != (os.pardir,):
        return None
    full = os.path.normpath(root / name)
    return (
        "spec-path-outside",
        f'"{name}" leads out of the folder of the project',
        f"if that is meant, give the whole path: `{full}`",
    )


def _anything(pattern: Path) -> bool:
    if not _MAGIC.search(str(pattern)):
        if pattern.is_dir():
            return any(not p.name.startswith(".") for p in pattern.iterdir())
        return pattern.exists()
    # `Path.glob` takes no absolute pattern.
    return any(True for _ in glob.iglob(str(pattern), recursive=True))  # noqa: PTH207


def _near_files(pattern: str, root: Path) -> str:
    """Say what there is near by, in the deepest folder of the pattern that exists."""
    wanted = Path(pattern)
    while not (root / wanted.parent).is_dir() and wanted.parent != wanted:
        wanted = wanted.parent
    folder = root / wanted.parent
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    close = near(wanted.name, names)
    if close:
        return "did you mean " + " or ".join(f"`{wanted.parent / c}`" for c in close) + "?"
    there = "the folder of the project" if wanted.parent == Path() else f"`{wanted.parent}`"
    if not names:
        return f"{there} is empty"
    return f"in {there} there is: {', '.join(names[:5])}" + (", ..." if len(names) > 5 else "")


def _names(tree: ast.Module) -> Iterator[str]:
    """Yield the names that the top of a module defines."""
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name):
                yield name
            case ast.ImportFrom(names=aliases):
                yield from (alias.asname or alias.name for alias in aliases)
            case ast.Assign(targets=targets):
                yield from (t.id for t in targets if isinstance(t, ast.Name))
