"""Load a Python file of the project and let it import its neighbours, without leaving a trace in the process.

Several projects, or several versions of one, may pass through one process: what was imported for one is not there for
the next.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from modelyard._kit.digest import digest_bytes
from modelyard._kit.source import local_sources

__all__ = ["Neighbours", "importable", "is_own", "module_of"]

# What is not the user's code: Modelyard and the standard library.
_OTHERS = (Path(__file__).resolve().parents[1], Path(importlib.__file__).resolve().parents[1])


def is_own(file: str) -> bool:
    """Say whether code of a file is the user's own: not Modelyard's, nor that of a library."""
    path = Path(file)
    library = {"site-packages", "dist-packages"} & {*path.parts}
    return path.is_file() and not library and not any(path.is_relative_to(folder) for folder in _OTHERS)


def module_of(file: Path) -> ModuleType:
    """Run a file as a module of its own and return it; to be called where its project is `importable`.

    It is compiled from its text: a bytecode file is taken for current when size and second are the same, and would
    hide an edit made right after a run.

    Raises:
        Exception: Whatever the file raises.
    """
    module = ModuleType(f"_modelyard_user_{digest_bytes(str(file).encode())[:12]}")
    module.__file__ = str(file)
    # Dataclasses and pickle look their module up here.
    sys.modules[module.__name__] = module
    exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)  # noqa: S102 - the user's own code, on their behalf
    return module


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What a file of a project may import of it.

    Attributes:
        folders: Where to look: beside the file, and in the folder of the project.
        modules: Names of the modules of the project that it imports.
    """

    folders: tuple[str, ...]
    modules: frozenset[str]

    @classmethod
    def of(cls, file: Path, root: Path, sources: Iterable[Path] | None = None) -> Neighbours:
        """Return the neighbours of a file.

        Args:
            file: The user's file.
            root: Folder of the project.
            sources: `local_sources` of the file, where they are known.
        """
        found = _sources(file, root) if sources is None else sources
        # A package's name is its folder's.
        names = {s.parent.name if s.name == "__init__.py" else s.stem for s in found if s != file}
        return cls(tuple(dict.fromkeys([str(file.parent), str(root.resolve())])), frozenset(names))


@contextmanager
def importable(near: Neighbours) -> Iterator[None]:
    """Let the neighbours of a file be imported while the context is open."""
    hidden = {}
    if near.modules:
        hidden = {n: sys.modules.pop(n) for n in list(sys.modules) if n.partition(".")[0] in near.modules}
        importlib.invalidate_caches()
    before, path, bytecode = set(sys.modules), list(sys.path), sys.dont_write_bytecode
    sys.path[:0] = near.folders
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, bytecode
        for name in sys.modules.keys() - before:
            origin = getattr(sys.modules[name], "__file__", None) or ""
            if any(origin.startswith(f"{folder}/") for folder in near.folders) and "site-packages" not in origin:
                del sys.modules[name]
        sys.modules.update(hidden)


def _sources(file: Path, root: Path) -> list[Path]:
    try:
        return local_sources(file, root.resolve())
    except (SyntaxError, ValueError):
        # It cannot run either, and that says where.
        return []
