"""The page of costs, and what the page of a run tells of attempts, causes, usage and its critical path."""

from __future__ import annotations

import threading
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from modelyard._kit.errors import UserError
from modelyard.pipeline.cost import costs
from modelyard.records import Draft
from modelyard.store.local import LocalStore
from modelyard.web import Reader, costing
from modelyard.web.draw import Column, columns
from modelyard.web.pages import cost, run, step
from modelyard.web.pages.path import Span, critical
from modelyard.web.query import Query

SECRET = "hunter2-very-secret"


def ask(**words: str) -> Query:
    return Query(words)


class TestCost:
    def test_sums_are_those_of_the_ledger(self, engine_reader: Reader, engine: Any) -> None:
        page, found = cost.load(engine_reader, ask(month="all")), costs(engine.store)
        assert page.total == pytest.approx(found.total)
        assert page.total == pytest.approx(sum(row.cost for row in page.runs))
        assert page.total == pytest.approx(sum(row.cost for row in page.steps))
        assert (page.priced, page.currency, page.count) == (True, "EUR", len(engine.runs))
        assert page.steps[0].name == "fit"
        assert {row.id for row in page.runs if row.unusual} == {engine.runs["retried"], engine.runs["stopped"]}

    def test_month_is_held_against_its_budget(self, engine_reader: Reader) -> None:
        page = cost.load(engine_reader, ask())
        assert page.month == "2026-11"
        assert page.allowed is not None
        assert (page.allowed.per_month, page.allowed.per_run) == (2.4, 0.6)
        assert page.allowed.share == pytest.approx(page.total / 2.4)

    def test_waste_comes_with_advice_and_trifles_are_left_out(self, engine_reader: Reader) -> None:
        page = cost.load(engine_reader, ask())
        assert [(one.kind, one.step) for one in page.waste] == [("failed", "fit"), ("idle", "fit")]
        assert all(one.advice for one in page.waste)
        assert {one.step for one in page.advice} == {"join", "fit"}

    def test_guard_has_saved_what_did_not_run(self, engine_reader: Reader) -> None:
        assert cost.load(engine_reader, ask()).saved == pytest.approx(0.0334, abs=0.001)

    def test_other_month_is_empty_and_has_no_budget(self, engine_reader: Reader, engine_client: Any) -> None:
        page = cost.load(engine_reader, ask(month="2026-10"))
        assert (page.count, page.allowed, page.chart) == (0, None, "")
        assert page.months == ("2026-11",)
        assert "Nothing ran in this month" in engine_client.get("/cost?month=2026-10").text

    @pytest.mark.parametrize("month", ["2026-13", "november", "2026-1", "0000-01", "9999-12", "2026-11x"])
    def test_what_is_no_month_is_refused(self, engine_reader: Reader, month: str) -> None:
        with pytest.raises(UserError, match="is no month"):
            cost.load(engine_reader, ask(month=month))

    def test_without_prices_usage_is_shown_and_how_to_declare_them(self, empty: LocalStore, open_client: Any) -> None:
        usage = {"cpu_seconds": 7200.0, "gb_seconds": 12.0, "gpu_seconds": 3.0}
        empty.ledger.append(
            Draft(kind="run.started", run="run-1", payload={"project": "p"}),
            Draft(kind="step.finished", run="run-1", step="fit", payload={"key": "k", "outputs": {}, "usage": usage}),
            Draft(kind="run.finished", run="run-1", payload={"status": "succeeded"}),
        )
        page = cost.load(Reader(empty), ask(month="all"))
        assert (page.priced, page.total, page.usage.gpu_seconds) == (False, 0, 3.0)
        assert page.steps[0].share == 1.0
        with open_client(empty) as client:
            text = client.get("/cost?month=all").text
        assert "No prices yet" in text
        assert "cpu_hour" in text
        assert "2 h" in text

    def test_other_currencies_are_in_no_sum(self, empty: LocalStore) -> None:
        for n, currency in enumerate(("EUR", "gCO2")):
            prices = {"currency": currency, "cpu_hour": 1.0}
            body = {"key": f"k{n}", "outputs": {}, "usage": {"cpu_seconds": 3600.0}}
            empty.ledger.append(
                Draft(kind="run.started", run=f"run-{n}", payload={"project": "p", "prices": prices}),
                Draft(kind="step.finished", run=f"run-{n}", step="fit", payload=body),
                Draft(kind="run.finished", run=f"run-{n}", payload={"status": "succeeded"}),
            )
        page = cost.load(Reader(empty), ask(month="all"))
        assert (page.currency, page.others, page.total) == ("gCO2", ("EUR",), pytest.approx(1.0))

    def test_new_events_are_seen_at_the_next_look(self, empty: LocalStore) -> None:
        reader = Reader(empty)
        assert cost.load(reader, ask(month="all")).count == 0
        empty.ledger.append(Draft(kind="run.started", run="run-1", payload={"project": "p"}))
        assert cost.load(reader, ask(month="all")).count == 1


