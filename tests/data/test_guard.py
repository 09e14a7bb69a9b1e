"""Stage zero: sources that are missing, old or too small skip the run before it costs anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelyard._kit.errors import DataError, Stale
from modelyard.data.guard import guard, guard_probe

DAY = 86_400.0
FROM = {"from": ["data/*.csv"]}


def state(project, at: float = 0.0, **source: Any) -> dict[str, Any]:
    return guard_probe(project.ctx(), sources={"rows": FROM | source}, clock=lambda: at)


def passed(project, at: float = 0.0, **source: Any) -> dict[str, float]:
    results = guard(sources={"rows": FROM | source}, state=state(project, at, **source))
    assert all(r.status == "passed" for r in results)
    return {r.check.name: r.evidence.value for r in results}


def stopped(project, at: float = 0.0, **source: Any) -> Stale:
    with pytest.raises(Stale) as caught:
        guard(sources={"rows": FROM | source}, state=state(project, at, **source))
    return caught.value


def test_freshness_goes_by_the_newest_value_and_the_key_changes_only_when_it_goes_stale(project) -> None:
    project.file("data/1.csv", "id,when\n1,2026-01-01 00:00\n2,2026-01-03 12:00\n")
    newest = 1_767_441_600.0  # 2026-01-03 12:00 UTC
    asked = {"cursor": "when", "fresh_within": 2 * DAY}
    looks = [state(project, newest + s, **asked) for s in (1, DAY, 2 * DAY, 2 * DAY + 1)]
    assert [look["wrong"] for look in looks] == [{}, {}, {}, {"rows": ["stale"]}]
    assert all(set(look) == {"wrong", "files", "unkeyed"} and look["files"] == {"rows": 1} for look in looks)
    assert passed(project, newest + DAY, **asked) == {"contract.rows.available": 1.0, "contract.rows.fresh": DAY}
    error = stopped(project, newest + 2 * DAY + 1, **asked)
    assert error.code == "data-stale"
    assert "2026-01-03 12:00:00Z, 2 d ago" in error.problem.message


@pytest.mark.parametrize("declared", ["date", None])
def test_a_day_counts_to_its_end(project, declared: str | None) -> None:
    project.file("data/1.csv", "id,when\n1,2026-01-03\n")
    look = state(project, cursor="when", fresh_within=DAY, type=declared)
    assert look["unkeyed"]["seen"]["rows"]["newest"] == 1_767_484_800.0  # 2026-01-04 00:00 UTC


def test_without_cursor_the_newest_file_counts(project) -> None:
    project.file("data/1.csv", "id\n1\n", age=10 * DAY)
    second = project.file("data/2.csv", "id\n2\n", age=5 * DAY)
    now = second.stat().st_mtime + 3 * DAY
    assert stopped(project, now, fresh_within=2 * DAY).code == "data-stale"
    assert passed(project, now, fresh_within=4 * DAY)["contract.rows.fresh"] == pytest.approx(3 * DAY)
    project.file("data/3.csv", "id\n3\n", age=0)
    passed(project, now, fresh_within=4 * DAY)


def test_a_cursor_that_is_no_time_cannot_be_fresh(project) -> None:
    project.file("data/1.csv", "id,when\n1,7\n")
    with pytest.raises(DataError) as caught:
        state(project, cursor="when", fresh_within=DAY)
    assert caught.value.code == "data-cursor-not-time"


def test_a_source_that_is_not_there_skips_and_says_what_was_looked_for(project) -> None:
    (project.root / "data").mkdir()
    error = stopped(project)
    assert error.code == "data-source-missing"
    assert "data/*.csv" in error.problem.message


def test_a_source_must_hold_the_rows_that_are_asked_for(project) -> None:
    project.file("data/1.csv", "id,x\n1,a\n2,b\n\n")
    assert passed(project, volume={"at_least": 2})["contract.rows.volume"] == 2
    error = stopped(project, volume={"at_least": 3})
    assert error.code == "data-too-little"
    assert "holds 2 rows; at least 3" in error.problem.message


def test_half_an_export_does_not_pass_for_the_whole(project, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelyard.records import Draft, plain

    volume = {"of_last": 0.5}
    project.file("data/1.csv", "id\n" + "1\n" * 10)
    sources = {"rows": FROM | {"volume": volume}}
    results = guard(sources=sources, state=state(project, volume=volume))
    body = {"key": "k", "outputs": {"results": plain(results)}, "seconds": 0.0}
    project.store.ledger.append(Draft(kind="step.finished", run="r", step="guard", payload=body))
    project.file("data/1.csv", "id\n" + "1\n" * 5)
    passed(project, volume=volume)
    project.file("data/1.csv", "id\n" + "1\n" * 4)
    assert stopped(project, volume=volume).code == "data-too-little"


def test_what_is_in_a_file_is_looked_up_once(project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.file("data/1.csv", "id,when\n1,2026-01-03 12:00\n")
    asked = {"cursor": "when", "fresh_within": DAY, "volume": {"at_least": 1}}
    first = state(project, **asked)
    reads: list[str] = []
    monkeypatch.setattr("modelyard.data.sources.FileSource.read", lambda self, item, options: reads.append(item.path))
    assert state(project, **asked) == first
    assert reads == []


def test_the_guard_of_a_missing_folder_is_no_crash(project) -> None:
    assert not Path(project.root / "data").exists()
    assert stopped(project).code == "data-source-missing"


def test_files_are_counted_and_one_more_is_looked_at_anew(project) -> None:
    project.file("data/1.csv", "id\n1\n")
    one = state(project)
    project.file("data/2.csv", "id\n2\n")
    two = state(project)
    assert (one["files"], two["files"]) == ({"rows": 1}, {"rows": 2})
    (result,) = guard(sources={"rows": FROM}, state=two)
    assert (result.evidence.value, result.evidence.unit, result.evidence.n) == (2.0, "files", 2)
    assert result.reason == "2 files found"
