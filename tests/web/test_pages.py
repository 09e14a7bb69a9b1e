"""What pages read: each `load` on a small ledger, without HTTP."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

import modelyard.web.pages
from modelyard._kit.errors import NotFound, UserError
from modelyard.deploy.approving import approve
from modelyard.deploy.promotion import declare, stages_of
from modelyard.deploy.stages import Stage
from modelyard.records import Check, CheckResult, Deployment, Draft, Evidence, Limit, plain
from modelyard.store.local import LocalStore
from modelyard.web import Reader
from modelyard.web.pages import about, cards, checks, models, monitoring, overview, path, run, runs, step, tables
from modelyard.web.query import Query

if TYPE_CHECKING:
    from starlette.testclient import TestClient

FIRST, BROKEN, REFUSED, BEST, AGAIN = (
    "run-01first0000000",
    "run-02broken000000",
    "run-03refused00000",
    "run-04best00000000",
    "run-05again0000000",
)


def ask(**words: str) -> Query:
    return Query(words)


class TestRowsSetAside:
    """A contract with `bad_rows: quarantine` that found bad rows did what the file asks: a notice, no failure."""

    @staticmethod
    def results(*, blocking: bool) -> tuple[CheckResult, ...]:
        def one(column: str, bad: int) -> CheckResult:
            return CheckResult(
                check=Check(name=f"contract.people.{column}", type="contract", blocking=blocking),
                status="failed" if bad else "passed",
                reason=f"{bad} of 400 rows set aside",
                limit=Limit(op="at_most", value=0, unit="rows"),
                evidence=Evidence(measure="bad_rows", value=bad, unit="rows", n=400),
            )

        return tuple(one(column, bad) for column, bad in (("age", 1), ("id", 0), ("sex", 2), ("race", 0)))

    @pytest.fixture
    def ran(self, empty: LocalStore) -> Callable[..., Reader]:
        def made(*, blocking: bool) -> Reader:
            outputs = {"results": [plain(one) for one in self.results(blocking=blocking)]}
            for kind, payload in (
                ("run.started", {"project": "p", "plan": ""}),
                ("step.started", {}),
                ("step.finished", {"key": "k", "outputs": outputs, "seconds": 0.1}),
                ("run.finished", {"status": "succeeded"}),
            ):
                name = "contract.people" if kind.startswith("step") else ""
                empty.ledger.append(Draft(kind=kind, actor="user:ada", run="run-1", step=name, payload=payload))
            return Reader(empty)

        return made

    def test_they_are_a_notice_on_every_page(self, ran: Callable[..., Reader], open_client: Any) -> None:
        reader = ran(blocking=False)
        page = run.load(reader, ask(run="run-1"))
        (link,) = page.steps[0].given
        assert (link.text, link.status) == ("4 results, 2 set rows aside", "aside")
        found = checks.load(reader, ask(run="run-1"))
        assert found.counts == {"aside": 2, "passed": 2}
        assert [row.look for row in checks.load(reader, ask(run="run-1", status="aside")).checks] == ["aside", "aside"]
        assert checks.load(reader, ask(run="run-1", status="failed")).checks == ()
        text = open_client(reader._store).get("/checks?run=run-1").text
        assert "st-failed" not in text
        assert "st-aside" in text

    def test_where_they_stop_the_run_they_are_a_failure(self, ran: Callable[..., Reader]) -> None:
        reader = ran(blocking=True)
        (link,) = run.load(reader, ask(run="run-1")).steps[0].given
        assert (link.text, link.status) == ("4 results, 2 not met", "failed")
        assert checks.load(reader, ask(run="run-1")).counts == {"failed": 2, "passed": 2}


class TestOverview:
    def test_tells_champion_gate_run_drift_and_next_step(self, reader: Reader, seeded: Any) -> None:
        page = overview.load(reader, ask())
        assert page.project == "income"
        assert page.champion is not None
        assert page.champion.digest == seeded.models[BEST].digest
        assert (page.champion.revision, page.champion.score) == (2, "roc_auc 0.9213")
        assert page.gate is not None
        assert (page.gate.status, page.gate.passed, page.gate.total) == ("passed", 6, 6)
        assert page.gate.reported == ("brier",)
        assert page.contract is not None
        assert (page.contract.rules, page.contract.rows) == (3, 7)
        assert not [row for row in page.checks if row.type == "contract"]
        assert page.last is not None
        assert (page.last.id, page.last.status, page.last.cached) == (AGAIN, "succeeded", 21)
        assert page.drift is not None
        assert page.drift.features[0].feature == "age"
        assert page.next.title == "Train again"
        assert "age" in page.next.text

    def test_of_an_empty_project_says_what_to_do_first(self, empty: LocalStore) -> None:
        page = overview.load(Reader(empty), ask())
        assert (page.champion, page.gate, page.last, page.drift) == (None, None, None, None)
        assert page.next.command == "modelyard run"

    @pytest.mark.parametrize(
        ("status", "reason", "title", "words"),
        [
            ("failed", "column `x` is not there", "Mend the run", "column `x`"),
            ("cancelled", "stopped by Ctrl-C", "Run it again", "goes on from there"),
            ("succeeded", "", "Deploy a model", "No model answers"),
        ],
    )
    def test_next_step_follows_how_the_last_run_ended(
        self, empty: LocalStore, status: str, reason: str, title: str, words: str
    ) -> None:
        empty.ledger.append(
            Draft(kind="run.started", run="run-1", payload={"project": "p"}),
            Draft(kind="run.finished", run="run-1", payload={"status": status, "reason": reason}),
        )
        page = overview.load(Reader(empty), ask())
        assert page.next.title == title
        assert words in page.next.text


class TestRuns:
    def test_are_newest_first_with_their_counts(self, reader: Reader) -> None:
        page = runs.load(reader, ask())
        assert [row.id for row in page.runs] == [AGAIN, BEST, REFUSED, BROKEN, FIRST]
        refused = page.runs[2]
        assert refused.stopping == ("gap.false_negative_rate",)
        assert set(refused.failing) == {"gap.false_negative_rate", "brier"}
        assert refused.failed == ("gate",)

    def test_are_filtered_by_status_and_words(self, reader: Reader) -> None:
        assert [row.id for row in runs.load(reader, ask(status="failed")).runs] == [REFUSED, BROKEN]
        assert [row.id for row in runs.load(reader, ask(q="GRACE")).runs] == [BEST]
        assert [row.id for row in runs.load(reader, ask(q="hours applicants")).runs] == [BROKEN]
        assert runs.load(reader, ask(q="nothing like it")).runs == ()

    def test_refuse_a_status_that_is_none(self, reader: Reader) -> None:
        with pytest.raises(UserError, match="`failed`"):
            runs.load(reader, ask(status="failled"))

    @pytest.mark.parametrize("words", [{}, {"status": "succeeded"}, {"q": "project"}])
    def test_are_paged_without_a_gap_or_a_double(self, empty: LocalStore, words: dict[str, str]) -> None:
        for i in range(123):
            empty.ledger.append(
                Draft(kind="run.started", run=f"run-{i:04}", payload={"project": "project"}),
                Draft(kind="run.finished", run=f"run-{i:04}", payload={"status": "succeeded"}),
            )
        seen, before = [], ""
        for _ in range(5):
            page = runs.load(Reader(empty), ask(before=before, **words))
            seen += [row.id for row in page.runs]
            assert len(page.runs) <= 50
            before = page.older
            if not before:
                break
        assert seen == [f"run-{i:04}" for i in reversed(range(123))]

    def test_one_whose_process_died_is_not_called_running(self, empty: LocalStore) -> None:
        reader = Reader(empty)
        empty.ledger.append(Draft(kind="run.started", run="run-1", payload={"project": "p"}))
        assert runs.load(reader, ask()).runs[0].status == "interrupted"
        with empty.hold("run", who={"run": "run-1"}):
            page = runs.load(reader, ask())
            assert page.runs[0].status == "running"
            assert page.live


class TestRun:
    def test_shows_every_step_of_the_plan_with_time_and_what_it_gave(self, reader: Reader) -> None:
        page = run.load(reader, ask(run=BEST))
        names = [one.name for one in page.steps]
        assert names[:3] == ["load.applicants", "contract.applicants", "features"]
        assert names[-1] == "promote"
        by_name = {one.name: one for one in page.steps}
        assert by_name["load.applicants"].status == "cached"
        assert page.saved > 1
        trained = by_name["train.random_forest"]
        assert trained.offset is not None
        assert trained.offset >= 0
        assert trained.offset + trained.seconds <= page.span + 0.01
        assert {one.kind for one in by_name["fit"].given} == {"model", "check_result"}
        assert by_name["split"].given[0].href or by_name["split"].given[1].href.startswith("/tables/split.")

    def test_graph_draws_every_step(self, reader: Reader) -> None:
        page = run.load(reader, ask(run=BEST))
        assert page.graph.startswith("<svg")
        for one in page.steps:
            assert f'data-id="{one.name}"' in page.graph

    def test_graph_of_500_steps_leaves_out_what_a_longer_way_says(self) -> None:
        needs = {"s0": ()} | {f"s{i}": tuple(f"s{j}" for j in range(max(0, i - 20), i)) for i in range(1, 500)}
        assert path.shortest(needs) == [(f"s{i - 1}", f"s{i}") for i in range(1, 500)]
        assert path.shortest({"a": (), "b": (), "c": ("a", "b"), "d": ("a", "c", "nowhere")}) == [
            ("a", "c"),
            ("b", "c"),
            ("c", "d"),
        ]

    def test_that_failed_says_where_and_what_next_and_what_never_ran(self, reader: Reader) -> None:
        page = run.load(reader, ask(run=BROKEN))
        by_name = {one.name: one for one in page.steps}
        assert by_name["features"].error["code"] == "features-column-missing"
        assert by_name["features"].error["hint"] == "did you mean `hours_per_week`?"
        assert by_name["split"].status == "never"

    def test_under_way_counts_up_and_waits(self, empty: LocalStore, story: Any) -> None:
        teller = story.Story(empty.root)
        with teller.run("run-1"):
            teller.done("run-1", "load.applicants", {"table": teller.table("load.applicants.table", teller.frame(5))})
            teller.write("step.started", "run-1", "contract.applicants", {"key": "k"})
            teller.clock.now += 7
            with teller.store.hold("run", who={"run": "run-1"}):
                page = run.load(Reader(teller.store, clock=teller.clock), ask(run="run-1"))
        assert page.live
        by_name = {one.name: one for one in page.steps}
        assert (by_name["contract.applicants"].status, by_name["contract.applicants"].seconds) == ("running", 7.0)
        assert by_name["features"].status == "waiting"
        teller.store.close()

    def test_without_its_plan_still_shows_its_steps(self, empty: LocalStore) -> None:
        empty.ledger.append(
            Draft(kind="run.started", run="run-1", payload={"project": "p", "plan": "0" * 64}),
            Draft(kind="step.finished", run="run-1", step="a", payload={"key": "k", "outputs": {"value": {"x": 1}}}),
        )
        page = run.load(Reader(empty), ask(run="run-1"))
        assert [one.name for one in page.steps] == ["a"]
        assert page.graph == ""

    def test_unknown_names_the_near_ones(self, reader: Reader) -> None:
        with pytest.raises(NotFound) as caught:
            run.load(reader, ask(run="run-04bets00000000"))
        assert BEST in caught.value.problem.hint

    def test_latest_is_the_newest(self, reader: Reader) -> None:
        assert run.load(reader, ask(run="latest")).run.id == AGAIN


class TestStep:
    def test_shows_inputs_settings_and_everything_it_gave(self, reader: Reader) -> None:
        page = step.load(reader, ask(run=BEST, step="select"))
        assert page.inputs["candidates"][0] == "train.linear"
        assert page.feeds == ("fit",)
        assert '"winner"' in page.outputs
        assert page.made_of["code"]

    def test_that_failed_has_its_trace(self, reader: Reader) -> None:
        page = step.load(reader, ask(run=BROKEN, step="features"))
        assert "ColumnNotFoundError" in page.trace

    def test_that_never_ran_is_shown_from_the_plan(self, reader: Reader) -> None:
        page = step.load(reader, ask(run=BROKEN, step="promote"))
        assert (page.status, page.given) == ("never", ())

    def test_unknown_names_the_near_ones(self, reader: Reader) -> None:
        with pytest.raises(NotFound, match="`select`"):
            step.load(reader, ask(run=BEST, step="selct"))


class TestTables:
    def test_list_says_rows_and_how_they_changed(self, reader: Reader) -> None:
        page = tables.load(reader, ask())
        by_name = {row.name: row for row in page.tables}
        loaded = by_name["load.applicants.table"]
        assert (loaded.rows, loaded.change, loaded.versions) == (240, 120, 2)
        assert by_name["contract.applicants.quarantine"].quarantine

    def test_list_is_filtered(self, reader: Reader) -> None:
        assert {row.name for row in tables.load(reader, ask(q="split")).tables} == {"split.train", "split.test"}

    def test_version_has_rows_columns_and_lineage(self, reader: Reader) -> None:
        page = tables.load_version(reader, ask(table="contract.applicants.accepted", digest="latest"))
        assert (page.number, page.total) == (2, 2)
        assert [link.name for link in page.parents] == ["load.applicants.table"]
        assert "features.table" in {link.name for link in page.children}
        assert len(page.preview) == 50
        assert [column.name for column in page.header][:2] == ["id", "age"]

    def test_any_older_version_is_shown_as_it_was(self, reader: Reader) -> None:
        newest = tables.load_version(reader, ask(table="load.applicants.table", digest="latest"))
        older = tables.load_version(reader, ask(table="load.applicants.table", digest=newest.versions[1].digest[:12]))
        assert (older.number, older.version.rows) == (1, 120)

    def test_quarantine_shows_why(self, reader: Reader) -> None:
        page = tables.load_version(reader, ask(table="contract.applicants.quarantine", digest="latest"))
        assert page.quarantine
        assert page.preview[0][-1] == "age: 203 is above 100"

    def test_rows_that_are_gone_are_said(self, empty: LocalStore, story: Any) -> None:
        import shutil

        teller = story.Story(empty.root)
        with teller.run("run-1"):
            teller.done("run-1", "load.applicants", {"table": teller.table("load.applicants.table", teller.frame(5))})
        shutil.rmtree(empty.root / ".modelyard" / "tables")
        page = tables.load_version(Reader(teller.store), ask(table="load.applicants.table", digest="latest"))
        assert page.unreadable
        assert page.preview == ()
        teller.store.close()

    def test_unknown_names_the_near_ones(self, reader: Reader) -> None:
        with pytest.raises(NotFound, match=r"features\.table"):
            tables.load_version(reader, ask(table="feature.table", digest="latest"))
        with pytest.raises(NotFound):
            tables.load_version(reader, ask(table="features.table", digest="0000"))


class TestModels:
    def test_leaderboard_is_best_first_with_the_chosen_one(self, reader: Reader) -> None:
        page = models.load(reader, ask())
        means = [row.mean for row in page.candidates]
        assert means == sorted(means, reverse=True)
        assert [row.family for row in page.candidates if row.chosen] == ["lightgbm"]
        assert page.candidates[0].p_value is None
        assert "`lightgbm` scored best" in page.reason

    def test_versions_carry_their_alias(self, reader: Reader, seeded: Any) -> None:
        page = models.load(reader, ask())
        assert page.total == 3
        assert {row.digest: row.aliases for row in page.versions}[seeded.models[BEST].digest] == ("champion",)
        assert {row.digest: row.released for row in page.versions}[seeded.models[REFUSED].digest] is False
        assert [move.now for move in page.moves] == [True, False]

    def test_stages_say_what_answers_and_what_waits(
        self, empty: LocalStore, empty_client: TestClient, reader: Reader, seeded: Any
    ) -> None:
        assert models.load(reader, ask()).stages == ()
        model = seeded.models[BEST]
        declare(empty, model.name, {"dev": Stage(), "prod": Stage(approvals=2)}, actor="user:ada")
        to = Deployment(endpoint=f"{model.name}-dev", alias="champion", model=model, revision=1)
        empty.ledger.append(Draft(kind="alias.moved", payload={"deployment": plain(to)}))
        approve(empty, stages_of(empty)[f"{model.name}-prod"], model, actor="user:bob")
        page = models.load(Reader(empty), ask())
        assert [(one.stage, one.champion, one.next, one.missing) for one in page.stages] == [
            ("dev", model.digest, "", 0),
            ("prod", "", model.digest, 1),
        ]
        shown = empty_client.get("/models").text
        assert "<code>modelyard approve --to prod</code>" in shown
        assert re.search(r"1 of 2</td>.*user:bob", shown)

    def test_model_says_what_it_takes_and_comes_from(self, reader: Reader, seeded: Any) -> None:
        page = models.load_model(reader, ask(model=seeded.models[BEST].digest[:12]))
        assert [one.name for one in page.features][:2] == ["age", "hours_per_week"]
        assert page.trained_on[0].name == "split.train"
        assert page.step == "fit"
        assert {row.name for row in page.checks} >= {"roc_auc", "parity"}

    def test_unknown_is_not_found(self, reader: Reader) -> None:
        with pytest.raises(NotFound):
            models.load_model(reader, ask(model="zzz"))


class TestChecks:
    def test_put_the_failed_ones_first_with_limit_and_interval(self, reader: Reader) -> None:
        page = checks.load(reader, ask(run=REFUSED))
        assert [row.name for row in page.checks[:2]] == ["gap.false_negative_rate", "brier"]
        auc = next(row for row in page.checks if row.name == "roc_auc")
        assert (auc.op, auc.bound, auc.value) == ("at_least", 0.9, 0.9221)
        assert auc.low is not None
        assert auc.low < 0.9221
        assert [one.run for one in auc.trend] == [FIRST, REFUSED]

    def test_without_a_run_are_of_the_newest_that_made_some(self, reader: Reader) -> None:
        page = checks.load(reader, ask())
        assert page.run is not None
        assert page.run.id == AGAIN

    def test_are_narrowed_to_a_model_a_status_and_words(self, reader: Reader, seeded: Any) -> None:
        digest = seeded.models[FIRST].digest
        page = checks.load(reader, ask(model=digest))
        assert {row.model for row in page.checks} == {digest}
        assert [row.name for row in checks.load(reader, ask(run=BEST, status="failed")).checks] == ["brier"]
        assert [row.name for row in checks.load(reader, ask(run=BEST, q="sex=female")).checks] == [
            "gap.false_negative_rate"
        ]


class TestCard:
    def test_has_sections_with_evidence_and_charts(self, reader: Reader) -> None:
        page = cards.load(reader, ask(run="latest"))
        assert [section.key for section in page.sections][:2] == ["details", "use"]
        metrics = next(section for section in page.sections if section.key == "metrics")
        line = metrics.parts[0].lines[0]
        assert line.low is not None
        assert line.limit is not None
        assert (line.value.value, line.low.value, line.limit.value) == ("0.9213", "0.9157", "0.9")
        assert line.value.evidence
        assert sum(part.svg.startswith("<svg") for part in metrics.parts) == 3

    def test_a_limit_says_its_sense(self, reader: Reader, client: Any) -> None:
        line = next(s for s in cards.load(reader, ask(run="latest")).sections if s.key == "metrics").parts[0].lines[0]
        assert line.limit_op is not None
        assert f"limit {line.limit_op.text} " in client.get("/cards/latest").text

    def test_with_a_chart_of_a_later_release_still_opens(self, story: Any, seeded: Any) -> None:
        from modelyard.records import Block

        part = cards._part(Block(type="chart", title="T", text="Words.", chart={"name": "hologram"}), 0, 0)
        assert (part.svg, part.grid, part.prose[0]["lines"]) == ("", None, ["Words."])

    def test_of_a_run_without_one_is_not_found(self, reader: Reader) -> None:
        with pytest.raises(NotFound):
            cards.load(reader, ask(run=BROKEN))

    def test_file_is_the_sealed_document(self, reader: Reader) -> None:
        assert cards.load_file(reader, ask(run="latest")).lower().startswith("<!doctype html>")


class TestMonitoring:
    def test_puts_what_moved_furthest_first(self, reader: Reader) -> None:
        (watched,) = monitoring.load(reader, ask()).endpoints
        assert [row.feature for row in watched.features][:2] == ["age", "prediction"]
        assert watched.features[0].status == "failed"
        assert len(watched.features[0].trend) == 12
        assert watched.rows == 1000
        assert watched.past[0].worst == "age"
        assert watched.scale >= 0.32

    def test_a_watch_that_cannot_be_read_breaks_nothing(self, empty: LocalStore) -> None:
        payload = {"endpoint": "income", "model": "m", "window": None, "results": [{"kind": "tomorrow"}, 3]}
        empty.ledger.append(Draft(kind="watch.finished", payload=payload))
        (watched,) = monitoring.load(Reader(empty), ask()).endpoints
        assert (watched.rows, watched.features, watched.others) == (0, (), ())


def test_about_lists_what_others_wrote(reader: Reader) -> None:
    page = about.load(reader, ask())
    assert [one.name for one in page.vendored] == ["htmx"]
    assert page.events > 50


def test_catalogue_reads_only_what_is_new(empty: LocalStore) -> None:
    reader = Reader(empty)
    empty.ledger.append(Draft(kind="run.started", run="run-1", payload={"project": "p"}))
    assert reader.catalog().seq == 1
    done = {"key": "k", "outputs": {"value": {"kind": "tomorrow", "x": 1}}}
    empty.ledger.append(Draft(kind="step.finished", run="run-1", step="a", payload=done))
    catalog = reader.catalog()
    assert (catalog.seq, catalog.tallies["run-1"].ended) == (2, 1)


def pages_of_every_module() -> list[type]:
    found = []
    for info in pkgutil.iter_modules(modelyard.web.pages.__path__):
        module = importlib.import_module(f"modelyard.web.pages.{info.name}")
        found += [
            value
            for value in vars(module).values()
            if dataclasses.is_dataclass(value)
            and isinstance(value, type)
            and value.__module__ == module.__name__
            and not value.__name__.startswith("_")
        ]
    return found


@pytest.mark.parametrize("page", pages_of_every_module(), ids=lambda page: page.__name__)
def test_every_field_of_a_page_is_documented_and_it_is_frozen(page: type) -> None:
    about_it = "\n".join(one.__doc__ or "" for one in page.__mro__)
    for one in dataclasses.fields(page):
        assert f"    {one.name}: " in about_it, f"{page.__name__}.{one.name}"
    assert page.__dataclass_params__.frozen  # type: ignore[attr-defined]
