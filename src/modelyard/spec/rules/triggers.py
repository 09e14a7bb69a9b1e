"""What cannot hold together in a trigger, and what it names that is not there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from modelyard._kit.errors import near
from modelyard.spec.declaration import Declaration
from modelyard.spec.report import Finding
from modelyard.spec.sections.triggers import (
    KINDS,
    Hook,
    OwnTrigger,
    kinds_of,
    split_pattern,
    sqlite_file,
    watched_column,
)

__all__ = ["trigger_rules"]

# Field -> kinds of trigger that it means something for; the others hold for all.
_FIELDS = {
    "on": ("files", "blobs", "after"),
    "table": ("sql",),
    "query": ("sql",),
    "watch": ("sql",),
    "password": ("sql",),
    "every": ("files", "blobs", "sql", "after", "drift"),
    "settle": ("files", "blobs", "sql"),
    "each": ("files", "blobs"),
    "existing": ("files", "blobs", "sql", "after", "drift"),
    "follow": ("files",),
}
_ENDS = ("success", "failure", "any")
_CHANGES = ("created", "updated", "deleted")
_SCHEMES = ("s3", "s3a", "gs", "az", "adl", "abfs", "abfss", "azure", "file")
# A name of the environment as people write it; what a secret looks like does not fit.
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_LOOKS_SECRET = re.compile(r"whsec_|sk_|(?=[^_]{24,}\Z)(?=.*[0-9])(?=.*[A-Za-z])")
_SELECT = re.compile(r"(?is)\s*(select|with|values)\b")
# Projects that are looked at for a circle of them.
_MOST_PROJECTS = 100
# The trigger that the `schedule` section makes, and fires that people ask for.
_RESERVED = ("schedule", "manual")


def trigger_rules(
    d: Declaration, root: Path, places: Mapping[str, tuple[int, int]], *, files: bool
) -> Iterator[Finding]:
    """Yield what is wrong with the triggers.

    Args:
        d: The declaration.
        root: Folder of the project.
        places: Place of each path that is written in the file.
        files: Also look at the folders, files and libraries that they name.
    """
    for name, trigger in d.triggers.items():
        at = f"triggers.{name}"
        if name in _RESERVED:
            yield Finding(at, f'"{name}" is the name of a trigger that is there by itself', "give it another name")
        kinds = kinds_of(trigger)
        if len(kinds) != 1:
            yield _not_one(at, kinds)
            continue
        yield from _fields(at, kinds[0], trigger, places)
        match kinds[0]:
            case "files":
                yield from _files(at, trigger, root, files=files)
            case "blobs":
                yield from _blobs(at, str(trigger.blobs), files=files)
            case "sql":
                yield from _sql(at, trigger, root, files=files)
            case "webhook":
                assert trigger.webhook is not None  # noqa: S101 - for the type checker
                yield from _webhook(at, trigger.webhook)
            case "after":
                yield from _after(at, str(trigger.after), d, root, files=files)
            case "drift" if d.model is None:
                message = "a project without a model has no endpoint that could drift"
                yield Finding(f"{at}.drift", message, "add `model`, or take this trigger out", ("model",))
    yield from _shared_secrets(d)


def _shared_secrets(d: Declaration) -> Iterator[Finding]:
    """Yield webhooks with the secret of another: what is signed for one would be taken by the other."""
    owner: dict[str, str] = {}
    for name, trigger in d.triggers.items():
        secrets = trigger.webhook.secret if trigger.webhook is not None else ()
        for index, place in enumerate(secrets):
            first = owner.setdefault(place.removeprefix("env:"), name)
            if first != name:
                yield Finding(
                    f"triggers.{name}.webhook.secret" + (f".{index}" if len(secrets) > 1 else ""),
                    f'the webhooks "{first}" and "{name}" have one secret: each takes what is signed for the other',
                    "give each a secret of its own",
                )


def _not_one(at: str, kinds: list[str]) -> Finding:
    known = ", ".join(f"`{name}`" for name in KINDS)
    inside = (f"{at}.*",)
    if not kinds:
        return Finding(at, f'the trigger "{_name(at)}" watches nothing', f"give it one of {known}", inside)
    both = " and ".join(f'"{kind}"' for kind in kinds)
    return Finding(at, f'the trigger "{_name(at)}" watches {both}', "make it two triggers", inside)


def _name(at: str) -> str:
    return at.rpartition(".")[2]


def _fields(at: str, kind: str, trigger: OwnTrigger, places: Mapping[str, tuple[int, int]]) -> Iterator[Finding]:
    for field, kinds in _FIELDS.items():
        if kind not in kinds and f"{at}.{field}" in places:
            message = f'"{field}" says nothing for `{kind}`: it is for {" and ".join(f"`{k}`" for k in kinds)}'
            yield Finding(f"{at}.{field}", message, f"take `{field}` out")
    if kind not in _FIELDS["on"]:
        return
    known = _ENDS if kind == "after" else _CHANGES
    for index, word in enumerate(trigger.on):
        if word and word not in known:
            there = ", ".join(f"`{k}`" for k in known)
            place = f"{at}.on.{index}" if f"{at}.on.{index}" in places else f"{at}.on"
            yield Finding(place, f'"{word}" does not happen to `{kind}`', f"there is: {there}")


def _files(at: str, trigger: OwnTrigger, root: Path, *, files: bool) -> Iterator[Finding]:
    for index, pattern in enumerate(trigger.files):
        place = f"{at}.files" + (f".{index}" if len(trigger.files) > 1 else "")
        if not pattern.strip() or "\0" in pattern:
            yield Finding(place, "a name of files is empty or no name", "for example `files: data/in/*.csv`")
            continue
        if "://" in pattern:
            yield Finding(place, f'"{pattern}" is no path', f'write `blobs: "{pattern}"`')
            continue
        folder, parts = split_pattern(pattern)
        if Path(os.path.normpath(Path(pattern).expanduser())).parts[:1] == (os.pardir,):
            yield Finding(
                place,
                f'"{pattern}" leads out of the folder of the project',
                f"if that is meant, give the whole path: `{os.path.normpath(root / pattern)}`",
                code="spec-path-outside",
            )
        elif os.pardir in parts[1:]:
            yield Finding(place, f'"{pattern}" climbs after its first `*`', "write the pattern without `..`")
        elif files and not _is_folder(root / folder):
            yield Finding(place, f'there is no folder "{folder}"', _near_folder(folder, root), code="spec-missing-file")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _near_folder(folder: str, root: Path) -> str:
    """Name the near folders in the deepest one that exists; else say how it is made."""
    parent = Path(folder)
    while not _is_folder(root / parent.parent) and parent.parent != parent:
        parent = parent.parent
    try:
        names = [p.name for p in (root / parent.parent).iterdir() if p.is_dir() and not p.name.startswith(".")]
    except OSError:
        names = []
    close = near(parent.name, names)
    if close:
        return "did you mean " + " or ".join(f"`{(parent.parent / c).as_posix()}`" for c in close) + "?"
    return f"make it: `mkdir -p {folder}`; a folder that is not there tells nothing"


def _blobs(at: str, address: str, *, files: bool) -> Iterator[Finding]:
    parts = _split(address)
    scheme = parts[0]
    if scheme not in _SCHEMES:
        close = near(scheme, _SCHEMES)
        yield Finding(
            f"{at}.blobs",
            f'"{address}" is no address of objects' if not scheme else f'"{scheme}://" is not known',
            f"did you mean `{close[0]}://`?" if close else "for example `s3://bucket/prefix/`",
        )
    elif parts[1]:
        yield _secret(f"{at}.blobs", "an address of objects", "put it into the environment: `AWS_SECRET_ACCESS_KEY`")
    elif files and find_spec("obstore") is None:
        yield Finding(
            f"{at}.blobs",
            "watching objects needs obstore, which is not installed",
            "pip install 'modelyard[objects]'",
            code="spec-missing-extra",
        )


def _split(address: str) -> tuple[str, bool]:
    """Return the scheme, and whether a password stands in the address."""
    try:
        parts = urlsplit(address)
        return parts.scheme, bool(parts.password) or "sig=" in parts.query
    except ValueError:
        return "", False


def _secret(at: str, what: str, hint: str) -> Finding:
    return Finding(at, f"a secret stands in {what}", hint, code="spec-secret")


def _sql(at: str, trigger: OwnTrigger, root: Path, *, files: bool) -> Iterator[Finding]:
    address = str(trigger.sql)
    scheme, secret = _split(address)
    if secret:
        yield _secret(f"{at}.sql", "an address of a database", "take it out and say `password: VARIABLE`")
    elif scheme == "sqlite":
        yield from _sqlite(f"{at}.sql", address, root, files=files)
    elif scheme not in ("postgresql", "postgres"):
        yield Finding(
            f"{at}.sql",
            f'"{address}" is no address of a database that can be watched',
            "for example `sqlite:///orders.db` or `postgresql://reader@host/shop`",
        )
    elif files and find_spec("psycopg") is None:
        yield Finding(
            f"{at}.sql",
            "watching Postgres needs psycopg, which is not installed",
            "pip install 'modelyard[postgres]'",
            code="spec-missing-extra",
        )
    if (trigger.table is None) == (trigger.query is None):
        what = "both a table and a query" if trigger.table is not None else "neither a table nor a query"
        yield Finding(at, f'the trigger "{_name(at)}" has {what}', "give one of them", (f"{at}.table", f"{at}.query"))
    if trigger.table is not None and not all(part.strip() for part in trigger.table.split(".")):
        yield Finding(f"{at}.table", f'"{trigger.table}" is no name of a table', "for example `table: orders`")
    if trigger.query is not None and (not _SELECT.match(trigger.query) or "\0" in trigger.query):
        yield Finding(f"{at}.query", "a query that is watched is one SELECT", "for example `SELECT * FROM orders`")
    for index, watch in enumerate(trigger.watch):
        if watch not in ("rows", "hash") and not watched_column(watch):
            place = f"{at}.watch" + (f".{index}" if len(trigger.watch) > 1 else "")
            yield Finding(place, f'"{watch}" cannot be watched', "there is: `rows`, `max(COLUMN)`, `hash`")
    if trigger.password is not None:
        yield from _name_of_secret(f"{at}.password", trigger.password)


def _sqlite(at: str, address: str, root: Path, *, files: bool) -> Iterator[Finding]:
    try:
        file = sqlite_file(address, root)
    except ValueError:
        yield Finding(at, f'"{address}" names no file', "three slashes and a path: `sqlite:///orders.db`")
        return
    try:
        there = file.is_file()
    except (OSError, ValueError):
        there = False
    if files and not there:
        yield Finding(at, f'there is no database "{file}"', "make it first, or mend the path", code="spec-missing-file")


def _webhook(at: str, hook: Hook) -> Iterator[Finding]:
    for index, name in enumerate(hook.secret):
        place = f"{at}.webhook.secret" + (f".{index}" if len(hook.secret) > 1 else "")
        yield from _name_of_secret(place, name)


def _name_of_secret(at: str, name: str) -> Iterator[Finding]:
    """A name of a variable or `file:PATH` may stand in the file; what looks like the secret itself may not."""
    if name.startswith("file:") and len(name) > len("file:") and "\0" not in name:
        return
    variable = name.removeprefix("env:")
    if _VARIABLE.fullmatch(variable) is None or _LOOKS_SECRET.match(variable):
        # The value is not repeated: it may be the secret.
        yield Finding(
            at,
            "what stands here is no name of a variable of the environment",
            "put the secret into the environment and its name here, e.g. `HOOK_SECRET`, or write `file:PATH`",
            code="spec-secret",
        )


def _after(at: str, after: str, d: Declaration, root: Path, *, files: bool) -> Iterator[Finding]:
    place = f"{at}.after"
    if not after.strip() or "\0" in after:
        yield Finding(place, '"after" is empty', "for example `after: ../other-project`")
        return
    folder = root / Path(after).expanduser()
    if not files:
        return
    if not _is_folder(folder):
        # A name alone may be that of a project in the same Postgres, which is not asked here.
        if "/" in after or (d.store in (None, "local") and not os.environ.get("MODELYARD_STORE")):
            yield Finding(place, f'there is no project "{after}"', _near_folder(after, root), code="spec-missing-file")
    elif circle := _circle(folder.resolve(), root.resolve()):
        message = "the project would follow itself for ever" + (f", by way of {circle[0]}" if circle[0] else "")
        yield Finding(place, message, "take one of these triggers out")


def _circle(first: Path, root: Path) -> tuple[str] | None:
    """Return by way of which projects one leads back to this one; none where it does not."""
    todo: list[tuple[Path, tuple[str, ...]]] = [(first, ())]
    known: set[Path] = set()
    while todo:
        folder, way = todo.pop()
        if folder == root:
            return (" and ".join(f'"{name}"' for name in way),)
        if folder in known or len(known) >= _MOST_PROJECTS:
            continue
        known.add(folder)
        todo += [((folder / name).resolve(), (*way, folder.name)) for name in _followed(folder)]
    return None


def _followed(folder: Path) -> list[str]:
    """Return the folders that the declaration of another project follows; one that cannot be read follows none."""
    import yaml

    try:
        found = yaml.safe_load((folder / "modelyard.yaml").read_bytes())
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return []
    triggers = found.get("triggers") if isinstance(found, dict) else None
    sections = triggers.values() if isinstance(triggers, dict) else ()
    names = [section.get("after") for section in sections if isinstance(section, dict)]
    return [name for name in names if isinstance(name, str) and name.strip() and "\0" not in name]
