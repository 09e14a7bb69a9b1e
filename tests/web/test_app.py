"""The site over HTTP: every page, its JSON, what every answer carries, and what is refused."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from modelyard.records import Draft
from modelyard.store.local import LocalStore

if TYPE_CHECKING:
    from starlette.testclient import TestClient

PAGES = [
    "/",
    "/runs",
    "/runs?status=failed&q=gap",
    "/runs/run-04best00000000",
    "/runs/run-02broken000000",
    "/runs/run-04best00000000/step?step=select",
    "/tables",
    "/tables/contract.applicants.accepted/latest",
    "/tables/contract.applicants.quarantine/latest",
    "/models",
    "/checks",
    "/cards/latest",
    "/monitoring",
    "/automation",
    "/cost",
    "/cost?month=all",
    "/about",
]


class Seen(HTMLParser):
    """What matters of a page: tags with their attributes, links, and which tables lack a caption."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)

    def links(self) -> Iterator[str]:
        for _, attrs in self.tags:
            for key in ("href", "src", "hx-get"):
                if attrs.get(key, "").startswith("/"):
                    yield attrs[key].partition("#")[0]


def json_of(path: str) -> str:
    path, _, query = path.partition("?")
    return ("/overview.json" if path == "/" else f"{path}.json") + (f"?{query}" if query else "")


