"""Who may do what on the pages, as one table: they can be read on this machine by their own names, and nothing else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from modelyard.web.app import create_app

if TYPE_CHECKING:
    from starlette.testclient import TestClient

# A row for each address: where it leads in the seeded project. An address without a row fails.
PAGES = {
    "/": "/",
    "/runs": "/runs",
    "/runs/{run}": "/runs/run-04best00000000",
    "/runs/{run}/step": "/runs/run-04best00000000/step?step=select",
    "/automation": "/automation",
    "/automation/{fire}": None,
    "/tables": "/tables",
    "/tables/{table}/{digest}": "/tables/contract.applicants.accepted/latest",
    "/models": "/models",
    "/models/{model}": None,
    "/checks": "/checks",
    "/cards/{run}": "/cards/latest",
    "/monitoring": "/monitoring",
    "/cost": "/cost",
    "/about": "/about",
}
FILES = {"/cards/{run}/file": "/cards/latest/file", "/static": "/static/app.css"}
# Nobody logs in here, so nothing that a caller says of itself opens anything or shuts it.
CALLERS = ("", "Bearer yard_00000000_no", "Basic YTpi", "Bearer é")
# Method -> what is answered where there is a page, and where there is none.
METHODS = {
    "GET": (200, 404),
    "HEAD": (200, 404),
    "POST": (405, 405),
    "PUT": (405, 405),
    "PATCH": (405, 405),
    "DELETE": (405, 405),
    "OPTIONS": (405, 405),
    "TRACE": (405, 405),
    "PROPFIND": (405, 405),
}
NOWHERE = (
    "/run", "/runs/no-such-run", "/automation/no-such-fire", "/models/no-such-model", "/static/../app.py",
    "/%2e%2e/etc/passwd", "/openapi.json", "/docs", "/metrics", "/predict",
)  # fmt: skip
INSIDE = re.compile(
    rb"Traceback|site-packages|/usr/|/home/|/tmp/|starlette|uvicorn|jinja|msgspec|python|polars|\d+\.\d+\.\d+",
    re.IGNORECASE,
)


def json_of(path: str) -> str:
    path, _, query = path.partition("?")
    return ("/overview.json" if path == "/" else f"{path}.json") + (f"?{query}" if query else "")


def routes(app: Any) -> set[str]:
    while not hasattr(app, "routes"):
        app = app._app
    return {route.path for route in app.routes}


def test_every_address_has_a_row_in_the_table(seeded: Any) -> None:
    declared = {*PAGES, *(json_of(path) for path in PAGES), *FILES}
    assert routes(create_app(seeded.store)) == declared


def asked(client: TestClient, method: str, path: str, given: str, host: str = "127.0.0.1:8500") -> int:
    headers = {"host": host.encode(), **({"authorization": given.encode()} if given else {})}
    answer = client.request(method, path, headers=headers)
    assert "server" not in answer.headers
    assert answer.headers["content-security-policy"]
    if answer.status_code >= 400:
        assert not INSIDE.search(answer.content), answer.text
    return answer.status_code


@pytest.mark.parametrize("given", CALLERS)
def test_every_address_and_method_answers_as_the_table_says(client: TestClient, given: str) -> None:
    there = [path for path in (*PAGES.values(), *FILES.values()) if path is not None]
    there += [json_of(path) for path in PAGES.values() if path is not None]
    wrong = []
    for method, (found, missing) in METHODS.items():
        for path, status in (*((path, found) for path in there), *((path, missing) for path in NOWHERE)):
            if given and status == 200 and path not in ("/", "/runs.json"):
                # Pages take a while to make, and two of them show whether who asks makes a difference.
                continue
            if (got := asked(client, method, path, given)) != status:
                wrong.append((method, path, got, status))
    assert not wrong


@pytest.mark.parametrize("method", METHODS)
def test_strange_name_is_told_of_no_address(client: TestClient, method: str) -> None:
    for path in ("/", "/runs.json", "/static/app.css", "/nowhere"):
        assert asked(client, method, path, "", "evil.example") == 421
