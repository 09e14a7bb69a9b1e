"""Which files of a project a piece of user code is made of."""

from __future__ import annotations

import ast
from pathlib import Path

from modelyard._kit.digest import digest_file, digest_of

__all__ = ["local_sources", "source_digest"]


def local_sources(path: Path, root: Path) -> list[Path]:
    """Return a Python file and every file of the project that it imports, directly or not, sorted.

    Args:
        path: The file to begin with.
        root: Folder of the project; modules found there or beside the importing file are followed, installed
            packages are not (the environment stands for them).

    Raises:
        SyntaxError: A file cannot be parsed.
    """
    seen: set[Path] = set()
    todo = [path.resolve()]
    while todo:
        file = todo.pop()
        if file in seen:
            continue
        seen.add(file)
        for module in _imported(ast.parse(file.read_bytes(), filename=str(file))):
            for folder in {file.parent, root.resolve()}:
                stem = folder.joinpath(*module.split("."))
                todo.extend(f.resolve() for f in (stem.with_suffix(".py"), stem / "__init__.py") if f.is_file())
    return sorted(seen)


def source_digest(path: Path, root: Path) -> str:
    """Return one digest over the content of `local_sources`; names count relative to `root`."""
    parts = []
    for file in local_sources(path, root):
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
        parts.append([name, digest_file(file)])
    return digest_of(parts)


def _imported(tree: ast.AST) -> list[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if base:
                names.append(base)
            # `from package import module`: what is imported may be a module of its own.
            names.extend(f"{base}.{alias.name}" if base else alias.name for alias in node.names if alias.name != "*")
    return names
