"""How old the newest row is, and whether that is too old to go on.

The probe answers only whether a table is stale, so that a step's key changes when that changes and not with every
second; the times behind it travel beside the key.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from modelyard._kit.clock import Clock, as_text, system_clock
from modelyard._kit.errors import CheckFailed, DataError
from modelyard.data.base import FILE, Context
from modelyard.data.digests import Memory, cache_folder
from modelyard.records import Check, CheckResult, Evidence, Limit, TableVersion, read_value

__all__ = ["freshness_probe", "judge"]


def freshness_probe(
    ctx: Context, *, cursor: str | None = None, fresh_within: float, clock: Clock = system_clock, **_: Any
) -> dict[str, Any]:
    """See whether the newest row of a loaded table is older than it may be; part of a contract's key.

    Args:
        ctx: Where the project and its store are; `ctx.inputs["table"]` is the table.
        cursor: Column of time; without one, the files of the table are looked at.
        fresh_within: Seconds that the newest may be old.
        clock: Source of the time.

    Returns:
        `stale`, and beside the key `now` and `newest`, in seconds since 1970 UTC (none without any row).
    """
    table = read_value(ctx.inputs["table"])
    newest = _newest_value(ctx, table, cursor) if cursor else _newest_file(ctx, table)
    now = clock()
    stale = newest is None or now - newest > fresh_within
    return {"stale": stale, "unkeyed": {"now": now, "newest": newest}}


def judge(name: str, fresh_within: float, state: dict[str, Any]) -> CheckResult:
    """Return the check of freshness that passed.

    Args:
        name: Name of the table.
        fresh_within: Seconds that the newest may be old.
        state: What the probe saw.

    Raises:
        CheckFailed: It is stale (`data-stale`).
    """
    seen = state["unkeyed"]
    now, newest = seen["now"], seen["newest"]
    if state["stale"]:
        found = f"is of {as_text(newest)}, {_span(now - newest)} ago" if newest is not None else "is not there"
        raise CheckFailed(
            "data-stale",
            f"the newest row of `{name}` {found}; at most {_span(fresh_within)} are allowed",
            where=f"data.{name}.fresh_within",
            hint="see why no newer rows arrive, or allow more time",
        )
    age = max(0.0, now - newest)
    return CheckResult(
        check=Check(name=f"contract.{name}.fresh", type="contract", params={"rule": "fresh"}),
        status="passed",
        reason=f"the newest row is {_span(age)} old, at most {_span(fresh_within)} are allowed",
        limit=Limit(op="at_most", value=fresh_within, unit="s"),
        # It differs with every look at the clock, so it is not measured again by `verify`.
        evidence=Evidence(measure="age", value=age, unit="s", n=1, method="time since the newest row", volatile=True),
    )


def _newest_value(ctx: Context, table: TableVersion, cursor: str) -> float | None:
    def look() -> float | None:
        import polars as pl

        seen = ctx.store.tables.read(table, raw=True).select(pl.col(cursor).max()).collect().item()
        return None if seen is None else _seconds(seen, cursor)

    found = _remembered(ctx.root, f"{table.digest} {cursor}", look)
    return None if found is None else float(found)


def _newest_file(ctx: Context, table: TableVersion) -> float | None:
    def look() -> list[str]:
        import polars as pl

        rows = ctx.store.tables.read(table, raw=True)
        files = rows.select(pl.col(FILE).unique()).collect().to_series().to_list()
        return sorted(file for file in files if file)

    times = [_modified(ctx.root / file) for file in _remembered(ctx.root, f"{table.digest} files", look)]
    return max((t for t in times if t is not None), default=None)


def _remembered(root: Path, key: str, look: Any) -> Any:
    """A table under one digest never changes, so what it says is looked up once."""
    memory = Memory(cache_folder(root) / "newest.json")
    known = memory.get(key)
    if known is None:
        known = look()
        memory.put(key, known)
        memory.save()
    return known


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _seconds(value: Any, cursor: str) -> float:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, date):
        # A day is over when it is over: what happened on it may have happened in its last minute.
        return (datetime.combine(value, time(), UTC) + timedelta(days=1)).timestamp()
    raise DataError(
        "data-cursor-not-time",
        f"`{cursor}` holds values like `{value}`, which are no times, so `fresh_within` has nothing to go by",
        where=cursor,
        hint=f"declare it in the contract: `{cursor}: {{type: datetime}}`, or leave out `cursor` to go by the files",
    )


def _span(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