class TestCosting:
    def test_of_a_long_ledger_the_last_look_is_shown_while_it_is_folded_again(
        self, empty: LocalStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(costing, "_QUICK", -1.0)
        monkeypatch.setattr(costing, "_PATIENCE", 0.0)
        known = costing.Costing(empty)
        empty.ledger.append(Draft(kind="run.started", run="run-1", payload={"project": "p"}))
        assert len(known.of(0.0).runs) == 1
        empty.ledger.append(Draft(kind="run.started", run="run-2", payload={"project": "p"}))
        assert len(known.of(0.0).runs) == 1
        for thread in threading.enumerate():
            if thread.name.endswith("(_fold)"):
                thread.join(10)
        assert len(known.of(0.0).runs) == 2

    def test_few_spans_are_kept(self, empty: LocalStore) -> None:
        known = costing.Costing(empty)
        for month in range(30):
            known.of(float(month))
        assert len(known._known) == 8


class TestColumns:
    def test_text_is_escaped_and_only_our_addresses_are_links(self) -> None:
        found = [Column(1.0, "<b>", "/runs/a"), Column(2.0, "x", "javascript:alert(1)", unusual=True, usual=1.0)]
        drawn = str(columns(found, title="<i>", unit="EUR", limit=1.5, ends=("<a>", "b")))
        assert "<b>" not in drawn
        assert "<i>" not in drawn
        assert "javascript" not in drawn
        assert drawn.count("<a href=") == 1
        assert 'class="limit"' in drawn
        assert "style=" not in drawn

    def test_limit_far_above_is_left_out(self) -> None:
        assert "limit" not in str(columns([Column(1.0, "x")], title="t", unit="EUR", limit=4.0))

    def test_nothing_costs_nothing(self) -> None:
        assert "nan" not in str(columns([Column(0.0, "x")], title="t", unit="s"))


class TestRun:
    def test_attempts_carry_reason_wait_and_class_of_error(self, engine_reader: Reader, engine: Any) -> None:
        page = run.load(engine_reader, ask(run=engine.runs["retried"]))
        fit = next(row for row in page.steps if row.name == "fit")
        assert [(one.number, one.waits, one.kind) for one in fit.attempts] == [(1, 2.5, "network"), (2, 12.0, "memory")]
        assert fit.whole == pytest.approx(fit.seconds + 9 + 2.5 + 9 + 12)
        assert fit.notes == ("asked for 1 GPU and ran on the CPU: there is none",)
        assert fit.peak_bytes == 3_400_000_000
        assert page.cost == pytest.approx(sum(row.cost or 0.0 for row in page.steps))

    def test_says_what_fired_it(self, engine_reader: Reader, engine: Any) -> None:
        page = run.load(engine_reader, ask(run=engine.runs["failed"]))
        assert page.fire is not None
        assert (page.fire.id, page.fire.trigger) == (engine.fires["hook"], "shop")
        fire = engine.store.ledger.fire(engine.fires["hook"])
        assert fire is not None
        assert page.trace == fire.trace

    def test_failure_names_the_likely_cause_and_the_way_back(self, engine_reader: Reader, engine: Any) -> None:
        page = run.load(engine_reader, ask(run=engine.runs["failed"]))
        (failure,) = page.failures
        assert failure.step == "fit"
        assert failure.replay == f"modelyard replay {engine.runs['failed']} fit"
        assert failure.cause is not None
        assert (failure.cause.kind, failure.cause.run) == ("network", engine.runs["retried"])
        assert failure.log[0] == "INFO steps: try 1 of the feed"
        assert failure.log[-1] == "WARNING steps: password=[redacted]"

    def test_failure_whose_capsule_is_gone_is_shown_without_it(self, empty: LocalStore) -> None:
        error = {"code": "step-failed", "message": "x"}
        empty.ledger.append(
            Draft(kind="run.started", run="run-1", payload={"project": "p"}),
            Draft(kind="step.failed", run="run-1", step="a b", payload={"error": error, "capsule": "c" * 64}),
            Draft(kind="run.finished", run="run-1", payload={"status": "failed"}),
        )
        (failure,) = run.load(Reader(empty), ask(run="run-1")).failures
        assert failure.log == ()
        assert failure.replay == "modelyard replay run-1 'a b'"

    def test_skipped_steps_say_why(self, engine_reader: Reader, engine: Any) -> None:
        page = run.load(engine_reader, ask(run=engine.runs["stale"]))
        assert page.run.status == "skipped"
        assert [row.status for row in page.steps] == ["succeeded", *["skipped"] * 6]
        assert page.steps[-1].reason == "parcels is 3 days old, at most 1 day is fresh"
        assert page.steps[-1].offset is None
        assert page.run.steps == 1

    def test_stopped_run_says_so(self, engine_client: Any, engine: Any) -> None:
        text = engine_client.get(f"/runs/{engine.runs['stopped']}").text
        assert "Its budget was spent" in text

    def test_bottleneck_is_named_and_drawn(self, engine_reader: Reader, engine: Any) -> None:
        page = run.load(engine_reader, ask(run=engine.runs["night0"]))
        assert [leg.name for leg in page.path] == ["freshness", "load.weather", "join", "fit", "score", "report"]
        fit = next(leg for leg in page.path if leg.name == "fit")
        assert fit.waited == pytest.approx(6.0)
        assert page.bottleneck.startswith("`fit` is 9")
        assert "for their turn" in page.bottleneck
        assert page.graph.count('class="critical"') == 5
        assert page.graph.count("node critical") == 6
        assert "waited 6.0 s" in page.graph

    def test_waiting_is_named_where_it_was_longest(self, reader: Reader) -> None:
        page = run.load(reader, ask(run="run-04best00000000"))
        assert page.bottleneck.startswith("waiting for a turn is 6")
        assert "`train.lightgbm` is 25 %" in page.bottleneck

    def test_step_page_shows_its_log_and_its_attempts(self, engine_reader: Reader, engine: Any) -> None:
        page = step.load(engine_reader, ask(run=engine.runs["failed"], step="fit"))
        assert len(page.log) == 5
        assert SECRET not in "".join(page.log)
        assert [one.kind for one in page.attempts] == ["network"]
        assert page.failure is not None
        assert page.usage.peak_bytes == 3_400_000_000
        assert page.cost


class TestCriticalPath:
    @pytest.mark.parametrize("seed", range(20))
    def test_its_legs_are_as_long_as_the_run(self, seed: int) -> None:
        random = Random(seed)  # noqa: S311 - the same graphs every time
        spans: list[Span] = []
        for n in range(30):
            needs = tuple(one.name for one in random.sample(spans, min(len(spans), random.randint(0, 3))))
            ready = max((one.end for one in spans if one.name in needs), default=10.0)
            begin = ready + random.choice([0.0, random.random()])
            spans.append(Span(f"s{n}", begin, begin + random.random() * 5, needs))
        path = critical(spans, 10.0)
        whole = max(one.end for one in spans) - 10.0
        assert sum(leg.waited + leg.ran for leg in path) == pytest.approx(whole)
        assert sum(leg.share for leg in path) <= 1 + 1e-9
        for before, after in pairwise(path):
            assert before.name in next(one.needs for one in spans if one.name == after.name)

    def test_of_nothing_is_nothing(self) -> None:
        assert critical([], 0.0) == ()
        assert [leg.share for leg in critical([Span("a", 0.0, 0.0)], 0.0)] == [0.0]
