"""Hold a loaded table against its contract: one pass over the rows counts everything that is wrong with them.

Only when a row is bad are the bad rows read again, to be set aside with their reasons and their values as they came.
A row is bad when it breaks any rule; of duplicates the first that is good stays. What a reader sees of a table with a
key are the newest rows: a row that a newer one replaced is not judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import DataError
from modelyard._kit.text import number, plural
from modelyard.data.base import FILE, LINE, PROVENANCE, RAW, REASONS
from modelyard.data.readers import BROKEN
from modelyard.data.rules import TEXT, Rule, Typed, first_good, rules_of, typed_columns
from modelyard.data.types import written
from modelyard.records import Check, CheckResult, Evidence, Limit

if TYPE_CHECKING:
    import polars as pl

__all__ = ["hold"]

_EXAMPLES = 5
_METHOD = "every row, in one pass"


def hold(
    table: pl.LazyFrame | pl.DataFrame,
    *,
    name: str,
    rules: Mapping[str, Mapping[str, Any]],
    key: Sequence[str] = (),
    cursor: str = "",
    bad_rows: str = "stop",
) -> tuple[pl.LazyFrame, pl.DataFrame, list[CheckResult]]:
    """Check every row of a table.

    Args:
        table: The rows; those of a load say where each came from, and what of it could not be read.
        name: Name of the table.
        rules: Column -> `type`, `range`, `allowed`, `pattern`, `unique`, `nullable`, `max_missing`.
        key: Key columns.
        cursor: Column of time; empty for none.
        bad_rows: `stop` or `quarantine`.

    Returns:
        The good rows with the declared types; the bad rows as text with `_file`, `_line` and `_reasons`; one result
        a rule, whose value is the number of rows that break it.

    Raises:
        DataError: There is no row (`data-no-rows`), a column is missing (`data-column-missing`), too many values are
            (`data-too-many-missing`), every row is bad (`data-all-rows-bad`), or one is and `bad_rows` says `stop`
            (`data-bad-rows`).
    """
    frame = table.lazy()
    schema = frame.collect_schema()
    columns = typed_columns(schema, rules, name)
    provenance = [p for p in PROVENANCE if p in schema]
    broken = rules_of(columns, rules, table=name, key=key, cursor=cursor, provenance=provenance)
    shares = {c: s["max_missing"] for c, s in rules.items() if s.get("max_missing") is not None}
    counts = _count(frame, broken, columns, shares)
    if len({rule.once is None for at, rule in enumerate(broken) if counts[f"__rule_{at}"]}) == 2:
        frame, broken = first_good(frame, broken)
        counts = _count(frame, broken, columns, shares)
    rows, bad = counts["rows"], counts["bad"]
    if not rows:
        raise DataError("data-no-rows", f"`{name}` has no row", where=f"data.{name}", hint="see what `from` names")
    aside = _set_aside(frame, broken, columns, provenance) if bad else None
    results = [
        _result(name, rule, counts[f"__rule_{at}"], rows, bad_rows, _examples(aside, at, rule))
        for at, rule in enumerate(broken)
        if counts[f"__rule_{at}"] or not rule.quiet
    ]
    results += [_share(name, column, most, counts[f"__gone_{column}"], rows) for column, most in shares.items()]
    if bad == rows or (bad and bad_rows == "stop"):
        raise _refusal(name, results, bad, rows)
    good = frame.filter(~_any(broken)) if bad else frame
    quarantine = _empty(columns) if aside is None else aside.drop(_marks(broken), TEXT)
    return good.select(c.value for c in columns.values()), quarantine, results


def _any(broken: Sequence[Rule]) -> pl.Expr:
    import polars as pl

    return pl.any_horizontal(pl.lit(False), *(rule.broken for rule in broken))


def _marks(broken: Sequence[Rule]) -> list[str]:
    return [f"__rule_{at}" for at in range(len(broken))]


def _count(
    frame: pl.LazyFrame, broken: Sequence[Rule], columns: Mapping[str, Typed], shares: Mapping[str, float]
) -> dict[str, int]:
    """The one pass: rows, bad rows, and the rows that break each rule."""
    import polars as pl

    marks = [rule.broken.alias(mark) for rule, mark in zip(broken, _marks(broken), strict=True)]
    gone = [columns[c].value.is_null().alias(f"__gone_{c}") for c in shares]
    # One row a row, so that what two rules share (and whether any is broken) is computed once.
    seen = frame.select(*marks, *gone) if marks or gone else frame
    names = _marks(broken)
    found = seen.select(
        pl.len().alias("rows"),
        pl.any_horizontal(pl.lit(False), *names).sum().alias("bad") if names else pl.lit(0).alias("bad"),
        *(pl.col(n).sum() for n in names),
        *(pl.col(f"__gone_{c}").sum() for c in shares),
    )
    counts: dict[str, int] = found.collect(engine="streaming").row(0, named=True)
    return counts


def _set_aside(
    frame: pl.LazyFrame, broken: Sequence[Rule], columns: Mapping[str, Typed], provenance: Sequence[str]
) -> pl.DataFrame:
    """The bad rows as they came, with their reasons, and which rules each breaks."""
    import polars as pl

    marked = frame.with_columns(r.broken.alias(m) for r, m in zip(broken, _marks(broken), strict=True))
    # Uniqueness looks at all rows, so the rows are dropped only after everything was judged.
    rows = marked.filter(pl.any_horizontal(_marks(broken)))
    reasons = [pl.when(pl.col(m)).then(pl.lit(r.reason)) for r, m in zip(broken, _marks(broken), strict=True)]
    raw: dict[str, pl.Expr] = {}
    if RAW in provenance:
        fields = pl.Struct(dict.fromkeys([*columns, BROKEN], pl.String))
        decoded = pl.col(RAW).str.json_decode(fields)
        raw = {name: decoded.struct.field(name) for name in [*columns, BROKEN]}
    shown = {c.name: written(pl.col(c.name), c.stored) for c in columns.values()}
    return rows.select(
        (pl.col(FILE) if FILE in provenance else pl.lit(None, pl.String)).alias(FILE),
        (pl.col(LINE) if LINE in provenance else pl.lit(None, pl.Int64)).alias(LINE),
        pl.concat_list(reasons).list.drop_nulls().alias(REASONS),
        *((pl.coalesce(raw[n], e) if n in raw and not _nested(columns[n]) else e).alias(n) for n, e in shown.items()),
        raw.get(BROKEN, pl.lit(None, pl.String)).alias(TEXT),
        *_marks(broken),
    ).collect()


def _nested(column: Typed) -> bool:
    import polars as pl

    return column.stored.is_nested() or isinstance(column.stored, pl.Binary | pl.Object)


def _empty(columns: Mapping[str, Typed]) -> pl.DataFrame:
    import polars as pl

    head: dict[str, Any] = {FILE: pl.String(), LINE: pl.Int64(), REASONS: pl.List(pl.String())}
    return pl.DataFrame(schema=head | {c.name: c.stored if _nested(c) else pl.String() for c in columns.values()})


def _examples(aside: pl.DataFrame | None, at: int, rule: Rule) -> list[dict[str, Any]]:
    """The first rows that break a rule: what they hold, and where they stand."""
    import polars as pl

    if aside is None:
        return []
    found = []
    for row in aside.filter(pl.col(f"__rule_{at}")).head(_EXAMPLES).iter_rows(named=True):
        value = ", ".join(str(row[c]) for c in rule.shows if row[c] is not None)
        found.append({"value": value if any(row[c] is not None for c in rule.shows) else None} | _place(row))
    return found


def _place(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"file": row[FILE], "line": row[LINE]} if row[FILE] is not None else {}


def _result(name: str, rule: Rule, count: int, rows: int, bad_rows: str, examples: list[dict[str, Any]]) -> CheckResult:
    where = "set aside" if bad_rows == "quarantine" else "not accepted"
    said = f"all {plural(rows, 'row')} hold"
    if count:
        said = f"{number(count)} of {plural(rows, 'row')} {where}: {rule.reason}"
    return CheckResult(
        check=Check(
            name=f"contract.{name}.{rule.title}",
            type="contract",
            params={"table": name, "column": rule.column, "rule": rule.name, **rule.params},
            blocking=bad_rows == "stop",
        ),
        status="failed" if count else "passed",
        reason=said,
        limit=Limit(op="at_most", value=0, unit="rows"),
        evidence=Evidence(
            measure="bad_rows",
            value=count,
            unit="rows",
            n=rows,
            method=_METHOD,
            details={"column": rule.column, "rule": rule.name, "reason": rule.reason, "examples": examples},
        ),
    )


def _share(name: str, column: str, most: float, gone: int, rows: int) -> CheckResult:
    """Too many missing values say something about the whole load, so no row can be set aside for them."""
    share = gone / rows
    said = f"{share:.1%} of `{column}` is missing ({number(gone)} of {plural(rows, 'row')}), at most {most:.1%} may be"
    if share > most:
        raise DataError(
            "data-too-many-missing",
            f"`{name}`: {said}",
            where=f"data.{name}.contract.{column}.max_missing",
            hint="see why the values do not arrive, or allow more",
        )
    return CheckResult(
        check=Check(
            name=f"contract.{name}.{column}.max_missing",
            type="contract",
            params={"table": name, "column": column, "rule": "max_missing", "max_missing": most},
        ),
        status="passed",
        reason=said,
        limit=Limit(op="at_most", value=most),
        evidence=Evidence(measure="missing_share", value=share, n=rows, method=_METHOD, details={"column": column}),
    )


def _refusal(name: str, results: Sequence[CheckResult], bad: int, rows: int) -> DataError:
    failed = [r for r in results if r.status == "failed"]
    told = []
    for result in failed:
        examples = result.evidence.details["examples"]
        shown = ", ".join(f"`{e['value']}`" for e in examples[:3] if e["value"] is not None)
        told.append(
            f"{result.evidence.details['reason']} ({plural(int(result.evidence.value or 0), 'row')}"
            f"{', e.g. ' + shown if shown else ''})"
        )
    first = next((e for r in failed for e in r.evidence.details["examples"] if "file" in e), None)
    where = f"data.{name}" if first is None else first["file"]
    if first is not None and first["line"]:
        where = f"{where}:{first['line']}"
    if bad == rows:
        return DataError(
            "data-all-rows-bad",
            f"every row of `{name}` ({number(rows)}) breaks its contract: {'; '.join(told)}",
            where=where,
            hint="see whether the contract, the `delimiter` or the file is wrong",
        )
    return DataError(
        "data-bad-rows",
        f"{number(bad)} of {plural(rows, 'row')} of `{name}` break its contract: {'; '.join(told)}",
        where=where,
        hint="correct them, or set `bad_rows: quarantine` to set them aside and go on with the others",
    )
