"""The site: which address leads to which page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from modelyard._kit.clock import Clock, system_clock
from modelyard._kit.errors import ModelyardError
from modelyard.store.base import Store
from modelyard.web.answer import Site, on_crash, on_http_error, on_known_error
from modelyard.web.assets import FOLDER
from modelyard.web.guard import LOOPBACK, Guard
from modelyard.web.reader import Reader
from modelyard.web.templating import environment

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["create_app"]


def create_app(store: Store, *, hosts: Collection[str] = LOOPBACK, clock: Clock = system_clock) -> ASGIApp:
    """Return the site over a store.

    Args:
        store: The store; it is only read.
        hosts: Names by which the site may be asked; other `Host` headers are refused.
        clock: Source of the time, for ages.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException

    reader = Reader(store, clock=clock)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        # Begin to read a long ledger before the first page is asked for.
        reader.behind(0)
        yield

    app = Starlette(
        routes=_routes(),
        exception_handlers={
            ModelyardError: on_known_error,
            HTTPException: on_http_error,
            Exception: on_crash,
        },
        lifespan=lifespan,
    )
    name = getattr(store.root, "name", "") or "project"
    app.state.site = Site(reader, environment(), name)
    # Outside of everything else: an error page carries the headers too.
    return Guard(app, hosts)


def _routes() -> list[BaseRoute]:
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    from modelyard.web.pages import (
        about,
        automation,
        cards,
        checks,
        cost,
        fires,
        models,
        monitoring,
        overview,
        run,
        runs,
        step,
        tables,
    )

    pages: list[tuple[str, Any]] = [
        ("/runs", runs.view),
        ("/runs/{run}/step", step.view),
        ("/runs/{run}", run.view),
        ("/automation", automation.view),
        ("/automation/{fire}", fires.view),
        ("/tables", tables.view),
        ("/tables/{table}/{digest}", tables.view_version),
        ("/models", models.view),
        ("/models/{model}", models.view_model),
        ("/checks", checks.view),
        ("/cards/{run}", cards.view),
        ("/monitoring", monitoring.view),
        ("/cost", cost.view),
        ("/about", about.view),
    ]
    routes: list[BaseRoute] = [Route("/", overview.view), Route("/overview.json", overview.view)]
    for path, view in pages:
        # The JSON of a page stands before it: `{run}` would take `ID.json` for an id.
        routes += [Route(f"{path}.json", view), Route(path, view)]
    routes.append(Route("/cards/{run}/file", cards.view_file))
    routes.append(Mount("/static", _Kept(StaticFiles(directory=FOLDER))))
    return routes


class _Kept:
    """Static files that a browser may keep for ever when their address carries their digest."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kept = b"v=" in scope.get("query_string", b"")
        value = b"public, max-age=31536000, immutable" if kept else b"no-cache"

        async def with_age(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                message["headers"] = [*message["headers"], (b"cache-control", value)]
            await send(message)

        await self._app(scope, receive, with_age)
