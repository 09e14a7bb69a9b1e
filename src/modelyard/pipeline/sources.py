"""Keep the project's own code as it was: the files that a step's function is made of, once a version.

`bisect`, `replay` and the cause of a failure say what changed since; a digest alone could only say that something did.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from modelyard._kit.digest import canonical, digest_bytes
from modelyard._kit.errors import NotFound, Tampered
from modelyard._kit.source import local_sources, same_code
from modelyard.pipeline.code import code_version, import_root
from modelyard.records import Step
from modelyard.store import Store

__all__ = ["Source", "changed_files", "kept_source", "named_code", "read_source", "written_source"]

# Larger files are no code that a person reads; of them only the digest is kept.
_LARGE = 1 << 20
_MOST = 500
# Project, code, state -> digest of the source: files are read once a version and process.
_known: dict[tuple[str, str, str], str] = {}


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The files that a function is made of, as one blob.

    Attributes:
        function: Its name.
        main: The file that it stands in.
        files: Path relative to the project -> digest of its content, which is a blob.
        left_out: The same for files whose content was too large to keep.
    """

    function: str
    main: str = ""
    files: dict[str, str]
    left_out: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class _Files:
    """A function of the user, the file that it stands in, and all that it is made of."""

    function: str
    main: Path
    files: list[Path]
    root: Path


def _files(step: Step, function: Callable[..., Any] | None, root: Path) -> _Files | None:
    """Return what a step's function is made of: one named by its verb, or by a parameter as features and notebooks are.

    Built-in steps have none.
    """
    root = root.resolve()
    said = step.verb if _is_file(step.verb) else named_code(step)
    if said.endswith(".ipynb"):
        notebook = (root / said).resolve()
        return _Files(said, notebook, [notebook], root) if notebook.is_file() else None
    if _is_file(said):
        path, _, name = said.rpartition(":")
        main = (root / path).resolve()
    elif not step.verb.startswith("modelyard.") and function is not None:
        name = getattr(function, "__qualname__", "")
        where = getattr(sys.modules.get(function.__module__), "__file__", None)
        if not where:
            return None
        main = Path(where).resolve()
        if not main.is_relative_to(root):
            root = import_root(main, function.__module__)
    else:
        return None
    if not main.is_file():
        return None
    try:
        files = local_sources(main, root)
    except (SyntaxError, ValueError):
        files = [main]  # it cannot run either, and which line it is is what one wants to see
    return _Files(name, main, files, root)


def named_code(step: Step) -> str:
    """Return the code of the user that a built-in step runs: `features.py:build`, `report.ipynb`; empty for none."""
    return str(step.params.get("function") or step.params.get("notebook") or "")


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
    if step.verb.startswith("modelyard.") and not named_code(step):
        return ""
    # Not the step's name, which its key's `code` holds: a thousand steps of one function have one source.
    code = made_of["code"] if function is None else code_version(function)
    version = (str(store.root), f"{step.verb} {named_code(step)} {code}", made_of["state"])
    if version not in _known:
        if len(_known) > 10_000:
            _known.clear()
        _known[version] = written_source(step, function, store)
    return _known[version]


def written_source(step: Step, function: Callable[..., Any] | None, store: Store) -> str:
    """Store the source of a step's function as it is now and return its digest; empty for built-in steps."""
    made_of = _files(step, function, store.root)
    if made_of is None:
        return ""
    found: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for file in [made_of.main, *made_of.files][:_MOST]:
        data = file.read_bytes()
        shown = _shown(file, made_of.root)
        if len(data) > _LARGE:
            left_out[shown] = digest_bytes(data)
        else:
            found[shown] = store.blobs.put(data)
    main = _shown(made_of.main, made_of.root)
    source = Source(function=made_of.function, main=main, files=found, left_out=left_out)
    return store.blobs.put(canonical(source))


def _shown(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


def read_source(digest: str, store: Store) -> Source | None:
    """Return what was stored; none if nothing was, or it is not there any more."""
    if not digest:
        return None
    try:
        return msgspec.json.decode(store.blobs.get(digest), type=Source)
    except (NotFound, Tampered, msgspec.MsgspecError):
        return None


def changed_files(old: Source, new: Source, store: Store) -> list[str]:
    """Return the files that are another code in one source than in the other; comments and layout do not count."""
    before, after = {**old.left_out, **old.files}, {**new.left_out, **new.files}
    differing = [file for file in sorted({*before, *after}) if before.get(file) != after.get(file)]
    return [file for file in differing if not _same(file, old.files.get(file), new.files.get(file), store)]


def _same(file: str, old: str | None, new: str | None, store: Store) -> bool:
    if old is None or new is None or not file.endswith(".py"):
        return False
    try:
        return same_code(store.blobs.get(old), store.blobs.get(new))
    except (NotFound, Tampered):
        return False
