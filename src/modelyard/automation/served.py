"""What callers of a project meet: where each alias points, since when, and when somebody asked last."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import msgspec

from modelyard._kit.errors import ModelyardError
from modelyard._kit.places import log_path
from modelyard.monitoring.window import reading
from modelyard.records import Alias, Deployment, Event, read_value
from modelyard.store import Store
from modelyard.store.requests import newest

__all__ = ["Served", "served"]

# Requests of the log that are looked through for a model.
_NEWEST = 10_000


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """Where an alias points now.

    Attributes:
        endpoint: Name of the endpoint.
        alias: `champion`, or `challenger` while one is tried.
        family: Family of the model.
        model: Digest of the model.
        since: When it was pointed there, seconds since 1970 UTC.
        reason: Why.
        asked: When this model answered last, by the log in this folder; 0: not since it was pointed there, or not among
            the newest requests, or the log is elsewhere.
        tried: False for a challenger that was named before the champion moved: no server tries it.
    """

    endpoint: str
    alias: Alias
    family: str
    model: str
    since: float
    reason: str = ""
    asked: float = 0.0
    tried: bool = True


def served(store: Store) -> list[Served]:
    """Return where each alias points, the champion of an endpoint first; a challenger only if it is another model."""
    now: dict[tuple[str, str], tuple[Deployment, Event]] = {}
    for event in store.ledger.events(kinds=("alias.moved",)):
        deployment: Deployment = read_value(event.payload["deployment"])
        now[deployment.endpoint, deployment.alias] = deployment, event
    champions = {endpoint: move for (endpoint, alias), move in now.items() if alias == "champion"}
    shown = {
        (endpoint, alias): move
        for (endpoint, alias), move in now.items()
        if alias == "champion"
        or endpoint not in champions
        or champions[endpoint][0].model.digest != move[0].model.digest
    }
    return [
        Served(
            endpoint=to.endpoint,
            alias=to.alias,
            family=to.model.family,
            model=to.model.digest,
            since=event.time,
            reason=to.reason,
            asked=_asked(log_path(store.root, to.endpoint), to.model.digest, event.time),
            # As the server decides it: one named for another champion is not tried against this one.
            tried=alias == "champion" or (endpoint in champions and champions[endpoint][1].seq < event.seq),
        )
        for (endpoint, alias), (to, event) in sorted(
            shown.items(), key=lambda one: (one[0][0], one[0][1] != "champion")
        )
    ]


def _asked(log: Path, model: str, since: float) -> float:
    try:
        with reading(log) as db:
            return next((one.time for one in islice(newest(db, since=since), _NEWEST) if one.model == model), 0.0)
    except ModelyardError:
        # A log that is not there or cannot be read is somebody else's news.
        return 0.0