@pytest.mark.parametrize("path", PAGES)
def test_page_has_landmarks_titles_and_captions_and_is_small(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert len(answer.content) < 100_000
    seen = Seen(answer.text)
    assert seen.count("main") == seen.count("h1") == 1
    assert "<title>" in answer.text.partition("</head>")[0]
    assert seen.count("table") == seen.count("caption")
    assert not [attrs for _, attrs in seen.tags if "style" in attrs], "the policy forbids inline styles"
    assert not [attrs for _, attrs in seen.tags if any(key.startswith(("on", "hx-on")) for key in attrs)]
    ids = Counter(attrs["id"] for tag, attrs in seen.tags if "id" in attrs)
    assert max(ids.values()) == 1, ids.most_common(1)
    current = [attrs["href"] for _, attrs in seen.tags if attrs.get("aria-current") == "page"]
    assert len(current) == 1


@pytest.mark.parametrize("path", PAGES)
def test_page_is_its_json(client: TestClient, path: str) -> None:
    answer = client.get(json_of(path))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert html.escape(answer.json()["title"]) in client.get(path).text
    assert json_of(path) in list(Seen(client.get(path).text).links())


def test_every_link_from_the_overview_leads_somewhere(client: TestClient) -> None:
    todo, seen = ["/"], set()
    while todo:
        link = todo.pop()
        # The same lists with other filters are the same pages.
        if link in seen or len([one for one in seen if one.partition("?")[0] == link.partition("?")[0]]) > 12:
            continue
        seen.add(link)
        answer = client.get(link)
        assert answer.status_code == 200, link
        if answer.headers["content-type"].startswith("text/html"):
            todo += list(Seen(answer.text).links())
    assert {link.split("/")[1].split("?")[0] for link in seen} >= {
        "runs", "tables", "models", "checks", "cards", "monitoring", "about", "static", "automation", "cost",
    }  # fmt: skip
    assert len(seen) > 100


@pytest.mark.parametrize("path", [*PAGES, "/nowhere", "/static/app.css", "/runs.json"])
def test_answer_carries_a_strict_policy(client: TestClient, path: str) -> None:
    answer = client.get(path)
    rules = answer.headers["content-security-policy"]
    assert "unsafe" not in rules
    assert "default-src 'none'" in rules
    assert "frame-ancestors 'none'" in rules
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    scripts = [attrs for tag, attrs in Seen(answer.text).tags if tag == "script"]
    nonces = set(re.findall(r"'nonce-([^']+)'", rules))
    assert {attrs["nonce"] for attrs in scripts} <= nonces


def test_nonce_is_of_one_answer(client: TestClient) -> None:
    assert len({client.get("/").headers["content-security-policy"] for _ in range(3)}) == 3


def test_sealed_card_has_a_policy_of_its_own(client: TestClient) -> None:
    answer = client.get("/cards/latest/file")
    rules = answer.headers["content-security-policy"]
    assert "unsafe" not in rules
    assert "style-src 'sha256-" in rules
    assert "script-src" not in rules


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8500", 200),
        ("localhost", 200),
        ("[::1]:8500", 200),
        ("LOCALHOST:1", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:8500", 421),
        ("localhost.evil.example", 421),
        ("", 421),
    ],
)
def test_only_its_own_names_are_answered(client: TestClient, host: str, status: int) -> None:
    for path in ("/", "/runs.json", "/static/app.css"):
        answer = client.get(path, headers={"host": host})
        assert answer.status_code == status
        if status == 421:
            assert "strange-host" in answer.text
            assert "income" not in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_but_reading_is_answered(client: TestClient, method: str) -> None:
    answer = client.request(method, "/runs")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_head_is_answered(client: TestClient) -> None:
    assert client.head("/runs").status_code == 200


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("/runs/run-04bset00000000", "/runs/run-04best00000000"),
        ("/run", "/runs"),
        ("/tables/features.tabel/latest", "features.table"),
        ("/runs/run-04best00000000/step?step=selct", "select"),
    ],
)
def test_unknown_thing_is_a_page_that_names_the_near_ones(client: TestClient, path: str, near: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert near in answer.text
    assert Seen(answer.text).count("main") == 1
    if "?" not in path:
        error = client.get(f"{path}.json")
        assert error.status_code == 404
        assert error.json()["error"]["code"].endswith("-not-found")


def test_wrong_filter_says_what_can_be_asked(client: TestClient) -> None:
    answer = client.get("/checks?status=pased")
    assert answer.status_code == 400
    assert "<code>passed</code>" in answer.text


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/..%2fapp.py", "/static/vendor/../../app.py"])
def test_only_static_files_are_given(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_static_file_with_its_digest_is_kept(client: TestClient) -> None:
    seen = Seen(client.get("/").text)
    css = next(attrs["href"] for tag, attrs in seen.tags if attrs.get("rel") == "stylesheet")
    assert "immutable" in client.get(css).headers["cache-control"]
    assert "no-cache" in client.get("/static/app.css").headers["cache-control"]
    assert client.get("/").headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/", "Nothing ran in this project yet."),
        ("/runs", "No runs yet"),
        ("/tables", "No tables yet"),
        ("/models", "No candidates yet"),
        ("/checks", "No checks yet"),
        ("/cards/latest", "No card yet"),
        ("/monitoring", "Nothing was watched yet"),
        ("/automation", "No triggers yet"),
        ("/cost", "Nothing ran in this month"),
        ("/about", "never"),
    ],
)
def test_empty_project_has_pages_that_say_what_to_do(empty_client: TestClient, path: str, words: str) -> None:
    answer = empty_client.get(path)
    assert answer.status_code == 200
    assert words in answer.text
    assert empty_client.get(json_of(path)).status_code == 200


def test_what_others_wrote_into_the_ledger_is_never_markup(empty: LocalStore, empty_client: TestClient) -> None:
    bad = "<script>alert(1)</script>`<img src=x>`"
    outputs = {bad: {"kind": "table", "name": bad, "digest": "d" * 64, "rows": 1, "columns": [[bad, "Int64"]]}}
    error = {"code": bad, "message": bad, "where": bad, "hint": bad, "trace": bad}
    empty.ledger.append(
        Draft(kind="run.started", run="run-1", actor=bad, payload={"project": bad}),
        Draft(kind="step.finished", run="run-1", step=bad, payload={"key": "k", "outputs": outputs}),
        Draft(kind="step.failed", run="run-1", step="b", payload={"key": "k", "error": error}),
        Draft(kind="run.finished", run="run-1", payload={"status": "failed", "reason": bad}),
    )
    for path in ("/", "/runs", "/runs/run-1", "/runs/run-1/step?step=b", "/tables", "/checks", f"/runs?q={bad}"):
        answer = empty_client.get(path)
        assert answer.status_code in (200, 404), path
        assert "<script>alert" not in answer.text
        assert "<img" not in answer.text


