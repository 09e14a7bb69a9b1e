"""What callers of a project meet: where each alias points, since when, and when somebody asked last."""

from __future__ import annotations

from pathlib import Path

import msgspec

from modelyard._kit.errors import ModelyardError
from modelyard._kit.places import log_path
from modelyard.monitoring.window import reading
from modelyard.records import Alias, Deployment, Event, read_value
from modelyard.store import Store
from modelyard.store.requests import answered_last

__all__ = ["Served", "served"]

# Time to look for a model in a log: one that never answered would have the whole of it read.
_SECONDS = 0.2


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """Where an alias points now.

    Attributes:
        endpoint: Name of the endpoint.
        alias: `champion`, or `challenger` while one is tried.
        family: Family of the model.
        model: Digest of the model.
        since: When it was pointed there, seconds since 1970 UTC.
        reason: Why.
        asked: When this model answered last, by the log in this folder; 0: not since it was pointed there, or so
            many others have been since that it is not found in a moment, or the log is elsewhere.
        tried: False for a challenger that no server tries: there is no champion, or it moved after this one was named.
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
            return answered_last(db, model, since=since, seconds=_SECONDS)
    except ModelyardError:
        # A log that is not there or cannot be read is somebody else's news.
        return 0.0
