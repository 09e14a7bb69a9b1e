"""Break a server one way after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from modelyard.automation.drill import faults
from modelyard.automation.drill.bench import Bench, Order, bench
from modelyard.automation.drill.faults import Found, NotTried
from modelyard.automation.drill.judging import Drilled, judged, last_of, not_tried
from modelyard.automation.drill.overload import spike
from modelyard.deploy.section import Deploy
from modelyard.records import CheckResult, Deployment
from modelyard.store.base import Store

__all__ = ["NAMES", "drill"]

_FAULTS: dict[str, Callable[[Bench], Awaitable[Found]]] = {
    "kill": faults.kill,
    "disk": faults.disk,
    "clock": faults.clock,
    "lock": faults.lock,
    "spike": spike,
    "restart": faults.restart,
}
# Names of the faults, in the order in which they are tried.
NAMES = tuple(_FAULTS)

# Is told of a fault before it is tried, without results, and after.
Tell = Callable[[str, Sequence[CheckResult]], None]


async def drill(
    order: Order,
    store: Store,
    deployment: Deployment,
    rows: Sequence[Mapping[str, Any]],
    *,
    declared: Deploy | None = None,
    tell: Tell = lambda name, results: None,
) -> Drilled:
    """Start a server of a deployment, break it, and say what its callers noticed.

    Whatever serves the deployment already is not touched, nor are its log and the ledger of the project.

    Args:
        order: How.
        store: Store that holds the bundle, and what was measured before.
        deployment: What is served.
        rows: Rows to send, in turns.
        declared: The section of the file.
        tell: Is told how far it is.

    Raises:
        ModelyardError: Nothing is answered (`drill-unanswered`), or the server does not start.
    """
    last, before = last_of(store, deployment.endpoint, order)
    model = deployment.model.digest
    results: list[CheckResult] = []
    async with bench(order, store, deployment, rows, declared) as broken:
        for name in order.only or NAMES:
            tell(name, ())
            try:
                made = judged(order, name, await _FAULTS[name](broken), last, model)
            except NotTried as why:
                made = [not_tried(order, name, str(why), model)]
            tell(name, made)
            results += made
    return Drilled(results, last, before)