def test_step_and_table_whose_name_ends_in_json_are_pages(empty: LocalStore, empty_client: TestClient) -> None:
    empty.ledger.append(
        Draft(kind="run.started", run="run-1", payload={"project": "p"}),
        Draft(kind="step.finished", run="run-1", step="load.json", payload={"key": "k", "outputs": {"value": 1}}),
    )
    answer = empty_client.get("/runs/run-1/step?step=load.json")
    assert answer.headers["content-type"].startswith("text/html")
    assert empty_client.get("/runs/run-1/step.json?step=load.json").json()["name"] == "load.json"


def test_running_run_asks_for_its_own_part_until_it_has_ended(empty: LocalStore, empty_client: TestClient) -> None:
    empty.ledger.append(Draft(kind="run.started", run="run-1", payload={"project": "p"}))
    with empty.hold("run", who={"run": "run-1"}):
        for path in ("/runs/run-1", "/", "/runs"):
            part = next(
                attrs
                for _, attrs in Seen(empty_client.get(path).text).tags
                if "hx-trigger" in attrs and "every" in attrs["hx-trigger"]
            )
            fresh = empty_client.get(part["hx-get"])
            assert fresh.status_code == 200
            assert fresh.text.lstrip().startswith(f'<div id="{part["id"]}"')
            assert "<html" not in fresh.text
    empty.ledger.append(Draft(kind="run.finished", run="run-1", payload={"status": "succeeded"}))
    fresh = empty_client.get("/runs/run-1?part=live")
    assert "hx-trigger" not in fresh.text
    assert "Succeeded" in fresh.text


def test_error_of_ours_shows_nothing_of_its_inside(
    empty: LocalStore, empty_client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    # Two events that no runner writes: a run without a project.
    empty.ledger.append(Draft(kind="step.finished", run="run-1", step="s", payload={"key": "k", "outputs": [1]}))
    answer = empty_client.get("/")
    assert answer.status_code == 500
    mark = re.search(r"look for ([0-9a-f]{8})", answer.text)
    assert mark
    assert mark[1] in caplog.text
    assert "Traceback" not in answer.text
    assert "AttributeError" not in answer.text
    assert answer.headers["content-security-policy"]


def test_page_that_has_to_wait_for_the_ledger_says_so_and_comes_by_itself(
    empty: LocalStore, open_client: Callable[..., TestClient]
) -> None:
    import threading

    empty.ledger.append(*(Draft(kind="run.started", run=f"run-{i}", payload={"project": "p"}) for i in range(3)))
    go = threading.Event()
    events = empty.ledger.events

    def slow(**asked: Any) -> Any:
        go.wait(20)
        return events(**asked)

    empty.ledger.events = slow  # type: ignore[method-assign]
    with open_client(empty) as client:
        answer = client.get("/runs")
        assert answer.status_code == 503
        assert answer.headers["refresh"] == "1"
        assert "3 events are left" in answer.text
        assert client.get("/runs.json").json()["error"]["code"] == "ledger-reading"
        assert client.get("/static/app.css").status_code == 200
        go.set()
        for _ in range(20):
            answer = client.get("/runs")
            if answer.status_code == 200:
                break
        assert "run-2" in answer.text


def test_pages_write_nothing(client: TestClient, seeded: Any) -> None:
    before = seeded.store.ledger.head()
    for path in PAGES:
        client.get(path)
    assert seeded.store.ledger.head() == before
