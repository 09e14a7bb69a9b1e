"""Automation: every trigger and why it did or did not start, what waits, the daemons, the fires and the alerts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from modelyard._kit.errors import Problem
from modelyard.records import FireState
from modelyard.web.answer import answer
from modelyard.web.pages.fires import FireRow, fire_row
from modelyard.web.pages.notices import AlertRow, alert_row
from modelyard.web.pages.triggers import DaemonRow, TriggerRow, board_of, daemon_rows
from modelyard.web.query import Query
from modelyard.web.reader import Reader

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["AutomationPage", "load", "view"]

STATES: tuple[str, ...] = get_args(FireState)
_FIRES, _QUEUE, _ALERTS = 50, 20, 12


@dataclass(frozen=True, slots=True)
class AutomationPage:
    """What runs by itself.

    Attributes:
        title: Title of the page.
        triggers: The board: every trigger, in the order of the declaration.
        problem: Why the declaration could not be read, so that only the ledger speaks; none: it could.
        daemons: The daemons that began and did not end, newest first.
        next: The trigger that is due next; none where no time is known.
        run: Id of the run under way; empty: none.
        waiting: How many fires wait.
        queue: The first 20 of them, in their order.
        fires: The newest 50 fires that fit.
        more: Whether there are older ones.
        trigger: The trigger asked for; empty for all.
        state: The state asked for; empty for all.
        states: Every state there is.
        alerts: Alerts that wait, those that failed, and the newest that were sent.
        alerts_waiting: How many alerts wait.
        alerts_failed: How many could not be handed over.
        saved: What off-peak starts saved among the fires shown that have started, by unit.
        live: Whether something is under way.
    """

    title: str
    triggers: tuple[TriggerRow, ...]
    problem: Problem | None
    daemons: tuple[DaemonRow, ...]
    next: TriggerRow | None
    run: str
    waiting: int
    queue: tuple[FireRow, ...]
    fires: tuple[FireRow, ...]
    more: bool
    trigger: str
    state: str
    states: tuple[str, ...]
    alerts: tuple[AlertRow, ...]
    alerts_waiting: int
    alerts_failed: int
    saved: dict[str, float]
    live: bool


def load(store: Reader, query: Query) -> AutomationPage:
    """Read what runs by itself.

    Raises:
        UserError: The state asked for is none.
    """
    state, trigger = query.choice("state", STATES), query.text("trigger")
    found = board_of(store)
    machines = daemon_rows(store)
    holds = {fire: why for machine in machines for fire, why in machine.holds.items()}
    waiting = store.ledger.fires(states=("queued",))
    states = [one for one in get_args(FireState) if one == state]
    fires = store.ledger.fires(trigger=trigger, states=states, newest=True, limit=_FIRES + 1)
    shown = tuple(fire_row(fire, holds) for fire in fires[:_FIRES])
    unsent = store.ledger.alerts(states=("waiting",))
    failed = store.ledger.alerts(states=("failed",), newest=True)
    sent = store.ledger.alerts(states=("sent",), newest=True, limit=_ALERTS)
    alerts = [*unsent[:_ALERTS], *failed[:_ALERTS], *sent]
    saved: dict[str, float] = {}
    for fire in shown:
        if fire.saving and fire.saving.saved and fire.state not in ("dropped", "queued"):
            saved[fire.saving.unit] = saved.get(fire.saving.unit, 0.0) + fire.saving.saved
    coming = sorted((row for row in found.rows if row.next and not row.paused), key=lambda row: row.next)
    run = (store.store.holder("run") or {}).get("run", "")
    return AutomationPage(
        title="Automation",
        triggers=found.rows,
        problem=found.problem,
        daemons=machines,
        next=coming[0] if coming else None,
        run=str(run),
        waiting=len(waiting),
        queue=tuple(fire_row(fire, holds) for fire in waiting[:_QUEUE]),
        fires=shown,
        more=len(fires) > _FIRES,
        trigger=trigger,
        state=state,
        states=STATES,
        alerts=tuple(alert_row(alert) for alert in alerts),
        alerts_waiting=len(unsent),
        alerts_failed=len(failed),
        saved=saved,
        live=bool(run or waiting or any(one.status != "lost" for one in machines)),
    )


async def view(request: Request) -> Response:
    """Answer `/automation`."""
    return await answer(request, load, "automation.html")
