"""The page of what runs by itself: triggers, fires, daemons and alerts, as the ledger and the declaration tell them."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from modelyard._kit.errors import NotFound, UserError
from modelyard.automation.base import Wanted
from modelyard.automation.board import pause
from modelyard.automation.fires import ask
from modelyard.automation.state import ChildState, DaemonState, publish
from modelyard.deploy.switch import kill, revive
from modelyard.records import Draft
from modelyard.store.local import LocalStore
from modelyard.web import Reader
from modelyard.web.pages import automation, fires, overview
from modelyard.web.query import Query

SECRET = "hunter2-very-secret"


def ask_for(**words: str) -> Query:
    return Query(words)


@pytest.fixture(scope="module")
def page(engine_reader: Reader) -> automation.AutomationPage:
    return automation.load(engine_reader, ask_for())


class TestBoard:
    def test_tells_how_each_trigger_stands_and_why(self, page: automation.AutomationPage) -> None:
        rows = {row.name: row for row in page.triggers}
        assert list(rows) == ["nightly", "weekly", "arrivals", "shop", "stock", "drifted", "manual"]
        looks = {name: row.look for name, row in rows.items()}
        assert looks == {
            "nightly": "queued",
            "weekly": "skipped",
            "arrivals": "queued",
            "shop": "paused",
            "stock": "failed",
            "drifted": "never",
            "manual": "queued",
        }
        assert rows["weekly"].missed == 3
        assert (rows["weekly"].owner, rows["nightly"].owner) == ("finance", "logistics")
        assert rows["shop"].paused == "the shop moves house (user:ada)"
        assert rows["stock"].error == "no such table: `parcels`"
        assert rows["arrivals"].why == "waits for an idle machine: its load is 0.93 a core"
        assert rows["arrivals"].dropped == 1
        assert (rows["nightly"].watched, rows["drifted"].watched) == (True, False)

    def test_names_what_is_due_next(self, page: automation.AutomationPage, engine: Any) -> None:
        assert page.next is not None
        assert page.next.name == "nightly"
        assert 0 < page.next.next - engine.clock() <= 86_400
        assert page.next.next_text

    def test_links_fires_to_their_runs(self, page: automation.AutomationPage, engine: Any) -> None:
        found = {fire.id: fire for fire in page.fires}
        assert found[engine.fires["hook"]].run == engine.runs["failed"]
        assert found[engine.fires["hook"]].state == "failed"
        assert found[engine.fires["missed"]].state == "dropped"

    def test_tells_what_off_peak_starts_saved(self, page: automation.AutomationPage) -> None:
        assert page.saved == {"EUR": pytest.approx(6 * 0.063)}
        assert [fire.saving.text for fire in page.queue if fire.saving] == ["saves 0.063 EUR of 0.103"]

    def test_queue_says_why_each_waits(self, page: automation.AutomationPage) -> None:
        assert page.waiting == 3
        first, *_ = page.queue
        assert (first.trigger, first.more) == ("arrivals", 9)
        assert first.why.startswith("waits for an idle machine")

    def test_alerts_that_wait_and_failed_come_first(self, page: automation.AutomationPage) -> None:
        assert [alert.state for alert in page.alerts] == ["waiting", "waiting", "failed", "sent"]
        assert (page.alerts_waiting, page.alerts_failed) == (2, 1)
        assert "[redacted]" in page.alerts[0].error

    @pytest.mark.parametrize(
        ("words", "count"),
        [
            ({"trigger": "nightly"}, 8),
            ({"trigger": "nightly", "state": "stopped"}, 1),
            ({"state": "dropped"}, 3),
            ({"trigger": "nobody"}, 0),
        ],
    )
    def test_fires_are_filtered(self, engine_reader: Reader, words: dict[str, str], count: int) -> None:
        assert len(automation.load(engine_reader, ask_for(**words)).fires) == count

    def test_state_that_is_none_is_refused_with_the_near_ones(self, engine_reader: Reader) -> None:
        with pytest.raises(UserError, match="`queued`"):
            automation.load(engine_reader, ask_for(state="queud"))


class TestDaemons:
    def test_lost_one_is_never_called_running(self, page: automation.AutomationPage) -> None:
        assert {one.host: one.status for one in page.daemons} == {"rack-2": "lost", socket.gethostname(): "running"}

    def test_processes_of_a_lost_one_are_lost_too(self, empty: LocalStore) -> None:
        body = {"id": "daemon-1", "host": socket.gethostname(), "pid": 7, "version": "0.1"}
        empty.ledger.append(Draft(kind="daemon.started", actor="daemon", payload=body))
        child = ChildState(name="runner", state="running", pid=8)
        more = {"since": 1.0, "version": "0.1", "run": "run-1", "children": (child,), "problem": "x"}
        publish(empty.root, DaemonState(id="daemon-1", host=socket.gethostname(), pid=7, **more))
        (one,) = automation.load(Reader(empty), ask_for()).daemons
        assert (one.status, one.run, one.problem) == ("lost", "", "")
        assert [(kept.state, kept.pid) for kept in one.children] == [("lost", 0)]

    def test_silent_one_is_stuck(self, empty: LocalStore) -> None:
        body = {"id": "daemon-1", "host": socket.gethostname(), "pid": 7, "version": "0.1"}
        empty.ledger.append(Draft(kind="daemon.started", actor="daemon", payload=body))
        publish(empty.root, DaemonState(id="daemon-1", host=socket.gethostname(), pid=7, since=1.0, version="0.1"))
        with empty.hold("daemon:daemon-1", who={}):
            found = automation.load(Reader(empty, clock=lambda: 4e9), ask_for())
        assert [one.status for one in found.daemons] == ["stuck"]


class TestWithoutADeclaration:
    @pytest.fixture
    def fired(self, empty: LocalStore) -> LocalStore:
        for name in ("b", "a"):
            ask(name, "files", Wanted(key="1", due=5.0), empty, actor=f"trigger:{name}")
        ask("a", "files", Wanted(key="2", due=6.0), empty, actor="trigger:a", drop="it is paused")
        pause("a", empty, reason="", actor="user:ada")
        return empty

    def test_the_ledger_alone_speaks_and_the_page_says_why(self, fired: LocalStore) -> None:
        page = automation.load(Reader(fired), ask_for())
        assert page.problem is not None
        assert page.problem.code == "spec-not-found"
        rows = {row.name: row for row in page.triggers}
        assert {name: row.look for name, row in rows.items()} == {"a": "paused", "b": "queued"}
        assert (rows["a"].paused, rows["a"].why, rows["a"].queued) == ("by user:ada", "left out: it is paused", 1)

    def test_broken_one_is_told_without_a_secret(self, fired: LocalStore, open_client: Any) -> None:
        text = f"project: p\nstore: postgresql://me:{SECRET}@db/x\nmodle: 1\n"
        (fired.root / "modelyard.yaml").write_text(text)
        with open_client(fired) as client:
            for path in ("/automation", "/automation.json", "/cost", "/", "/overview.json"):
                answer = client.get(path)
                assert answer.status_code == 200
                assert SECRET not in answer.text
            assert "The declaration cannot be read" in client.get("/automation").text
            assert any(one["word"] == "declaration" for one in client.get("/overview.json").json()["attention"])

    def test_mended_one_counts_from_the_next_look(self, fired: LocalStore, engine: Any) -> None:
        reader = Reader(fired)
        assert automation.load(reader, ask_for()).problem is not None
        (fired.root / "modelyard.yaml").write_text((engine.store.root / "modelyard.yaml").read_text())
        page = automation.load(reader, ask_for())
        assert page.problem is None
        assert [row.name for row in page.triggers][:2] == ["nightly", "weekly"]


class TestFire:
    def test_tells_what_came_with_it_without_the_secret(self, engine_reader: Reader, engine: Any) -> None:
        page = fires.load(engine_reader, ask_for(fire=engine.fires["hook"]))
        assert (page.fire.state, page.fire.run) == ("failed", engine.runs["failed"])
        assert len(page.trace) == 32
        assert '"order": 17' in page.payload
        assert SECRET not in page.payload

    def test_names_everything_that_changed(self, engine_reader: Reader, engine: Any) -> None:
        page = fires.load(engine_reader, ask_for(fire=engine.fires["waits"]))
        assert len(page.items) == 12
        assert page.live

    def test_unknown_one_is_not_there(self, engine_reader: Reader) -> None:
        with pytest.raises(NotFound):
            fires.load(engine_reader, ask_for(fire="fire-none"))

    def test_payload_that_looks_like_a_choice_is_none_of_ours(self, empty: LocalStore) -> None:
        body = {"why": "x", "saved": "much", "unit": "EUR"}
        made = ask("hook", "webhook", Wanted(key="1", due=1.0, payload=body), empty, actor="trigger:hook")
        assert made is not None
        assert fires.fire_row(made).saving is None
        odd = ask("s", "schedule", Wanted(key="1", due=1.0, payload=body), empty, actor="trigger:s")
        assert odd is not None
        saving = fires.fire_row(odd).saving
        assert saving is not None
        assert (saving.saved, saving.text) == (None, "")


class TestOverview:
    def test_says_what_needs_somebody_with_the_worst_first(self, engine_reader: Reader) -> None:
        page = overview.load(engine_reader, ask_for())
        words = [one.word for one in page.attention]
        assert set(words) == {"daemon lost", "last fire", "trigger fails", "alerts", "paused"}
        assert words[-1] == "paused"
        assert page.triggers[0].name == "nightly"
        assert page.watched
        assert page.next.title == "Raise the budget or wait"

    def test_says_that_fires_wait_for_a_daemon(self, empty: LocalStore) -> None:
        ask("manual", "manual", Wanted(key="1", due=5.0), empty, actor="user:ada")
        (one,) = overview.load(Reader(empty), ask_for()).attention
        assert (one.word, one.command) == ("waiting", "modelyard up")
        assert one.text == "1 fire waits, and no daemon runs"

    def test_says_that_an_endpoint_is_off(self, empty: LocalStore) -> None:
        kill(empty, "income", reason="it harms", actor="user:ada")
        (one,) = overview.load(Reader(empty), ask_for()).attention
        assert one.word == "off"
        assert one.text.startswith("income answers nobody since ")
        assert one.text.endswith(", by user:ada: it harms; `modelyard revive income` switches it on again")
        revive(empty, "income", actor="user:ada")
        assert overview.load(Reader(empty), ask_for()).attention == ()

    def test_says_that_a_model_is_unloaded(self, empty: LocalStore) -> None:
        who = {"endpoint": "income", "caller": "ops"}
        empty.ledger.append(Draft(kind="endpoint.unloaded", actor="server", payload=who))
        (one,) = overview.load(Reader(empty), ask_for()).attention
        assert one.word == "unloaded"
        assert one.text.startswith("income since ")
        empty.ledger.append(Draft(kind="endpoint.loaded", actor="server", payload=who))
        assert overview.load(Reader(empty), ask_for()).attention == ()

    def test_of_a_quiet_project_needs_nobody(self, reader: Reader) -> None:
        page = overview.load(reader, ask_for())
        assert (page.attention, page.triggers, page.watched) == ((), (), False)

    def test_next_step_after_a_skipped_run(self, empty: LocalStore) -> None:
        empty.ledger.append(
            Draft(kind="run.started", run="run-1", payload={"project": "p"}),
            Draft(kind="run.finished", run="run-1", payload={"status": "skipped", "reason": "orders is old"}),
        )
        page = overview.load(Reader(empty), ask_for())
        assert (page.next.title, page.next.text) == ("Bring newer data", "orders is old")


class TestSite:
    @pytest.fixture
    def paths(self, engine: Any) -> list[str]:
        runs = [f"/runs/{run}" for run in engine.runs.values()]
        each = [f"/automation/{fire}" for fire in engine.fires.values()]
        steps = [
            f"/runs/{engine.runs[name]}/step?step={step}" for name in ("failed", "stale") for step in ("fit", "join")
        ]
        return [
            "/",
            "/runs",
            "/automation",
            "/automation?state=dropped",
            "/cost",
            "/cost?month=all",
            *runs,
            *each,
            *steps,
        ]

    def test_no_page_shows_a_secret_or_lets_text_be_markup(self, engine_client: Any, paths: list[str]) -> None:
        for path in paths:
            answer = engine_client.get(path)
            assert answer.status_code == 200, path
            assert "<script>alert" not in answer.text, path
            assert SECRET not in answer.text, path
            assert ' style="' not in answer.text, path
            before, mark, after = path.partition("?")
            twin = "/overview.json" if path == "/" else f"{before}.json{mark}{after}"
            asked = engine_client.get(twin)
            assert asked.status_code == 200, twin
            assert SECRET not in asked.text, twin

    def test_runs_are_filtered_by_the_new_states(self, engine_client: Any, engine: Any) -> None:
        for state, name in (("skipped", "stale"), ("stopped", "stopped")):
            found = engine_client.get(f"/runs.json?status={state}").json()["runs"]
            assert [row["id"] for row in found] == [engine.runs[name]]

    def test_live_part_keeps_the_filter(self, engine_client: Any) -> None:
        text = engine_client.get("/automation?trigger=nightly&state=stopped").text
        assert 'hx-get="/automation?part=live&amp;trigger=nightly&amp;state=stopped"' in text
        part = engine_client.get("/automation?part=live&trigger=nightly&state=stopped").text
        assert part.lstrip().startswith('<div id="live"')
        assert part.count("run-19stopped") >= 1
        assert "run-10night0" not in part.partition('id="fires"')[2]

    def test_empty_project_says_how_it_begins(self, empty_client: Any) -> None:
        text = empty_client.get("/automation").text
        assert "No triggers yet" in text
        assert "Nothing fired yet" in text

    def test_reading_writes_nothing(self, engine_client: Any, engine: Any, paths: list[str]) -> None:
        before, files = engine.store.ledger.head(), _files(engine.store.root)
        for path in paths:
            engine_client.get(path)
        assert engine.store.ledger.head() == before
        assert _files(engine.store.root) == files


def _files(root: Path) -> set[str]:
    return {str(path) for path in root.rglob("*") if path.suffix not in (".db-wal", ".db-shm")}
