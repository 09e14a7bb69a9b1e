"""What a rate of requests did to a server."""

from __future__ import annotations

from array import array
from typing import Any

import msgspec

__all__ = ["Measured", "quantiles"]

# The slowest of a hundred wait for a connection, and what is sent takes hardly longer than when little is asked.
_WAITING, _LONGER = 0.01, 1.5

_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One step: requests at one rate for some seconds.

    Attributes:
        rate: Requests a second that were due.
        seconds: How long.
        sent: Requests that were due in this time.
        answered: Requests answered with 200.
        errors: What became of the others: status, `timeout` or `connection` -> how many.
        p50: Seconds from the moment at which a request was due to its answer, for half of the 200s; none without any.
        p90: The same for 90 of 100.
        p99: The same for 99 of 100.
        p999: The same for 999 of 1,000.
        slowest: The same for all.
        served: Seconds from sending a request to its answer, for half of the 200s; none without any.
        waited: Requests that were due while every connection that may be open was busy.
        cpu_us: Microseconds of CPU that the server took for each request; none where its processes are not known.
        client: Share of a core that the client took.
        connections: Connections that were open.
    """

    rate: float
    seconds: float
    sent: int
    answered: int
    errors: dict[str, int]
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    p999: float | None = None
    slowest: float | None = None
    served: float | None = None
    waited: int = 0
    cpu_us: float | None = None
    client: float = 0.0
    connections: int = 0

    def holds(self, p99: float, errors: float, *, roughly: bool = False) -> bool:
        """Say whether 99 of 100 answers came within `p99` seconds, and at most a share of `errors` was none.

        Args:
            p99: Seconds.
            errors: Share of the requests.
            roughly: 90 of 100 are enough: of few answers nobody knows the slowest of a hundred.
        """
        unanswered, slow = self.sent - self.answered, self.p90 if roughly else self.p99
        return slow is not None and slow <= p99 and unanswered <= errors * self.sent

    def short_of_connections(self, usual: float) -> bool:
        """Say whether requests waited for a connection and not for the server.

        A server that cannot answer more keeps every connection busy as well, but then what is sent takes longer: it
        waits in the server for what was sent on the other connections.

        Args:
            usual: `served` where little is asked.
        """
        return self.served is not None and self.waited > _WAITING * self.sent and self.served <= _LONGER * usual


def quantiles(seconds: array[float]) -> dict[str, Any]:
    """Return the quantiles of latencies by the names of `Measured`; each is a latency that was seen."""
    import numpy as np

    if not seconds:
        return {}
    ordered = np.sort(np.frombuffer(seconds))
    last = len(ordered) - 1
    found = {name: float(ordered[min(int(share * len(ordered)), last)]) for name, share in _SHARES.items()}
    return {**found, "slowest": float(ordered[-1])}
