"""The pages in a real browser: no error on any of them, keys and filters work, a run is followed to its end."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.records import Draft
from modelyard.store.local import LocalStore
from modelyard.web.server import bind

pytestmark = pytest.mark.browser
CHROMIUM = os.environ.get("MODELYARD_CHROMIUM", "/usr/bin/chromium")
PAGES = {
    "overview": "/",
    "runs": "/runs",
    "run": "/runs/run-04best00000000",
    "refused": "/runs/run-03refused00000",
    "step": "/runs/run-02broken000000/step?step=features",
    "tables": "/tables",
    "table": "/tables/contract.applicants.accepted/latest",
    "models": "/models",
    "checks": "/checks",
    "card": "/cards/latest",
    "card-file": "/cards/latest/file",
    "monitoring": "/monitoring",
    "no-prices": "/cost?month=all",
    "no-triggers": "/automation",
    "about": "/about",
}


class Site:
    """A site served from a thread of this process."""

    def __init__(self, store: LocalStore, **options: Any) -> None:
        import uvicorn

        from modelyard.web import create_app

        self._socket = bind("127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(create_app(store, **options), log_level="error", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not Path(CHROMIUM).exists() and not shutil.which(CHROMIUM):
        pytest.skip(f"no Chromium at {CHROMIUM}; set MODELYARD_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without a sandbox, because the tests run as root in containers; only our own pages are opened.
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def site(seeded: Any) -> Iterator[Site]:
    made = Site(seeded.store, clock=seeded.clock)
    yield made
    made.close()


@pytest.fixture
def faults() -> Iterator[list[str]]:
    """What a browser complained of; the test fails if there is anything."""
    found: list[str] = []
    yield found
    assert found == []


def page_of(browser: Any, faults: list[str], home: str, *, width: int = 1600, scheme: str = "light") -> Any:
    context = browser.new_context(viewport={"width": width, "height": 1000}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith(home) else faults.append(f"asked for {asked.url}"))
    return page


@pytest.mark.parametrize("width", [390, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_shown_without_a_fault(
    browser: Any, site: Site, faults: list[str], width: int, scheme: str, tmp_path: Path
) -> None:
    page = page_of(browser, faults, site.address, width=width, scheme=scheme)
    folder = Path(os.environ.get("MODELYARD_SCREENSHOTS", tmp_path))
    for name, path in PAGES.items():
        page.goto(site.address + path)
        page.wait_for_load_state("load")
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{name} scrolls sideways by {wider} px at {width} px"
        shot = folder / f"{name}-{width}-{scheme}.png"
        page.screenshot(path=shot, full_page=True)
        assert shot.stat().st_size > 5000
    page.context.close()


def of_engine(engine: Any) -> dict[str, str]:
    """Return the pages of a project that runs by itself."""
    runs, fires = engine.runs, engine.fires
    return {
        "engine-overview": "/",
        "engine-runs": "/runs",
        "automation": "/automation",
        "fires": "/automation?trigger=nightly&state=stopped",
        "fire": f"/automation/{fires['night3']}",
        "delivery": f"/automation/{fires['hook']}",
        "arrivals": f"/automation/{fires['waits']}",
        "cost": "/cost",
        **{f"run-{name}": f"/runs/{runs[name]}" for name in ("failed", "retried", "stale", "stopped")},
        "failed-step": f"/runs/{runs['failed']}/step?step=fit",
    }


@pytest.mark.parametrize("width", [390, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_of_what_runs_by_itself_is_shown_without_a_fault(
    browser: Any, engine: Any, faults: list[str], width: int, scheme: str, tmp_path: Path
) -> None:
    site = Site(engine.store, clock=engine.clock)
    page = page_of(browser, faults, site.address, width=width, scheme=scheme)
    folder = Path(os.environ.get("MODELYARD_SCREENSHOTS", tmp_path))
    try:
        for name, path in of_engine(engine).items():
            page.goto(site.address + path)
            page.wait_for_load_state("load")
            wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wider <= 0, f"{name} scrolls sideways by {wider} px at {width} px"
            page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)
    finally:
        page.context.close()
        site.close()


def test_board_follows_what_happens_and_is_walked_by_keyboard(
    browser: Any, empty: LocalStore, faults: list[str]
) -> None:
    from playwright.sync_api import expect

    from modelyard.automation.base import Wanted
    from modelyard.automation.fires import ask, drop

    fire = ask("arrivals", "files", Wanted(key="1", due=5.0), empty, actor="trigger:arrivals")
    assert fire is not None
    site = Site(empty)
    page = page_of(browser, faults, site.address)
    try:
        page.goto(f"{site.address}/automation")
        rows = page.locator("#fires tbody tr")
        expect(rows).to_have_count(1)
        expect(rows.first).to_contain_text("Queued")
        drop(fire, "the file is gone again", empty)
        expect(rows.first).to_contain_text("the file is gone again")
        # Tab goes to the filters, Enter narrows the list.
        chip = page.locator("#fires").get_by_role("link", name="Left out", exact=True)
        for _ in range(40):
            page.keyboard.press("Tab")
            if chip.evaluate("one => one === document.activeElement"):
                break
        expect(chip).to_be_focused()
        page.keyboard.press("Enter")
        expect(chip).to_have_attribute("aria-current", "true")
        expect(rows).to_have_count(1)
        page.locator("#fires").get_by_role("link", name="arrivals").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("arrivals fired")
    finally:
        page.context.close()
        site.close()


def test_replay_command_is_copied_and_the_log_opens(browser: Any, engine: Any, faults: list[str]) -> None:
    from playwright.sync_api import expect

    site = Site(engine.store, clock=engine.clock)
    page = page_of(browser, faults, site.address)
    try:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.address)
        page.goto(f"{site.address}/runs/{engine.runs['failed']}")
        panel = page.locator(".panel-bad")
        panel.get_by_role("button", name="Copy").click()
        expect(panel.get_by_role("button", name="Copied")).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()") == f"modelyard replay {engine.runs['failed']} fit"
        panel.get_by_text("Its last 5 lines").click()
        expect(panel.locator("pre")).to_contain_text("password=[redacted]")
        expect(page.locator(".graph .node.critical")).to_have_count(4)
    finally:
        page.context.close()
        site.close()


def test_slash_focuses_the_filter_and_typing_narrows_the_list(browser: Any, site: Site, faults: list[str]) -> None:
    from playwright.sync_api import expect

    page = page_of(browser, faults, site.address)
    page.goto(f"{site.address}/runs?status=failed")
    rows = page.locator("#list tbody tr")
    expect(rows).to_have_count(2)
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("hours")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("run-02broken000000")
    expect(page.locator("#q")).to_have_value("hours")
    # A part of the word finds the same row, and the address follows the last letter.
    expect(page).to_have_url(re.compile("q=hours"))
    assert "status=failed" in page.url
    page.reload()
    expect(rows).to_have_count(1)
    page.locator("#q").fill("no such words")
    expect(page.locator("#list")).to_contain_text("No run fits")
    page.context.close()


def test_pages_work_without_a_script(browser: Any, site: Site) -> None:
    from playwright.sync_api import expect

    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.address}/checks")
    page.locator("#q").fill("roc")
    page.locator("#q").press("Enter")
    expect(page.locator("#list tbody tr")).to_have_count(1)
    page.get_by_role("link", name="Runs", exact=True).click()
    expect(page.locator("#list tbody tr")).to_have_count(5)
    context.close()


def test_main_flow_can_be_walked_by_keyboard(browser: Any, site: Site, faults: list[str]) -> None:
    from playwright.sync_api import expect

    page = page_of(browser, faults, site.address)
    page.goto(site.address)
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")
    page.context.close()


def test_run_is_followed_to_its_end(browser: Any, empty: LocalStore, faults: list[str], story: Any) -> None:
    from playwright.sync_api import expect

    teller = story.Story(empty.root)
    site = Site(teller.store, clock=teller.clock)
    page = page_of(browser, faults, site.address)
    try:
        with teller.store.hold("run", who={"run": "run-1"}), teller.run("run-1"):
            table = teller.table("load.applicants.table", teller.frame(5))
            teller.done("run-1", "load.applicants", {"table": table})
            teller.write("step.started", "run-1", "contract.applicants", {"key": "k"})
            page.goto(f"{site.address}/runs/run-1")
            strip = page.locator("dl.strip")
            expect(strip).to_contain_text("Running")
            expect(page.locator("#step-features")).to_contain_text("Waiting")
            results = [teller.contract("age", 5)]
            teller.done("run-1", "contract.applicants", {"accepted": table, "results": results})
            expect(page.locator("#step-contract\\.applicants")).to_contain_text("Succeeded")
            teller.end("run-1", "succeeded")
        expect(strip).to_contain_text("Succeeded")
        expect(page.locator("#live")).not_to_have_attribute("hx-trigger", "every 1s")
        # It has stopped asking: a page that is at rest makes no request.
        asked: list[str] = []
        page.on("request", lambda one: asked.append(one.url))
        page.wait_for_timeout(2500)
        assert asked == []
    finally:
        page.context.close()
        site.close()
        teller.store.close()


def test_page_says_when_the_server_is_gone(browser: Any, empty: LocalStore) -> None:
    from playwright.sync_api import expect

    empty.ledger.append(Draft(kind="run.started", run="run-1", payload={"project": "p"}))
    with empty.hold("run", who={"run": "run-1"}):
        site = Site(empty)
        page = page_of(browser, [], site.address)
        page.goto(f"{site.address}/runs/run-1")
        expect(page.locator("#offline")).to_be_hidden()
        site.close()
        expect(page.locator("#offline")).to_be_visible()
        expect(page.locator("dl.strip")).to_contain_text("Running")
        page.context.close()
