"""About: the version, the ledger, and what others wrote that these pages carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import modelyard
from modelyard.web.answer import answer
from modelyard.web.assets import Vendored, vendored
from modelyard.web.query import Query
from modelyard.web.reader import Reader

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["AboutPage", "load", "view"]


@dataclass(frozen=True, slots=True)
class AboutPage:
    """What this is.

    Attributes:
        title: Title of the page.
        version: Version of Modelyard.
        events: Events in the ledger.
        head: Hash of the newest event; it stands for every event before it.
        verified: When `modelyard verify` last looked, in seconds since 1970 UTC; 0 if it never did.
        vendored: What others wrote, with version and licence.
    """

    title: str
    version: str
    events: int
    head: str
    verified: float
    vendored: tuple[Vendored, ...]


def load(store: Reader, query: Query) -> AboutPage:
    """Read the head of the ledger and the list of what is carried."""
    seq, head = store.ledger.head()
    verified = store.catalog().verified
    return AboutPage(
        title="About",
        version=modelyard.__version__,
        events=seq,
        head=head,
        verified=verified.time if verified else 0.0,
        vendored=vendored(),
    )


async def view(request: Request) -> Response:
    """Answer `/about`."""
    return await answer(request, load, "about.html")
