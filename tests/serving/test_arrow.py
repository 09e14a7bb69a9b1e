"""Arrow IPC streams on `POST /predict`: as good as JSON, refused like JSON, and no stream hurts the server."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from modelyard.serving.columns import Columns
from modelyard.serving.errors import HttpError
from modelyard.serving.protocols.arrow import parse
from modelyard.serving.protocols.arrow_frames import look
from tests.serving.conftest import MIXED, Server, mixed_answer

ARROW = "application/vnd.apache.arrow.stream"
ROWS = pl.DataFrame(
    {"city": ["rome", None, "paris", "rome"], "income": [5.5, 10.0, None, 4000.0], "age": [30, 40, 50, 60]}
)


def stream(*frames: pl.DataFrame, **settings: Any) -> bytes:
    """One stream of several batches."""
    out = io.BytesIO()
    whole = pl.concat(frames, rechunk=False)
    whole.write_ipc_stream(out, compat_level=pl.CompatLevel.oldest(), **settings)
    return out.getvalue()


def ask(served: Server, body: bytes, *, accept: str = ARROW) -> Any:
    with served.client() as client:
        return client.post("/predict", content=body, headers={"content-type": ARROW, "accept": accept})


def expected(rows: pl.DataFrame) -> list[float]:
    return [mixed_answer(row["age"], row["income"], row["city"]) for row in rows.to_dicts()]


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_columns_go_in_and_come_out(served: Server, compression: Any) -> None:
    answer = ask(served, stream(ROWS, ROWS[:2], compression=compression))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == ARROW
    assert answer.headers["x-request-id"]
    assert answer.headers["x-model-version"]
    got = pl.read_ipc_stream(io.BytesIO(answer.content))
    assert got.columns == ["prediction", "probability.no", "probability.yes"]
    truth = expected(pl.concat([ROWS, ROWS[:2]]))
    np.testing.assert_allclose(got["probability.yes"].to_numpy(), truth, atol=1e-6)
    assert got["prediction"].to_list() == ["yes" if p >= 0.5 else "no" for p in truth]


def test_either_side_may_be_json(served: Server) -> None:
    answer = ask(served, stream(ROWS), accept="*/*")
    assert [p["probabilities"]["yes"] for p in answer.json()["predictions"]] == pytest.approx(expected(ROWS), abs=1e-6)
    with served.client() as client:
        other = client.post("/predict", json={"rows": ROWS.to_dicts()}, headers={"accept": ARROW})
    got = pl.read_ipc_stream(io.BytesIO(other.content))
    np.testing.assert_allclose(got["probability.yes"].to_numpy(), expected(ROWS), atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.with_columns(pl.col("age").cast(pl.Int8)),
        lambda f: f.with_columns(pl.col("age").cast(pl.UInt64), pl.col("income").cast(pl.Int32)),
        lambda f: f.with_columns(pl.col("age", "income").cast(pl.Float32)),
        lambda f: f.with_columns(pl.col("city").cast(pl.Categorical)),
        lambda f: f.with_columns(pl.col("city").cast(pl.Enum(["paris", "rome"]))),
        lambda f: f.select("age", "income", "city"),
        lambda f: f.with_columns(pl.col("income").fill_null(float("nan"))),
    ],
)
def test_widths_and_dictionaries_mean_the_same(served: Server, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    answer = ask(served, stream(change(ROWS.with_columns(pl.col("income").round(0)))))
    assert answer.status_code == 200, answer.text
    got = pl.read_ipc_stream(io.BytesIO(answer.content))
    truth = expected(ROWS.with_columns(pl.col("income").round(0)))
    np.testing.assert_allclose(got["probability.yes"].to_numpy(), truth, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (lambda f: f.rename({"city": "citty"}), "column-unknown", "did you mean `city`"),
        (lambda f: f.drop("city"), "column-missing", "`city`"),
        (lambda f: f.with_columns(pl.col("age").cast(pl.String)), "column-type", "row 0: `age` is a number"),
        (lambda f: f.with_columns(pl.col("age").gt(0)), "column-type", "row 0: `age`"),
        (lambda f: f.with_columns(city=1), "column-type", "row 0: `city` is a text"),
        (lambda f: f.with_columns(city=pl.lit(["rome"])), "column-type", "`city` is neither"),
        (lambda f: f.with_columns(age=pl.date(2026, 1, 1)), "column-type", "`age` is neither"),
        (lambda f: f.with_columns(age=pl.lit(None, pl.Int64)), "value-missing", "`age` is missing"),
        (lambda f: f.with_columns(age=pl.lit(float("inf"))), "value-not-finite", "too large"),
        (lambda f: f[:0], "rows-empty", "no row"),
    ],
)
def test_it_is_refused_as_json_is(served: Server, change: Any, code: str, says: str) -> None:
    answer = ask(served, stream(change(ROWS)))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], says in error["message"]) == (code, True), error


def test_what_is_no_stream_is_refused(served: Server) -> None:
    whole = stream(ROWS)
    for wrong in (b"", b"{}", whole[:-40], whole[:100], b"ARROW1\0\0" + whole, whole[8:]):
        answer = ask(served, wrong)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "arrow-unreadable"), wrong[:40]


def test_a_bomb_is_refused_before_it_is_unpacked(served: Server) -> None:
    rows = pl.DataFrame({"city": ["x" * 30_000_000], "income": [1.0], "age": [30.0]})
    body = stream(rows, compression="zstd")
    assert len(body) < 20_000
    answer = ask(served, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body-too-large")


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.String])
def test_one_text_that_every_row_means_is_refused(dtype: Any) -> None:
    text = pl.Series("city", ["x" * 100_000, None], pl.String).cast(dtype).gather([0] * 5000)
    rows = pl.DataFrame({"income": [1.0], "age": [30.0]}).select(pl.all().repeat_by(5000).explode())
    out = io.BytesIO()
    # The newest form has texts as views, many of which may look at the same bytes.
    rows.with_columns(text).write_ipc_stream(out, compat_level=pl.CompatLevel.newest())
    assert len(out.getvalue()) < 2_000_000
    with pytest.raises(HttpError) as caught:
        parse(Columns(MIXED), out.getvalue(), 10_000_000)
    assert (caught.value.status, caught.value.code) == (413, "body-too-large")


def test_too_many_rows_are_refused(served: Server) -> None:
    body = stream(ROWS[:1].clear(200_000).with_columns(age=pl.lit(30, pl.Int8)), compression="zstd")
    answer = ask(served, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "rows-too-many")


def test_no_length_in_a_stream_is_believed() -> None:
    """Put every large number in every place of the headers: it is refused, or makes no difference."""
    columns = Columns(MIXED)
    whole = stream(ROWS.with_columns(pl.col("city").cast(pl.Categorical)), compression="zstd")
    refused = 0
    for at in range(0, min(len(whole), 2200), 4):
        for lie in (struct.pack("<i", -8), struct.pack("<i", 1 << 30), struct.pack("<q", 1 << 40)):
            refused += not _survives(columns, whole[:at] + lie + whole[at + len(lie) :])
    assert refused > 500


@pytest.mark.parametrize("seed", range(4))
def test_mutated_streams_are_answered_or_refused(seed: int) -> None:
    _mutate(seed, 250)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 110))
def test_many_mutated_streams_are_answered_or_refused(seed: int) -> None:
    _mutate(seed, 5000)


def _mutate(seed: int, times: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - what to change, no secret
    columns = Columns(MIXED)
    seeds = [
        stream(ROWS, ROWS[:2]),
        stream(ROWS, compression="zstd"),
        stream(ROWS, compression="lz4"),
        stream(ROWS.with_columns(pl.col("city").cast(pl.Categorical))),
        stream(ROWS.with_columns(pl.col("age").cast(pl.Int8), pl.col("city").cast(pl.Enum(["paris", "rome"])))),
    ]
    for _ in range(times):
        body = bytearray(chance.choice(seeds))
        for _ in range(chance.choice((1, 1, 2, 8))):
            at = chance.randrange(len(body))
            match chance.randrange(4):
                case 0:
                    body[at] = chance.randrange(256)
                case 1:
                    body[at] ^= 1 << chance.randrange(8)
                case 2:
                    body[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f"))
                case 3:
                    del body[at : at + chance.choice((1, 8, 64))]
            if not body:
                break
        _survives(columns, bytes(body))


def _survives(columns: Columns, body: bytes) -> bool:
    """Whether a stream is read; anything but rows or a refusal fails the test."""
    try:
        return parse(columns, body, 1_000_000).count > 0
    except HttpError:
        return False


def test_frames_say_names_and_rows() -> None:
    found = look(stream(ROWS, ROWS), 10_000)
    assert (found.names, found.rows) == (["city", "income", "age"], 8)
