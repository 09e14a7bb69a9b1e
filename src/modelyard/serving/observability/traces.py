"""A span of OpenTelemetry for a request: who called whom, for how long, and what came of it; never a value of a row.

An answer only appends to a bounded list; once a second a thread makes spans of it and sends them as OTLP over HTTP. A
caller's `traceparent` (https://www.w3.org/TR/trace-context/) is continued, and its decision whether the trace is kept
holds; of other requests a share is. The libraries are loaded by that thread, when there is a first span to send.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from modelyard._kit.digest import short
from modelyard._kit.errors import MissingExtra
from modelyard.serving.observability.accesslog import AccessLog
from modelyard.serving.told import say

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from modelyard.serving.http.exchange import Exchange

__all__ = ["Traces", "parent_of"]

_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1
# Spans that wait; when the collector does not keep up the oldest are left out, and counted.
_WAITING = 20_000
_SECONDS = 5.0


class _Taken(NamedTuple):
    """A request as it is kept until its span is made: parent as (trace, span), times in nanoseconds."""

    parent: tuple[int, int] | None
    name: str
    began: int
    ended: int
    status: int
    attributes: dict[str, str | int | float]


def parent_of(given: bytes) -> tuple[int, int, bool] | None:
    """Return trace, span and whether the trace is kept of a `traceparent`; none if it is not one.

    >>> parent_of(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")[2]
    True
    >>> parent_of(b"00-00000000000000000000000000000000-b7ad6b7169203331-01")
    """
    found = _PARENT.fullmatch(given.strip())
    if found is None or found[1] == b"ff" or (found[1] == b"00" and found[5] is not None):
        return None
    trace, span = int(found[2], 16), int(found[3], 16)
    return (trace, span, bool(int(found[4], 16) & _SAMPLED)) if trace and span else None


class Traces(AccessLog):
    """Takes what was answered for the logs, as is declared, and for traces.

    Args:
        which: Requests that get a line in the logs.
        to: Address of the collector; spans go to `/v1/traces` there.
        sample: Share of the requests without a `traceparent` that is kept.
        endpoint: Name of what is served.
        trace: Id that ties the deployment to the run that made the model.

    Raises:
        MissingExtra: OpenTelemetry is not installed.
    """

    def __init__(
        self, which: Literal["off", "errors", "all"], *, to: str, sample: float, endpoint: str, trace: str = ""
    ) -> None:
        super().__init__(which, trace=trace)
        try:
            installed = find_spec("opentelemetry.exporter.otlp.proto.http") and find_spec("opentelemetry.sdk")
        except ModuleNotFoundError:
            installed = None
        if installed is None:
            raise MissingExtra("traces need OpenTelemetry", extra="otel")
        self._lines_of_all = self.all
        # Answered requests are wanted, too.
        self.all = True
        self._to = f"{to.rstrip('/')}/v1/traces"
        self._below = int(sample * (1 << 32))
        self._endpoint = endpoint
        self._spans: deque[_Taken] = deque(maxlen=_WAITING)
        self._sending = threading.Lock()
        self._exporter: Any = None
        self._trouble = False

    def add(
        self,
        exchange: Exchange,
        status: int,
        ms: float,
        code: str = "",
        *,
        rows: int = 0,
        version: str = "",
        held: bool = False,
    ) -> None:
        """Take one request; see `AccessLog.add`."""
        if code or self._lines_of_all:
            super().add(exchange, status, ms, code)
        given = exchange.headers.get(b"traceparent", b"")
        parent = parent_of(given) if given else None
        if parent is not None:
            if not parent[2]:
                return
        elif int.from_bytes(os.urandom(4), "big") >= self._below:
            return
        route, method = getattr(exchange.route, "path", ""), exchange.method.decode("latin-1")
        attributes: dict[str, str | int | float] = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "modelyard.endpoint": self._endpoint,
            "modelyard.request": exchange.id,
            "modelyard.ms": ms,
        }
        more: dict[str, str | int] = {
            "modelyard.version": short(version),
            "modelyard.rows": rows,
            "modelyard.refused": code,
        }
        attributes.update({key: value for key, value in more.items() if value})
        if held:
            attributes["modelyard.guard"] = "held"
        ended = time.time_ns()
        above = None if parent is None else parent[:2]
        self._spans.append(_Taken(above, f"{method} {route}", ended - int(ms * 1e6), ended, status, attributes))

    def flush(self) -> None:
        """Write what waits for the logs, and send what waits for the collector."""
        super().flush()
        # One that takes long is not joined by the next; what waits meanwhile is bounded.
        if self._spans and self._sending.acquire(blocking=False):
            try:
                self._send([self._spans.popleft() for _ in range(len(self._spans))])
            finally:
                self._sending.release()

    def _send(self, taken: list[_Taken]) -> None:
        import logging

        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import SpanExportResult

        if self._exporter is None:
            # What it says of a collector that is away, we say once.
            logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
            self._exporter = OTLPSpanExporter(endpoint=self._to, timeout=_SECONDS)
        done = self._exporter.export(_made(taken, self._endpoint)) is SpanExportResult.SUCCESS
        if not done and not self._trouble:
            say(f"traces do not reach {self._to}; they are left out until they do", level="warning")
        self._trouble = not done

    def close(self) -> None:
        """Send the last spans, and let go of the collector."""
        self.flush()
        with self._sending:
            if self._exporter is not None:
                self._exporter.shutdown()


def _made(taken: list[_Taken], endpoint: str) -> list[ReadableSpan]:
    """Make spans of requests."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    resource = Resource.create({"service.name": f"modelyard-{endpoint}"})
    scope = InstrumentationScope("modelyard.serving")
    kept = TraceFlags(_SAMPLED)
    spans = []
    for one in taken:
        above = None if one.parent is None else SpanContext(*one.parent, is_remote=True, trace_flags=kept)
        trace = int.from_bytes(os.urandom(16), "big") if above is None else above.trace_id
        span = ReadableSpan(
            name=one.name,
            context=SpanContext(trace, int.from_bytes(os.urandom(8), "big"), is_remote=False, trace_flags=kept),
            parent=above,
            resource=resource,
            attributes=one.attributes,
            kind=SpanKind.SERVER,
            # A refusal is the caller's; only what the server could not do is an error of its own.
            status=Status(StatusCode.ERROR if one.status >= 500 else StatusCode.UNSET),
            start_time=one.began,
            end_time=one.ended,
            instrumentation_scope=scope,
        )
        spans.append(span)
    return spans
