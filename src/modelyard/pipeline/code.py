"""The version of a step's code, as a digest: change the code, and the step runs again."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from modelyard._kit.digest import digest_file, digest_of
from modelyard._kit.errors import NotFound, UserError, near
from modelyard._kit.source import source_digest
from modelyard.pipeline.files import FileFunction, file_function, file_version

__all__ = ["code_version", "find", "import_root", "verb_of", "version_of"]

_PACKAGE = Path(__file__).resolve().parents[1]
# What our own steps compute with, besides their own house.
_SHARED_HOUSES = ("_kit", "records", "inference", "checks")
# The steps of `pipeline` join houses: what they call counts as well.
_JOINED_HOUSES = {"pipeline": ("models",)}


def verb_of(function: Callable[..., Any]) -> str:
    """Return the dotted path `module:name` of a function."""
    return f"{function.__module__}:{function.__qualname__}"


def find(verb: str, root: Path | None = None) -> Callable[..., Any]:
    """Return the function that a verb names.

    Args:
        verb: `package.module:function`, or `FILE.py:FUNCTION` of a project.
        root: Folder of the project; the present one by default. Only a function of a file needs it.

    Raises:
        NotFound: There is no such module, file or function; the near names are in the hint.
        UserError: The file is not Python.
    """
    file, _, name = verb.rpartition(":")
    return file_function(file, name, root or Path.cwd()) if file.endswith(".py") else _imported(verb)


@cache
def _imported(verb: str) -> Callable[..., Any]:
    module_name, _, name = verb.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise NotFound("function-not-found", f"no module `{error.name}` for step function `{verb}`") from error
    function = getattr(module, name, None)
    if not callable(function):
        close = near(name, [n for n in vars(module) if not n.startswith("_")])
        hint = f"did you mean `{close[0]}`?" if close else f"define `{name}` in `{module_name}`"
        raise NotFound("function-not-found", f"no function `{name}` in module `{module_name}`", hint=hint)
    return function  # type: ignore[no-any-return]


@cache
def code_version(function: Callable[..., Any]) -> str:
    """Return the digest of everything of the project or of Modelyard that a function's result depends on.

    For a function of Modelyard: its house and the houses every step computes with. For a user's function: its file and
    the files of the project that it imports.

    Raises:
        UserError: The function closes over variables, or was typed into a session: no digest could see a change.
    """
    if isinstance(function, FileFunction):
        return function.version
    if getattr(function, "__closure__", None):
        raise UserError(
            "step-closure",
            f"step function `{function.__qualname__}` uses variables of the function around it",
            hint="pass them as parameters, so that a change of their value is seen",
        )
    module = function.__module__
    if module.startswith("modelyard."):
        house = module.split(".")[1]
        houses = sorted({house, *_SHARED_HOUSES, *_JOINED_HOUSES.get(house, ())})
        return digest_of([_house_digest(h) for h in houses])
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file or not Path(file).is_file():
        raise UserError(
            "step-without-file",
            f"step function `{function.__qualname__}` was typed into a session, where no change of it can be seen",
            hint="write it into a file and import it",
        )
    path = Path(file).resolve()
    return digest_of([function.__qualname__, source_digest(path, import_root(path, module))])


def version_of(verb: str, root: Path | None = None) -> str:
    """Return the `code_version` of what a verb names; a file of a project is read for it and not run.

    Args:
        verb: As for `find`.
        root: As for `find`.

    Raises:
        NotFound: There is no such module, file or function.
        UserError: The file is not Python, or no digest could see a change of the function.
    """
    file, _, name = verb.rpartition(":")
    if file.endswith(".py"):
        return file_version(file, name, root or Path.cwd())
    return code_version(find(verb))


def import_root(path: Path, module: str) -> Path:
    """Return the folder that a module's imports are found from: above its top package, or beside a script."""
    depth = 0 if module == "__main__" else module.count(".") + (path.name == "__init__.py")
    return path.parents[min(depth, len(path.parents) - 1)]


@cache
def _house_digest(house: str) -> str:
    files = sorted((_PACKAGE / house).rglob("*.py"))
    return digest_of([[f.relative_to(_PACKAGE).as_posix(), digest_file(f)] for f in files])
