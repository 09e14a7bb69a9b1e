"""Answer with a page: as HTML through its template, as JSON, or as the one block that a running page asks for again."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from modelyard._kit.errors import Busy, ModelyardError, NotFound, Problem
from modelyard.web.query import Query
from modelyard.web.reader import Reader

if TYPE_CHECKING:
    from jinja2 import Environment
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["ErrorPage", "Site", "answer", "on_crash", "on_http_error", "on_known_error"]

_log = logging.getLogger("modelyard.web")
# Sections of the site by their address, in the order of the menu; a misspelt address is compared with these.
SECTIONS = {
    "/": "Overview",
    "/runs": "Runs",
    "/automation": "Automation",
    "/tables": "Tables",
    "/models": "Models",
    "/checks": "Checks",
    "/cards/latest": "Card",
    "/monitoring": "Monitoring",
    "/cost": "Cost",
}
# Seconds that a page waits for the first reading of the ledger before it says so.
_WAIT = 1.0
P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Site:
    """What every answer needs.

    Attributes:
        store: The store, to be read.
        templates: The templates.
        name: Name of the project's folder, shown until a run gives the project's own name.
    """

    store: Reader
    templates: Environment
    name: str


@dataclass(frozen=True, slots=True)
class ErrorPage:
    """Why there is no page.

    Attributes:
        title: Title of the page.
        status: HTTP status.
        code: Code of the error.
        message: One sentence.
        hint: What to do.
    """

    title: str
    status: int
    code: str
    message: str
    hint: str


async def answer(request: Request, load: Callable[[Reader, Query], P], template: str) -> Response:
    """Read a page in a worker thread and answer with it.

    Args:
        request: What was asked.
        load: Reads the page.
        template: Its template; the block called `?part=NAME` alone is given when a page refreshes itself.
    """
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import HTMLResponse, Response

    site: Site = request.app.state.site
    query = Query({**request.query_params, **request.path_params})

    def made() -> bytes:
        left = site.store.behind(_WAIT)
        if left:
            raise Busy(
                "ledger-reading",
                f"the ledger is being read: {left:,} events are left",
                hint="this page opens by itself",
            )
        page = load(site.store, query)
        if request.url.path.endswith(".json"):
            return msgspec.json.encode(page)
        return _render(request, template, page).encode()

    body = await run_in_threadpool(made)
    headers = {"cache-control": "no-store"}
    if request.url.path.endswith(".json"):
        return Response(body, media_type="application/json", headers=headers)
    return HTMLResponse(body, headers=headers)


def _render(request: Request, template: str, page: Any) -> str:
    site: Site = request.app.state.site
    path = request.url.path
    newest = site.store.ledger.runs(limit=1)
    words = {
        "page": page,
        "nonce": request.state.nonce,
        "path": path,
        "json_href": _with_query("/overview.json" if path == "/" else f"{path}.json", request.url.query),
        "sections": SECTIONS,
        "project": newest[0].project if newest else site.name,
        "now": site.store.clock(),
    }
    found = site.templates.get_template(template)
    part = request.query_params.get("part", "")
    if part and part in found.blocks:
        return "".join(found.blocks[part](found.new_context(words)))
    return found.render(words)


def _with_query(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path


def _error(request: Request, status: int, problem: Problem) -> Response:
    from starlette.responses import HTMLResponse, Response

    titles = {400: "That cannot be shown", 404: "Not here", 503: "One moment"}
    page = ErrorPage(
        title=titles.get(status, "Something went wrong"),
        status=status,
        code=problem.code,
        message=problem.message,
        hint=problem.hint,
    )
    headers = {"cache-control": "no-store"}
    if status == 503:
        headers |= {"retry-after": "1", "refresh": "1"}
    if request.url.path.endswith(".json"):
        body = msgspec.json.encode({"error": page})
        return Response(body, status_code=status, media_type="application/json", headers=headers)
    return HTMLResponse(_render(request, "error.html", page), status_code=status, headers=headers)


async def on_known_error(request: Request, error: Exception) -> Response:
    """Answer an error that was raised on purpose with its message and hint."""
    assert isinstance(error, ModelyardError)  # noqa: S101 - registered for this class alone
    return _error(request, error.http_status, error.problem)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer an address that leads nowhere, with the near ones."""
    status = getattr(error, "status_code", 500)
    if status == 404:
        return _error(request, 404, NotFound.of("page", request.url.path, list(SECTIONS)).problem)
    return _error(request, status, Problem("page-refused", str(getattr(error, "detail", "this cannot be answered"))))


async def on_crash(request: Request, error: Exception) -> Response:
    """Answer an error of ours without its inside: that goes to the log, under the id that the page names."""
    mark = secrets.token_hex(4)
    # The server writes the trace itself, right after this line.
    _log.error("page %s failed [%s]: %s", request.url.path, mark, type(error).__name__)
    problem = Problem(
        "page-failed",
        "this page could not be made",
        hint=f"look for {mark} in the terminal where `modelyard ui` runs",
    )
    return _error(request, 500, problem)
