"""Read what a user's function takes, and what `@modelyard.step` says of it, without running its file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from modelyard._kit.source import parse

__all__ = ["GIVEN", "Taken", "parsed", "read_function"]

# Parameters that the runner fills in by itself.
GIVEN = ("fire", "previous")

_Definition = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Taken:
    """What a function takes.

    Attributes:
        file: Its file, as it was named.
        line: Where it begins.
        needed: Parameters that must be given.
        names: Every parameter that can be given by its name.
        anything: It takes parameters of any name (`**more`).
        nameless: Parameters that must be given and cannot be by name.
        settings: Keyword -> value of `@modelyard.step(...)`.
        unread: Keywords of it whose value is not a plain literal, with their lines.
        about: First line of its docstring.
    """

    file: str
    line: int
    needed: tuple[str, ...]
    names: tuple[str, ...]
    anything: bool = False
    nameless: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    about: str = ""

    @property
    def place(self) -> str:
        """`steps.py:12`."""
        return f"{self.file}:{self.line}"


@lru_cache(maxsize=8)
def parsed(data: bytes, name: str) -> ast.Module:
    """Return the parsed text of a file, see `parse`; many steps stand in one."""
    return parse(data, name)


def read_function(path: str, root: Path) -> Taken | None:
    """Return what a function takes; none where its file does not say (it is imported, assigned or not there).

    Args:
        path: `FILE.py:FUNCTION`, relative to the project.
        root: Folder of the project.
    """
    file, _, name = path.rpartition(":")
    try:
        tree = parsed((root / file).read_bytes(), file)
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        return None
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    if not found:
        return None
    node = found[-1]
    # Any other decorator may change what is taken.
    plain = all(_is_step(decorator, tree) for decorator in node.decorator_list)
    settings, unread = _settings(node, tree)
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    nameless = [a.arg for a in arguments.posonlyargs[: len(positional) - len(arguments.defaults)]]
    needed = [a.arg for a in positional[: len(positional) - len(arguments.defaults)] if a.arg not in nameless]
    optional = [a for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    needed += [a.arg for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is None]
    return Taken(
        file=file,
        line=node.lineno,
        needed=tuple(needed) if plain else (),
        names=tuple(a.arg for a in [*arguments.args, *optional]),
        anything=arguments.kwarg is not None or not plain,
        nameless=tuple(nameless) if plain else (),
        settings=settings,
        unread=unread,
        about=(ast.get_docstring(node) or "").partition("\n")[0],
    )


def _settings(node: _Definition, tree: ast.Module) -> tuple[dict[str, Any], dict[str, int]]:
    settings: dict[str, Any] = {}
    unread: dict[str, int] = {}
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and _is_step(decorator, tree):
            for keyword in decorator.keywords:
                try:
                    settings[keyword.arg or "**"] = ast.literal_eval(keyword.value)
                except ValueError:
                    unread[keyword.arg or "**"] = keyword.value.lineno
    return settings, unread


def _is_step(decorator: ast.expr, tree: ast.Module) -> bool:
    """Say whether a decorator is `modelyard.step`, under whatever name the file imports it."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(called) in set(_names_of_step(tree))


def _names_of_step(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        match node:
            case ast.Import(names=names):
                yield from (f"{a.asname or a.name}.step" for a in names if a.name == "modelyard")
            case ast.ImportFrom(module="modelyard", names=names):
                yield from (a.asname or a.name for a in names if a.name == "step")
