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


def told(
    root: Path,
    form: str,
    guards: dict[str, Any] | None,
    more: dict[str, Any],
    asked: list[bytes],
    path: str = "/predict",
) -> Any:
    """Return all that an endpoint says of requests and records of them, but ids and times."""
    root.mkdir()
    endpoint = made(form, lambda: Endpoint(root, profiled()[0], guards, declared=more))
    with endpoint:
        answers = [(status, _ID.sub("ID", json.dumps(body))) for status, body in endpoint.ask(*asked, path=path)]
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


WHOLE = ["30", "60", "18", "45"]
USUAL = [*WHOLE, "45.5", "18.0", "0.3e2", "33.333333333333336"]
UNUSUAL = [
    *("null", "-0", "-0.0", "0.1e-400", "1e309", "1e-320", "123456789012345678901234567890", "0.30000000000000004"),
    *("9007199254740993", "1E5", "true", '"30"', "[30]", "[]", "{}", "01", "+1", ".5", "1.", "NaN", "Infinity", ""),
]
PARTS = [
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"\\",
    b"\x00",
    b"\xff",
    b"9" * 30,
    b'"data":0,',
    b'"data":[1],',
]


def listed(rng: random.Random, values: list[str], width: int) -> str:
    """Return values as a list, row by row or not, with some space or none."""
    space = rng.choice(["", "", " ", "\n\t"])
    flat = f"{space},{space}".join
    if rng.random() < 0.5:
        return f"[{space}{flat(values)}{space}]"
    rows = [f"[{flat(values[at : at + width])}]" for at in range(0, len(values), width)]
    return f"[{space}{flat(rows)}{space}]"


def tensor(rng: random.Random, name: str, kind: str, rows: int, width: int) -> str:
    count = max(0, rows * width + (rng.choice([-1, 1]) if rng.random() < 0.03 else 0))
    if kind == "BYTES":
        values = [json.dumps(rng.choice(["paris", "rome", 'a"b', "ü"])) for _ in range(count)]
    else:
        wrong = rng.choice([0.0, 0.0, 0.0, 0.05])
        usual = WHOLE if "INT" in kind and rng.random() < 0.7 else USUAL
        values = [rng.choice(UNUSUAL if rng.random() < wrong else usual) for _ in range(count)]
    data = listed(rng, values, width)
    members = [f'"name":"{name}"', f'"shape":[{rows},{width}]', f'"datatype":"{kind}"', f'"data":{data}']
    if rng.random() < 0.1:
        members.append(
            rng.choice(['"parameters":{"data":[1]}', '"data":[30]', '"data":0', '"d\\u0061ta":0', '"x":"data"'])
        )
    if rng.random() < 0.3:
        rng.shuffle(members)
    return "{" + rng.choice([",", " , "]).join(members) + "}"


def tensors(rng: random.Random) -> list[bytes]:
    """Return requests of the open protocol of many kinds: right, unusual and damaged."""
    found = []
    for _ in range(3 * BODIES):
        rows = rng.choice([1, 1, 2, 40, 300])
        kind = rng.choice(["FP32", "FP32", "FP64", "FP64", "INT32", "INT64", "BOOL"])
        inputs = [tensor(rng, "numeric", kind, rows, 2), tensor(rng, "categorical", "BYTES", rows, 1)]
        if rng.random() < 0.3:
            inputs[:1] = [tensor(rng, name, kind, rows, 1) for name in ("age", "income")]
        members = [f'"inputs":[{",".join(inputs)}]']
        if rng.random() < 0.3:
            others = [
                '"id":"mine"',
                '"outputs":[{"name":"label","data":[1]}]',
                '"inputs":[]',
                '"parameters":{"data":[1,2]}',
            ]
            members.insert(rng.randrange(2), rng.choice(others))
        body = bytearray(("{" + ",".join(members) + "}").encode())
        if rng.random() < 0.2:
            where = rng.randrange(len(body))
            body[where : where + rng.randrange(3)] = rng.choice(PARTS)
        found.append(bytes(body))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_both_forms_say_and_record_the_same_of_tensors(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - to be had again
    guards, asked = declared(rng.choice(COMBINATIONS)) if seed % 2 else None, tensors(rng)
    path = f"/v2/models/{profiled()[0].version.name}/infer"
    one, other = [told(tmp_path / form, form, guards, {}, asked, path) for form in FORMS]
    assert one == other
    assert {200, 400} <= {status for status, _ in one[0]}
    assert len(one[2]) > 5


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
