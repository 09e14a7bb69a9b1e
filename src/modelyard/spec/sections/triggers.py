"""The `triggers` section: what the daemon watches, and what becomes a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from msgspec import Meta

from modelyard._kit.fields import Duration, Section, Texts

__all__ = ["KINDS", "Hook", "Kind", "OwnTrigger", "kinds_of", "split_pattern", "sqlite_file", "watched_column"]

# Field that says where is looked -> kind of the trigger, as `Fire.kind` has it.
Kind = Literal["files", "blobs", "sql", "webhook", "upstream", "drift"]
KINDS: dict[str, Kind] = {
    "files": "files",
    "blobs": "blobs",
    "sql": "sql",
    "webhook": "webhook",
    "after": "upstream",
    "drift": "drift",
}
_MAGIC = re.compile(r"[*?\[]")
_MAX = re.compile(r"max\((.+)\)", re.DOTALL)
_CHANGES = ["created", "updated", "deleted"]
_ENDS = ["success", "failure", "any"]


class Hook(Section, frozen=True, kw_only=True):
    """Who may send a webhook, and how it is signed."""

    secret: Annotated[
        Texts,
        Meta(
            description="Where the secret is that the sender signs with: the name of a variable of the environment, "
            "or `file:PATH`. Each of a list is accepted, so that a secret can be exchanged without a gap. The secret "
            "itself never stands here.",
            examples=["HOOK_SECRET", ["HOOK_SECRET", "HOOK_SECRET_OLD"], "file:/run/secrets/hook"],
            min_length=1,
        ),
    ]
    style: Annotated[
        Literal["standard", "github"],
        Meta(
            description="How a delivery is signed. `standard`: the headers `webhook-id`, `webhook-timestamp` and "
            "`webhook-signature` of Standard Webhooks. `github`: `X-Hub-Signature-256`; it carries no time, so an "
            "equal body counts as a repetition for ever.",
            examples=["standard"],
        ),
    ] = "standard"


class OwnTrigger(Section, frozen=True, kw_only=True):
    """One thing that is watched, and what becomes a run."""

    files: Annotated[
        Texts,
        Meta(
            description="Files that are watched: a folder, a file or a pattern with `*` (`**` for folders in folders), "
            "or a list of those, relative to modelyard.yaml. Hidden files are left out unless named.",
            examples=["data/in/*.csv"],
            min_length=1,
        ),
    ] = ()
    blobs: Annotated[
        str | None,
        Meta(
            description="Objects that are watched: everything below an `s3://`, `gs://`, `az://`, `abfss://` or "
            "`file://` address, or a pattern of their names. Credentials come from the environment.",
            examples=["s3://bucket/prefix/"],
        ),
    ] = None
    sql: Annotated[
        str | None,
        Meta(
            description="Database whose rows are watched, over a connection that only reads: `sqlite:///FILE` or "
            "`postgresql://USER@HOST/DATABASE`, without a password.",
            examples=["sqlite:///orders.db"],
        ),
    ] = None
    webhook: Annotated[
        Hook | None,
        Meta(
            description="Signed requests to `POST /hooks/NAME` of `modelyard up`; each is taken once.",
            examples=[{"secret": "HOOK_SECRET"}],
        ),
    ] = None
    after: Annotated[
        str | None,
        Meta(
            description="Another project, whose runs are followed: its folder, or its name where both keep their "
            "records in one Postgres.",
            examples=["../other-project"],
        ),
    ] = None
    drift: Annotated[
        bool,
        Meta(
            description="Whether a `modelyard watch` of this project's endpoint that found failed checks asks for a "
            "run.",
            examples=[True],
        ),
    ] = False
    on: Annotated[
        tuple[Annotated[str, Meta(extra_json_schema={"enum": [*_CHANGES, *_ENDS]})], ...],
        Meta(
            description="What counts. For files and blobs: `created`, `updated`, `deleted`; left out, the first two. "
            "For `after`: `success`, `failure` or `any`; left out, `success`.",
            examples=[["created", "updated"], "success"],
            extra_json_schema={"form": "texts"},
        ),
    ] = ()
    table: Annotated[
        str | None,
        Meta(description="Table of the database that is watched: `TABLE` or `SCHEMA.TABLE`.", examples=["orders"]),
    ] = None
    query: Annotated[
        str | None,
        Meta(
            description="One SELECT whose rows are watched, instead of a whole table.",
            examples=["SELECT * FROM orders WHERE paid"],
        ),
    ] = None
    watch: Annotated[
        Texts,
        Meta(
            description="What tells a new state of the rows: `rows` (their number), `max(COLUMN)`, `hash` (over every "
            "value, for small tables), or a list of those. An update is seen by `max` of a column that each writer "
            "raises, a deletion by `rows`. Left out, `rows`.",
            examples=["max(updated_at)", ["rows", "max(updated_at)"]],
            min_length=1,
        ),
    ] = ("rows",)
    password: Annotated[
        str | None,
        Meta(
            description="Where the password of the database is: the name of a variable of the environment, or "
            "`file:PATH`. Left out, the database's own ways hold (`PGPASSWORD`, `.pgpass`).",
            examples=["ORDERS_PASSWORD"],
        ),
    ] = None
    every: Annotated[
        Duration | None,
        Meta(
            description="How often is looked. Left out, files are looked at every 30 s, and at once where the system "
            "tells of changes (a network folder does not: say how often); blobs every minute, rows every 30 s, other "
            "projects and drift every 10 s.",
            examples=["1m"],
        ),
    ] = None
    settle: Annotated[
        Duration | None,
        Meta(
            description="How long a thing must not have changed before it counts, so that nobody reads half a file. "
            "Left out, 2 s for files; blobs and rows count at once.",
            examples=["2s"],
        ),
    ] = None
    debounce: Annotated[
        Duration | None,
        Meta(
            description="How long is waited from the first change on, so that several within that time become one run. "
            "Left out, nothing is waited for.",
            examples=["1m"],
        ),
    ] = None
    each: Annotated[
        bool,
        Meta(
            description="Whether each file or blob gets a run of its own; otherwise one run gets all that is there.",
            examples=[True],
        ),
    ] = False
    existing: Annotated[
        bool,
        Meta(
            description="Whether what is there when the trigger first looks counts as new. Otherwise only what changes "
            "after that does.",
            examples=[True],
        ),
    ] = False
    follow: Annotated[
        bool,
        Meta(
            description="Whether symbolic links are followed that lead out of the project and of the watched folder.",
            examples=[True],
        ),
    ] = False
    owner: Annotated[
        str,
        Meta(description="Who answers for the trigger; the board and the alerts say it.", examples=["ann"]),
    ] = ""
    paused: Annotated[
        bool,
        Meta(
            description="Whether what it sees is written down and left out until this is taken away.", examples=[True]
        ),
    ] = False


def kinds_of(trigger: OwnTrigger) -> list[str]:
    """Return the fields that say where is looked; a right trigger has exactly one."""
    return [name for name in KINDS if getattr(trigger, name) not in (None, False, ())]


def split_pattern(pattern: str) -> tuple[str, tuple[str, ...]]:
    """Return the folder that a pattern begins in, and what it wants below it, part by part.

    What ends in a slash is a folder and wants all its files; what holds no pattern is one file.

    Examples:
        >>> split_pattern("data/in/*.csv"), split_pattern("data/**/x.csv"), split_pattern("in/"), split_pattern("a.csv")
        (('data/in', ('*.csv',)), ('data', ('**', 'x.csv')), ('in', ('*',)), ('.', ('a.csv',)))
    """
    whole = Path(pattern).expanduser()
    if not _MAGIC.search(pattern) and (pattern.endswith("/") or not whole.name):
        return whole.as_posix(), ("*",)
    parts = whole.parts
    first = next((i for i, part in enumerate(parts) if _MAGIC.search(part)), len(parts) - 1)
    return Path(*parts[:first]).as_posix(), parts[first:]


def sqlite_file(address: str, root: Path) -> Path:
    """Return the file that a `sqlite:///` address names; three slashes begin in the project, four at the root.

    Raises:
        ValueError: It names none, or a host.
    """
    parts = urlsplit(address)
    name = unquote(parts.path).removeprefix("/")
    if parts.scheme != "sqlite" or parts.netloc or not name or "\0" in name:
        raise ValueError(address)
    return root / Path(name).expanduser()


def watched_column(watch: str) -> str:
    """Return the column of `max(COLUMN)`; empty for what is not of that form."""
    found = _MAX.fullmatch(watch.strip())
    return found[1].strip() if found else ""
