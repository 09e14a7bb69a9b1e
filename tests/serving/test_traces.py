"""Spans of requests reach a collector that speaks OTLP, continue a caller's trace, and hold no value of a row."""

from __future__ import annotations

import gzip
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from modelyard._kit.errors import MissingExtra
from modelyard.serving.http.exchange import Exchange
from modelyard.serving.http.heads import Head
from modelyard.serving.observability import traces
from modelyard.serving.observability.traces import Traces, parent_of
from tests.serving.conftest import Server

ROW = {"age": 37, "city": "rome", "income": 1234.5}
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"cc-{TRACE}-{SPAN}-01-more", True),
        (f" 00-{TRACE}-{SPAN}-03 ", True),
    ],
)
def test_a_callers_trace_is_read(given: str, kept: bool) -> None:
    assert parent_of(given.encode()) == (int(TRACE, 16), int(SPAN, 16), kept)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
    ],
)
def test_what_is_no_trace_is_none(given: str) -> None:
    assert parent_of(given.encode()) is None


class Collector(http.server.ThreadingHTTPServer):
    """Takes OTLP over HTTP, and keeps the spans by name of their attributes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Takes)
        self.spans: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.came = threading.Condition()

    def wait(self, count: int) -> list[dict[str, Any]]:
        with self.came:
            assert self.came.wait_for(lambda: len(self.spans) >= count, 20), self.spans
            return list(self.spans)


class _Takes(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        assert self.path == "/v1/traces"
        request = ExportTraceServiceRequest.FromString(body)
        spans = [span for r in request.resource_spans for s in r.scope_spans for span in s.spans]
        with self.server.came:
            self.server.bodies.append(body)
            for span in spans:
                told = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}
                ids = {"trace": span.trace_id.hex(), "parent": span.parent_span_id.hex(), "span": span.span_id.hex()}
                ns = span.end_time_unix_nano - span.start_time_unix_nano
                self.server.spans.append({**told, **ids, "name": span.name, "ns": ns})
            self.server.came.notify_all()
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def policy(collector_url: str, sample: float) -> str:
    return json.dumps({"traces": {"to": collector_url, "sample": sample}})


@pytest.mark.slow
def test_a_span_a_request_comes_to_the_collector(fresh: Callable[..., Server], collector: Collector) -> None:
    url = f"http://127.0.0.1:{collector.server_address[1]}"
    server = fresh(None, "--policy", policy(url, 1.0))
    with server.client() as client:
        kept = {"traceparent": f"00-{TRACE}-{SPAN}-01", "x-request-id": "mine"}
        assert client.post("/predict", json={"rows": [ROW, ROW]}, headers=kept).status_code == 200
        left = {"traceparent": f"00-{TRACE}-{SPAN}-00", "x-request-id": "left-out"}
        assert client.post("/predict", json=ROW, headers=left).status_code == 200
        assert client.post("/predict", json={**ROW, "ag": 1}).status_code == 400
        assert client.get("/v2").status_code == 200
    spans = collector.wait(3)
    assert server.stop() == 0
    one = next(s for s in spans if s.get("modelyard.request") == "mine")
    assert (one["trace"], one["parent"], one["name"]) == (TRACE, SPAN, "POST /predict")
    assert (one["http.response.status_code"], one["modelyard.rows"], one["modelyard.endpoint"]) == (200, 2, "credit")
    assert len(one["modelyard.version"]) == 12
    assert one["ns"] == pytest.approx(one["modelyard.ms"] * 1e6, abs=2)
    refused = next(s for s in spans if s.get("modelyard.refused"))
    assert (refused["modelyard.refused"], refused["http.response.status_code"]) == ("column-unknown", 400)
    assert refused["trace"] != TRACE
    assert refused["parent"] == ""
    assert not [s for s in collector.spans if s.get("modelyard.request") == "left-out"]
    assert not [b for b in collector.bodies if b"1234.5" in b or b"rome" in b or server.tokens["analyst"].encode() in b]


@pytest.mark.slow
def test_the_last_spans_are_sent_at_the_end(fresh: Callable[..., Server], collector: Collector) -> None:
    server = fresh(None, "--policy", policy(f"http://127.0.0.1:{collector.server_address[1]}", 1.0))
    with server.client() as client:
        for _ in range(5):
            client.post("/predict", json=ROW)
    assert server.stop() == 0
    assert len([s for s in collector.wait(5) if s["name"] == "POST /predict"]) == 5


@pytest.mark.slow
def test_without_a_collector_everything_is_answered_and_said_once(fresh: Callable[..., Server]) -> None:
    server = fresh(None, "--policy", policy("http://127.0.0.1:9", 1.0))
    with server.client() as client:
        assert {client.post("/predict", json=ROW).status_code for _ in range(20)} == {200}
    assert server.stop() == 0
    assert len([line for line in server.said if "traces do not reach http://127.0.0.1:9" in line]) == 1
    assert not [line for line in server.said if "Traceback" in line]


def test_a_share_is_kept_and_a_callers_word_holds() -> None:
    taken = Traces("off", to="http://127.0.0.1:1", sample=0.2, endpoint="e")
    exchange = Exchange(None, Head())
    for _ in range(2000):
        taken.add(exchange, 200, 1.0)
    # Five standard deviations of a binomial of 2,000 and a fifth.
    assert abs(len(taken._spans) - 400) < 90
    before = len(taken._spans)
    exchange.head.headers = {b"traceparent": f"00-{TRACE}-{SPAN}-01".encode()}
    for _ in range(50):
        taken.add(exchange, 200, 1.0)
    assert len(taken._spans) == before + 50


def test_off_nothing_is_loaded() -> None:
    code = "import sys, modelyard.serving.server; print([m for m in sys.modules if m.startswith('opentelemetry')])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_without_the_library_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"modelyard\[otel\]"):
        Traces("off", to="http://127.0.0.1:1", sample=1.0, endpoint="e")
