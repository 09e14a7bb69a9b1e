"""Keep the project's own code as it was: the files that a step's function is made of, once a version.

`bisect`, `replay` and the cause of a failure say what changed since; a digest alone could only say that something did.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from modelyard._kit.digest import digest_bytes
from modelyard._kit.errors import NotFound, Tampered
from modelyard._kit.source import local_sources
from modelyard.records import Step
from modelyard.store import Store

__all__ = ["Source", "kept_source", "read_source", "source_files", "write_source"]

# Larger files are no code that a person reads; of them only the digest is kept.
_LARGE = 1 << 20
_MOST = 500
# Project, code, state -> digest of the source: files are read once a version and process.
_known: dict[tuple[str, str, str], str] = {}


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The files that a function is made of, as one blob.

    Attributes:
        function: Its name.
        files: Path relative to the project -> digest of its content, which is a blob.
        left_out: The same for files whose content was too large to keep.
    """

    function: str
    files: dict[str, str]
    left_out: dict[str, str] = {}


def source_files(step: Step, function: Callable[..., Any] | None, root: Path) -> tuple[str, list[Path]]:
    """Return the name of the user's function that a step calls, and the files of the project it is made of.

    A step calls one by its verb, or by a parameter `function` as the features do. Built-in steps have none.
    """
    said = step.verb if _is_file(step.verb) else str(step.params.get("function") or "")
    if _is_file(said):
        path, _, name = said.rpartition(":")
        file = (root / path).resolve()
    elif not step.verb.startswith("modelyard.") and function is not None:
        name = getattr(function, "__qualname__", "")
        where = getattr(sys.modules.get(function.__module__), "__file__", None)
        if not where:
            return "", []
        file = Path(where).resolve()
    else:
        return "", []
    if not file.is_file():
        return name, []
    try:
        return name, local_sources(file, root.resolve())
    except (SyntaxError, ValueError):
        return name, [file]  # it cannot run either, and which line it is is what one wants to see


def _is_file(text: str) -> bool:
    return text.rpartition(":")[0].endswith(".py")


def kept_source(step: Step, function: Callable[..., Any] | None, made_of: dict[str, str], store: Store) -> str:
    """Store the source of a step's function if this version is new, and return its digest; empty for built-in steps.

    Args:
        step: The step.
        function: Its function.
        made_of: What its key was made of.
        store: Where it is kept.
    """
    if step.verb.startswith("modelyard.") and not step.params.get("function"):
        return ""
    version = (str(store.root), made_of["code"], made_of["state"])
    if version not in _known:
        name, files = source_files(step, function, store.root)
        if len(_known) > 10_000:
            _known.clear()
        _known[version] = write_source(name, files, store) if files else ""
    return _known[version]


def write_source(name: str, files: list[Path], store: Store) -> str:
    """Store files and return the digest of what tells of them."""
    root = store.root.resolve()
    found: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for file in files[:_MOST]:
        data = file.read_bytes()
        shown = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
        if len(data) > _LARGE:
            left_out[shown] = digest_bytes(data)
        else:
            found[shown] = store.blobs.put(data)
    return store.blobs.put(msgspec.json.encode(Source(function=name, files=found, left_out=left_out), order="sorted"))


def read_source(digest: str, store: Store) -> Source | None:
    """Return what was stored; none if nothing was, or it is not there any more."""
    if not digest:
        return None
    try:
        return msgspec.json.decode(store.blobs.get(digest), type=Source)
    except (NotFound, Tampered, msgspec.MsgspecError):
        return None
