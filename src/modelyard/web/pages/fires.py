"""Fires: the times at which triggers asked for a run, as rows and one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.errors import NotFound
from modelyard.pipeline.fired import joined_to
from modelyard.records import Fire, Item
from modelyard.security.redact import redact
from modelyard.web.answer import answer
from modelyard.web.pages.notices import AlertRow, alert_row
from modelyard.web.query import Query
from modelyard.web.reader import Reader
from modelyard.web.words import money

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["FirePage", "FireRow", "Saving", "fire_row", "load", "view"]

_ITEMS, _ALL_ITEMS = 3, 100
_LONGEST = 24_000
_ALERTS = 200


@dataclass(frozen=True, slots=True)
class Saving:
    """What a schedule chose off-peak.

    Attributes:
        why: Why this start, in words.
        takes: How long the run is expected to take, seconds.
        cost: What it costs then; none without prices.
        cost_now: What it would have cost at once; none without prices.
        saved: The difference; below nothing where a window made it dearer.
        unit: Of the three.
    """

    why: str
    takes: float
    cost: float | None
    cost_now: float | None
    saved: float | None
    unit: str

    @property
    def text(self) -> str:
        """The same in a few words; empty where nothing was saved."""
        if not self.saved or self.saved < 0:
            return ""
        of = f" of {money(self.cost_now)}" if self.cost_now else ""
        return f"saves {money(self.saved)} {self.unit}{of}"


@dataclass(frozen=True, slots=True)
class FireRow:
    """One fire in a list.

    Attributes:
        id: Its id.
        trigger: Name of the trigger.
        kind: Its kind.
        state: How it stands.
        due: When it was to be, seconds since 1970 UTC.
        queued: When it was written down.
        not_before: When it may start; 0: at once.
        actor: Who asked.
        run: Id of the newest run that it started.
        why: Why it did not start, waits, or ended as it did.
        items: What changed, the first few.
        more: How many more things changed.
        saving: What was chosen off-peak; none for any other fire.
    """

    id: str
    trigger: str
    kind: str
    state: str
    due: float
    queued: float
    not_before: float
    actor: str
    run: str
    why: str
    items: tuple[Item, ...]
    more: int
    saving: Saving | None


@dataclass(frozen=True, slots=True)
class FirePage:
    """One fire.

    Attributes:
        title: Title of the page.
        fire: The fire as a row.
        key: What makes it one and the same however often it is seen.
        trace: Id that ties it to its runs, log lines, alerts and requests.
        items: What changed, at most 100.
        payload: What came with it, and with those that joined it, as JSON without secrets, cut at 24 kB.
        cut: Whether it was cut.
        alerts: Messages that were sent of it or its runs, newest first.
        live: Whether it waits or its run is under way.
    """

    title: str
    fire: FireRow
    key: str
    trace: str
    items: tuple[Item, ...]
    payload: str
    cut: bool
    alerts: tuple[AlertRow, ...]
    live: bool


def fire_row(fire: Fire, holds: dict[str, str] | None = None) -> FireRow:
    """Return a fire as a row.

    Args:
        fire: The fire.
        holds: Fire that waits -> why its trigger does not let it start yet.
    """
    waiting = (holds or {}).get(fire.id, "") if fire.state == "queued" else ""
    return FireRow(
        id=fire.id,
        trigger=fire.trigger,
        kind=fire.kind,
        state=fire.state,
        due=fire.due,
        queued=fire.queued,
        not_before=fire.not_before,
        actor=fire.actor,
        run=fire.run,
        why=redact(waiting or fire.why),
        items=tuple(_item(item) for item in fire.items[:_ITEMS]),
        more=max(0, len(fire.items) - _ITEMS),
        saving=_saving(fire),
    )


def _item(item: Item) -> Item:
    # An address may hold a password.
    return msgspec.structs.replace(item, name=redact(item.name), version=redact(item.version))


def _saving(fire: Fire) -> Saving | None:
    """Return what a schedule wrote of its choice; what came from elsewhere under these names is nothing of ours."""
    body = fire.payload
    if fire.kind != "schedule" or not isinstance(body, dict) or "why" not in body:
        return None
    cost, cost_now, saved = (_real(body.get(name)) for name in ("cost", "cost_now", "saved"))
    return Saving(
        why=str(body["why"]),
        takes=_real(body.get("takes")) or 0.0,
        cost=cost,
        cost_now=cost_now,
        saved=saved,
        unit=str(body.get("unit", "")),
    )


def _real(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def load(store: Reader, query: Query) -> FirePage:
    """Read one fire.

    Raises:
        NotFound: There is none with this id.
    """
    name = query.text("fire")
    fire = store.ledger.fire(name)
    if fire is None:
        raise NotFound.of("fire", name, (one.id for one in store.ledger.fires(newest=True, limit=200)))
    more = joined_to(fire, store)
    body = [fire.payload, *more] if more else fire.payload
    text = "" if body is None else msgspec.json.format(msgspec.json.encode(body), indent=2).decode()
    alerts = store.ledger.alerts(newest=True, limit=_ALERTS) if fire.trace else []
    return FirePage(
        title=f"{fire.trigger} fired",
        fire=fire_row(fire),
        key=redact(fire.key),
        trace=fire.trace,
        items=tuple(_item(item) for item in fire.items[:_ALL_ITEMS]),
        payload=redact(text)[:_LONGEST],
        cut=len(text) > _LONGEST,
        alerts=tuple(alert_row(alert) for alert in alerts if alert.trace == fire.trace),
        live=fire.state in ("queued", "started"),
    )


async def view(request: Request) -> Response:
    """Answer `/automation/{fire}`."""
    return await answer(request, load, "fire.html")
