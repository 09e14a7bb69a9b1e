"""Which files of a project a piece of user code is made of."""

from __future__ import annotations

import ast
from pathlib import Path
from threading import Lock

from modelyard._kit.digest import digest_bytes, digest_of

__all__ = ["imported_sources", "local_sources", "parse", "same_code", "source_digest"]

_parsing = Lock()


def parse(data: bytes, name: str) -> ast.Module:
    """Parse the text of a file, in one thread at a time.

    CPython 3.11 counts the depth of its own recursion for all threads together, and gives up when they differ.

    Args:
        data: The text.
        name: Name of the file, for errors.

    Raises:
        SyntaxError: It is not Python.
        ValueError: It holds a NUL character.
    """
    with _parsing:
        return ast.parse(data, filename=name)


def local_sources(path: Path, root: Path) -> list[Path]:
    """Return a Python file and every file of the project that it imports, directly or not, sorted.

    Args:
        path: The file to begin with.
        root: Folder of the project; modules found there or beside the importing file are followed, installed
            packages are not (the environment stands for them).

    Raises:
        SyntaxError: A file cannot be parsed.
    """
    return sorted(_closed([path.resolve()], root.resolve()))


def imported_sources(tree: ast.Module, folder: Path, root: Path) -> list[Path]:
    """Return every file of the project that a piece of code imports, directly or not, sorted.

    Args:
        tree: The code, which stands in no Python file of its own.
        folder: Where it is run.
        root: Folder of the project.

    Raises:
        SyntaxError: A file cannot be parsed.
    """
    return sorted(_closed(_beside(tree, folder / "_", root.resolve()), root.resolve()))


def _closed(todo: list[Path], root: Path) -> dict[Path, ast.Module]:
    """Return these files and all that they import, each parsed."""
    seen: dict[Path, ast.Module] = {}
    while todo:
        file = todo.pop()
        if file not in seen:
            seen[file] = parse(file.read_bytes(), str(file))
            todo += _beside(seen[file], file, root)
    return seen


def _beside(tree: ast.Module, file: Path, root: Path) -> list[Path]:
    """Return the files that the code of one file imports."""
    found: list[Path] = []
    for module, level in _imported(tree):
        # A relative import climbs from its own package; an absolute one is found from the project or the file.
        above = file.parents[min(level, len(file.parents)) - 1] if level else file.parent
        for folder in {above} if level else {above, root}:
            stem = folder.joinpath(*filter(None, module.split(".")))
            found += [f.resolve() for f in (stem.with_suffix(".py"), stem / "__init__.py") if f.is_file()]
    return found


def source_digest(path: Path, root: Path) -> str:
    """Return one digest over what `local_sources` would run; names count relative to `root`.

    Comments, blank lines and how a line is broken count for nothing; docstrings do, since code may read them.

    Raises:
        SyntaxError: A file cannot be parsed.
    """
    root = root.resolve()
    parts = []
    for file, tree in sorted(_closed([path.resolve()], root).items()):
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
        parts.append([name, digest_bytes(_meaning(tree).encode())])
    return digest_of(parts)


def same_code(old: bytes, new: bytes) -> bool:
    """Say whether two texts of a file are the same code; what cannot be parsed is not."""
    try:
        return _meaning(parse(old, "old")) == _meaning(parse(new, "new"))
    except (SyntaxError, ValueError):
        return False


def _meaning(tree: ast.Module) -> str:
    """Return a text that two trees share only if they say the same, wherever it stands in the file."""
    # `ast.dump` calls itself for each level, and an expression may have thousands.
    found: list[str] = []
    todo: list[object] = [tree]
    while todo:
        match todo.pop():
            case ast.AST() as node:
                found.append(type(node).__name__)
                todo += (getattr(node, name, None) for name in node._fields)
            case list() as nodes:
                found.append(f"{len(nodes)} of")
                todo += nodes
            case bool() | None as value:
                found.append(repr(value))
            case int() as value:
                # Python refuses to write long ones as decimals.
                found.append(hex(value))
            case value:
                found.append(ascii(value))
    return "\n".join(found)


def _imported(tree: ast.AST) -> list[tuple[str, int]]:
    """Return the modules that are imported, each with how many packages it climbs (0 for an absolute import)."""
    names: list[tuple[str, int]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            # `import a.b` runs `a` as well.
            names.extend((part, 0) for alias in node.names for part in _prefixes(alias.name))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names.extend((part, node.level) for part in _prefixes(base))
            # `from package import module`: what is imported may be a module of its own.
            names.extend((f"{base}.{alias.name}", node.level) for alias in node.names if alias.name != "*")
    return names


def _prefixes(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))] if module else []
