"""The calculus of time: recurrences, windows of the week and price tables, in any zone and over clock changes.

Pure: nothing here reads a file or asks for the time. A moment is a number, seconds since 1970 UTC; what a clock on the
wall shows is a `datetime` without a zone. `spec` checks with these what the file says, `automation` lives by them.
"""

from __future__ import annotations

from modelyard._kit.times.cron import Cron, cron
from modelyard._kit.times.dates import Dates, dates
from modelyard._kit.times.moments import clock_of, deadline, iso, length, moment, said
from modelyard._kit.times.rates import Rates, rates
from modelyard._kit.times.recurrence import Recurrence, recurrence
from modelyard._kit.times.spans import Span
from modelyard._kit.times.windows import Windows, windows
from modelyard._kit.times.wrong import Never, Wrong
from modelyard._kit.times.zones import Zone, zone

__all__ = [
    "Cron",
    "Dates",
    "Never",
    "Rates",
    "Recurrence",
    "Span",
    "Windows",
    "Wrong",
    "Zone",
    "clock_of",
    "cron",
    "dates",
    "deadline",
    "iso",
    "length",
    "moment",
    "rates",
    "recurrence",
    "said",
    "windows",
    "zone",
]
