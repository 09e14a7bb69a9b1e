"""A server says and records the same with both forms of the kernels, and whether or not it knows a head already."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from modelyard._kit.ids import ids_after
from modelyard.security.tokens import add_token
from modelyard.serving.http.connection import Connection
from modelyard.serving.http.heads import Heads
from modelyard.store.requests import newest
from tests.kernels import FORMS, made

from .conftest import mixed_bundle  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .echo import Unknowing, Wire  # noqa: TID252
from .inprocess import Endpoint  # noqa: TID252
from .test_guards_fuzz import COMBINATIONS, declared, draw  # noqa: TID252
from .test_guards_fuzz import made as profiled  # noqa: TID252

BODIES = 60
_ID = re.compile(r"req-[0-9a-z-]+")
ROW = {"age": 30, "income": 1000.0, "city": "paris"}


def bodies(rng: random.Random) -> list[bytes]:
    """Return what clients of many kinds send: rows that are right, unusual and wrong, alone and together."""
    found = []
    for _ in range(BODIES):
        drawn = [draw(rng) for _ in range(rng.choice([1, 1, 2, 5]))]
        if isinstance(drawn[0], bytes):
            found.append(drawn[0])
            continue
        rows = [one for one in drawn if not isinstance(one, bytes)]
        if rng.random() < 0.2:
            rows = [dict(reversed(row.items())) for row in rows]
        asked = rng.choice([{"rows": rows}, {"rows": rows}, rows[0]])
        text = json.dumps(asked, separators=rng.choice([None, (",", ":")]), ensure_ascii=rng.random() < 0.5)
        found.append((rng.choice(["", "", " ", " " * 70]) + text).encode())
    return found


def told(root: Path, form: str, guards: dict[str, Any], more: dict[str, Any], asked: list[bytes]) -> Any:
    """Return all that an endpoint says of requests and records of them, but ids and times."""
    root.mkdir()
    endpoint = made(form, lambda: Endpoint(root, profiled()[0], guards, declared=more))
    with endpoint:
        answers = [(status, _ID.sub("ID", json.dumps(body))) for status, body in endpoint.ask(*asked)]
    with closing(sqlite3.connect(endpoint.log.path)) as db:
        logged = [(list(one.inputs), list(one.outputs)) for one in newest(db)]
    return answers, dict(endpoint.models.refused), logged


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("more", [{}, {"requests": {"redact": ["age"]}}], ids=["whole", "redacted"])
def test_both_forms_say_and_record_the_same(tmp_path: Path, seed: int, more: dict[str, Any]) -> None:
    rng = random.Random(seed)  # noqa: S311 - to be had again
    guards, asked = declared(rng.choice(COMBINATIONS)), bodies(rng)
    one, other = [told(tmp_path / form, form, guards, more, asked) for form in FORMS]
    assert one == other
    assert len({status for status, _ in one[0]}) > 1
    assert one[2]


HEADERS = [
    b"",
    b"user-agent: some\r\n",
    b"accept: */*\r\ncontent-type: application/json\r\n",
    b"content-type: application/json; charset=utf-8\r\n",
    b"content-type: application/vnd.apache.arrow.stream\r\n",
    b"accept: application/vnd.apache.arrow.stream\r\n",
    b"accept: application/json, */*\r\n",
    b"accept-encoding: gzip\r\n",
    b"content-encoding: gzip\r\n",
    b"origin: https://page.example\r\n",
    b"x-load-test: 1\r\n",
    b"x-model-version: 123456\r\n",
    b"x-canary-key: one\r\n",
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
    b"inference-header-content-length: 5\r\n",
    b"x-forwarded-for: 10.1.1.1\r\ncookie: a=b\r\nforwarded: for=10.1.1.1\r\n",
    b"connection: Keep-Alive\r\n",
    b"connection: close\r\n",
]


async def sent(endpoint: Endpoint, request: bytes) -> list[bytes]:
    """Return what comes on one connection for a request that is sent three times."""
    wire, connection = Wire(), Connection(endpoint.app)
    connection.connection_made(wire)  # type: ignore[arg-type]
    found = []
    for _ in range(3):
        before = len(wire.sent)
        connection.data_received(request)
        for _ in range(2000):
            if len(wire.sent) > before or wire.closed:
                break
            await asyncio.sleep(0.001)
        found.append(wire.sent[before:])
    connection.connection_lost(None)
    return found


ASKED = {
    "/predict": {"rows": [ROW] * 40},
    "/v2/models/credit/infer": {
        "inputs": [
            {"name": name, "shape": [1], "datatype": kind, "data": [ROW[name]]}
            for name, kind in (("age", "FP64"), ("income", "FP64"), ("city", "BYTES"))
        ]
    },
}


@pytest.mark.parametrize("path", ASKED)
def test_a_known_head_asks_for_what_it_asked_for_before(tmp_path: Path, path: str) -> None:
    body = json.dumps(ASKED[path]).encode()
    token = add_token(tmp_path, "operator", "operator").encode()
    usual = 0
    with Endpoint(tmp_path, mixed_bundle(), None, declared={"access": {"cors": ["https://page.example"]}}) as endpoint:
        for headers in HEADERS:
            data = gzip.compress(body, mtime=0) if b"content-encoding" in headers else body
            request = b"POST %s HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n%scontent-length: %d\r\n\r\n%s" % (
                path.encode(),
                token,
                headers,
                len(data),
                data,
            )
            said = []
            for heads in (Heads(), Unknowing()):
                endpoint.app.heads = heads
                heads.until = float("inf")
                # The same ids, so that answers are as long.
                endpoint.app.ids = ids_after("req")
                said.append(asyncio.run(sent(endpoint, request)))
                usual += any(head.usual for head in heads.known.values()) and type(heads) is Heads
            assert said[0] == said[1], headers
            assert (
                said[0][0].startswith(b"HTTP/1.1 200 ")
                or b"arrow" in headers
                or b"x-" in headers
                or b"-length" in headers
            )
    assert usual == 4
