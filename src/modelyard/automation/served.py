"""What callers of a project meet: where each alias points, since when, and when somebody asked last."""

from __future__ import annotations

from pathlib import Path

import msgspec

from modelyard._kit.errors import ModelyardError
from modelyard._kit.places import log_path
from modelyard.monitoring.window import reading
from modelyard.records import Alias, Deployment, read_value
from modelyard.store import Store

__all__ = ["Served", "served"]


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """Where an alias points now.

    Attributes:
        endpoint: Name of the endpoint.
        alias: `champion`, or `challenger` while one is tried.
        family: Family of the model.
        model: Digest of the model.
        since: When it was pointed there, seconds since 1970 UTC.
        reason: Why.
        asked: When the endpoint answered last, by the log in this folder; 0: never, or its log is elsewhere.
    """

    endpoint: str
    alias: Alias
    family: str
    model: str
    since: float
    reason: str = ""
    asked: float = 0.0


def served(store: Store) -> list[Served]:
    """Return where each alias points, the champion of an endpoint first; a challenger only if it is another model."""
    now: dict[tuple[str, str], tuple[Deployment, float]] = {}
    for event in store.ledger.events(kinds=("alias.moved",)):
        deployment: Deployment = read_value(event.payload["deployment"])
        now[deployment.endpoint, deployment.alias] = deployment, event.time
    champions = {endpoint: to.model.digest for (endpoint, alias), (to, _) in now.items() if alias == "champion"}
    return [
        Served(
            endpoint=to.endpoint,
            alias=to.alias,
            family=to.model.family,
            model=to.model.digest,
            since=since,
            reason=to.reason,
            asked=_asked(log_path(store.root, to.endpoint)),
        )
        for (endpoint, alias), (to, since) in sorted(now.items(), key=lambda one: (one[0][0], one[0][1] != "champion"))
        if alias == "champion" or champions.get(endpoint) != to.model.digest
    ]


def _asked(log: Path) -> float:
    try:
        with reading(log) as db:
            row = db.execute("SELECT last FROM blocks ORDER BY seq DESC LIMIT 1").fetchone()
    except ModelyardError:
        # A log that is not there or cannot be read is somebody else's news.
        return 0.0
    return float(row[0]) if row else 0.0
