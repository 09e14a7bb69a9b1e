"""Break a server of one's own on purpose, while it is asked all the time, and measure what its callers notice.

`bench` is the server and its ledger, `traffic` asks it and checks each answer, `faults` and `overload` break it one way
after the other, `judging` makes checks of what was measured and writes them down, `drill` does all of it.
"""

from __future__ import annotations

from modelyard.automation.drill.bench import Order
from modelyard.automation.drill.drill import NAMES, drill
from modelyard.automation.drill.judging import Drilled, record

__all__ = ["NAMES", "Drilled", "Order", "drill", "record"]
