"""Stage zero: are the sources there, new enough and large enough to be worth a run?

The probe answers only what is wrong, so that the step's key changes when that changes and not with every second; the
times and sizes behind it travel beside the key. What is in a file is looked up once and remembered by its content.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Literal

from modelyard._kit.clock import Clock, as_text, system_clock
from modelyard._kit.errors import DataError, Stale
from modelyard._kit.text import plural
from modelyard.data.base import Context, Item, Options
from modelyard.data.digests import Memory, cache_folder
from modelyard.data.readers import conform
from modelyard.data.sources import source_for
from modelyard.data.types import infer
from modelyard.records import Check, CheckResult, Evidence, Limit

__all__ = ["guard", "guard_probe"]

_DAY = 86_400


def guard_probe(
    ctx: Context, *, sources: dict[str, dict[str, Any]], clock: Clock = system_clock, **_: Any
) -> dict[str, Any]:
    """Look at every source without loading it; part of the key of the guard's step.

    Args:
        ctx: Where the project and its store are.
        sources: Table -> its `from`, `cursor` and the `type` declared for it, `fresh_within` (seconds), `volume` and
            how its files are read.
        clock: Source of the time.

    Returns:
        `wrong`: table -> what is wrong (`missing`, `stale`, `thin`); `files`: table -> how many it has; and beside the
        key `now` and `seen`: table -> `why` it is missing, `files`, and where they are asked for `newest` (seconds
        since 1970 UTC) and `rows`.

    Raises:
        DataError: A source cannot be read, or its cursor holds no times (`data-cursor-not-time`).
    """
    now = clock()
    before = _before(ctx)
    memory = Memory(cache_folder(ctx.root) / "guard.json")
    wrong: dict[str, list[str]] = {}
    seen: dict[str, dict[str, Any]] = {}
    for name, source in sources.items():
        one = seen[name] = _look(ctx.root, source, memory)
        if one["why"]:
            wrong[name] = ["missing"]
            continue
        fresh, volume = source.get("fresh_within"), source.get("volume") or {}
        one["least"] = max(volume.get("at_least") or 0, (volume.get("of_last") or 0) * before.get(name, 0))
        found = []
        if fresh and (one["newest"] is None or now - one["newest"] > fresh):
            found.append("stale")
        if volume and one["rows"] < one["least"]:
            found.append("thin")
        if found:
            wrong[name] = found
    memory.save()
    # Another number of files is another answer: one that was kept would tell of those of an earlier run.
    files = {name: one["files"] for name, one in seen.items()}
    return {"wrong": wrong, "files": files, "unkeyed": {"now": now, "seen": seen}}


def guard(*, sources: dict[str, dict[str, Any]], state: dict[str, Any]) -> list[CheckResult]:
    """Return one result for each thing that was asked of a source; see `guard_probe` for the arguments.

    Raises:
        Stale: A source is not there (`data-source-missing`), too old (`data-stale`) or too small (`data-too-little`).
    """
    now, seen = state["unkeyed"]["now"], state["unkeyed"]["seen"]
    for name, found in state["wrong"].items():
        raise _stale(name, found[0], sources[name], seen[name], now)
    results = []
    for name, source in sources.items():
        one = seen[name]
        there = one["files"]
        results.append(_result(name, "available", "files", there, 1.0, "at_least", "files that are there", n=there))
        if fresh := source.get("fresh_within"):
            age = max(0.0, now - one["newest"])
            results.append(_result(name, "fresh", "s", age, fresh, "at_most", "time since the newest row"))
        if source.get("volume"):
            results.append(_result(name, "volume", "rows", one["rows"], one["least"], "at_least", "rows in the source"))
    return results


def _look(root: Path, source: dict[str, Any], memory: Memory) -> dict[str, Any]:
    items: dict[str, Item] = {}
    for address in source["from"]:
        try:
            items |= {item.path: item for item in source_for(address, root).list(address)}
        except DataError as error:
            if error.code != "data-source-missing":
                raise
            return {"why": f"{error.problem.message}; {error.problem.hint}", "files": 0}
    one: dict[str, Any] = {"why": "", "files": len(items), "newest": None, "rows": None}
    files = [items[path] for path in sorted(items)]
    if source.get("fresh_within"):
        cursor = source.get("cursor")
        times = [_newest(item, source, root, memory) if cursor else _modified(root / item.path) for item in files]
        one["newest"] = max((t for t in times if t is not None), default=None)
    if source.get("volume"):
        one["rows"] = sum(_rows(item, source, root, memory) for item in files)
    return one


def _newest(item: Item, source: dict[str, Any], root: Path, memory: Memory) -> float | None:
    """Return the newest time in the cursor of a file; none if it has no row."""
    cursor = source["cursor"]

    def look() -> float | None:
        import polars as pl

        opened = source_for(item.path, root).read(item, _options(source))
        if cursor not in opened.columns:
            return None  # the load says so, with the names that are near
        kind = source.get("type") or (infer([opened], [cursor])[cursor] if opened.text else "")
        newest = conform(opened, {cursor: kind}).select(pl.col(cursor).max()).collect(engine="streaming").item()
        return None if newest is None else _seconds(newest, cursor)

    found = _remembered(memory, f"newest {item.sha256} {cursor} {source.get('type')}", look)
    return None if found is None else float(found)


def _rows(item: Item, source: dict[str, Any], root: Path, memory: Memory) -> int:
    def look() -> int:
        opened = source_for(item.path, root).read(item, _options(source))
        return opened.rows - len(opened.skip)

    return int(_remembered(memory, f"rows {item.sha256}", look))


def _remembered(memory: Memory, key: str, look: Any) -> Any:
    known = memory.get(key)
    if known is None:
        known = look()
        memory.put(key, known)
    return known


def _options(source: dict[str, Any]) -> Options:
    return Options(
        delimiter=source.get("delimiter") or ",",
        null_values=tuple(source.get("null_values") or ()),
        comment=source.get("comment") or "",
        columns=tuple(source.get("columns") or ()),
    )


def _before(ctx: Context) -> dict[str, float]:
    """Return the rows that each source had when a guard last let it pass."""
    latest = ctx.store.ledger.latest("guard")
    results = latest.outputs.get("results", []) if latest else []
    rows = [r for r in results if r["check"]["params"].get("rule") == "volume"]
    return {r["check"]["params"]["table"]: r["evidence"]["value"] for r in rows}


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


def _result(
    name: str,
    rule: str,
    unit: str,
    value: float,
    limit: float,
    op: Literal["at_least", "at_most"],
    method: str,
    n: int = 1,
) -> CheckResult:
    what = {
        "available": f"{plural(int(value), 'file')} found",
        "fresh": f"the newest row is {_span(value)} old, at most {_span(limit)} are allowed",
        "volume": f"{value:.0f} rows, at least {limit:.0f} are asked for",
    }
    return CheckResult(
        check=Check(name=f"contract.{name}.{rule}", type="contract", params={"rule": rule, "table": name}),
        status="passed",
        reason=what[rule],
        limit=Limit(op=op, value=limit, unit=unit),
        # It differs with every look at the world, so it is not measured again by `verify`.
        evidence=Evidence(measure=rule, value=float(value), unit=unit, n=n, method=method, volatile=True),
    )


def _stale(name: str, found: str, source: dict[str, Any], seen: dict[str, Any], now: float) -> Stale:
    if found == "missing":
        return Stale(
            "data-source-missing",
            f"the source of `{name}` is not there: {seen['why']}",
            where=f"data.{name}.from",
            hint="see why nothing arrived, and run again when it is there",
        )
    if found == "thin":
        return Stale(
            "data-too-little",
            f"the source of `{name}` holds {seen['rows']} rows; at least {seen['least']:.0f} are asked for",
            where=f"data.{name}.volume",
            hint="see why rows are missing, or ask for fewer",
        )
    newest = seen["newest"]
    age = f"is of {as_text(newest)}, {_span(now - newest)} ago" if newest is not None else "is not there"
    return Stale(
        "data-stale",
        f"the newest row of `{name}` {age}; at most {_span(source['fresh_within'])} are allowed",
        where=f"data.{name}.fresh_within",
        hint="see why no newer rows arrive, or allow more time",
    )


def _span(seconds: float) -> str:
    for unit, size in (("d", _DAY), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
