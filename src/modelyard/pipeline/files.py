"""Functions of a project's files: `steps.py:clean` means the same in every process and every checkout."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from modelyard._kit.digest import digest_file, digest_of
from modelyard._kit.errors import NotFound, UserError, near
from modelyard._kit.source import local_sources, source_digest
from modelyard._kit.usercode import Neighbours, importable, module_of

__all__ = ["FileFunction", "file_function", "file_version"]


class FileFunction:
    """A function of a file of the project, which can import its neighbours while it runs.

    Attributes:
        version: Digest of its name, its file and the files of the project that this imports.
    """

    def __init__(self, function: Callable[..., Any], near: Neighbours, version: str) -> None:
        self._function, self._near = function, near
        self.version = version
        self.__name__ = self.__qualname__ = function.__name__
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__
        self.__signature__ = inspect.signature(function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        with importable(self._near):
            return self._function(*args, **kwargs)


@dataclass(slots=True)
class _Loaded:
    """A file as it was when it was read: its sources with their digests, and once it was run what came of it."""

    file: Path
    digests: dict[Path, str]
    digest: str
    near: Neighbours
    module: ModuleType | None = None
    functions: dict[str, FileFunction] = field(default_factory=dict)


# Project and path in it -> the file.
_loaded: dict[tuple[Path, str], _Loaded] = {}


def file_function(path: str, name: str, root: Path) -> FileFunction:
    """Return a function of a file; the file is run again only when it, or one that it imports, has changed.

    Args:
        path: The file, relative to the project.
        name: The function.
        root: Folder of the project.

    Raises:
        NotFound: There is no such file or function; the near names are in the hint.
        UserError: The file is not Python (`function-unreadable`).
    """
    loaded = _read(path, name, root.resolve())
    if loaded.module is None:
        with importable(loaded.near):
            loaded.module = module_of(loaded.file)
    if name not in loaded.functions:
        loaded.functions[name] = _function(path, name, loaded)
    return loaded.functions[name]


def file_version(path: str, name: str, root: Path) -> str:
    """Return the version that a function of a file has; the file is not run.

    Args:
        path: The file, relative to the project.
        name: The function.
        root: Folder of the project.

    Raises:
        NotFound: There is no such file.
        UserError: The file is not Python (`function-unreadable`).
    """
    return _version(name, _read(path, name, root.resolve()))


def _read(path: str, name: str, root: Path) -> _Loaded:
    loaded = _loaded.get((root, path))
    if loaded is not None and _digests(loaded.digests) == loaded.digests:
        return loaded
    file = (root / path).resolve()
    if not file.is_file():
        close = near(path, [p.relative_to(root).as_posix() for p in root.glob("*.py")])
        hint = f"did you mean `{close[0]}`?" if close else f"write it, with a function `{name}`"
        raise NotFound("function-not-found", f"there is no file `{path}` for the step function `{name}`", hint=hint)
    loaded = _loaded[root, path] = _load(path, file, root)
    return loaded


def _version(name: str, loaded: _Loaded) -> str:
    return digest_of([name, loaded.digest])


def _digests(files: dict[Path, str]) -> dict[Path, str]:
    return {file: digest_file(file) if file.is_file() else "" for file in files}


def _load(path: str, file: Path, root: Path) -> _Loaded:
    try:
        sources = local_sources(file, root)
        digests = _digests(dict.fromkeys(sources, ""))
        digest = source_digest(file, root)
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise UserError(
            "function-unreadable",
            f"`{path}`, or a file of the project that it imports, is not Python: {error}",
            where=f"{path}{line}",
            hint="correct it",
        ) from error
    return _Loaded(file, digests, digest, Neighbours.of(file, root, sources))


def _function(path: str, name: str, loaded: _Loaded) -> FileFunction:
    function = getattr(loaded.module, name, None)
    if not callable(function):
        known = [n for n, v in vars(loaded.module).items() if callable(v) and not n.startswith("_")]
        close = near(name, known)
        hint = f"did you mean `{close[0]}`?" if close else f"define `def {name}(...)` in it"
        raise NotFound("function-not-found", f"`{path}` has no function `{name}`", hint=hint)
    return FileFunction(function, loaded.near, _version(name, loaded))
