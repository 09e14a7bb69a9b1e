"""A length is looked at before anything is read, and is a number that could be true."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from modelyard.automation.bodies import Unread, read_body


async def never() -> dict[str, Any]:
    raise AssertionError("nothing should have been read")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ((b"content-length", b"1001"), 413),
        ((b"content-length", b"9" * 5000), 413),
        ((b"content-length", b"+5"), 400),
        ((b"content-length", b""), 400),
        ((b"content-encoding", b"gzip"), 415),
    ],
)
def test_body_that_may_not_be_is_not_read(header: tuple[bytes, bytes], status: int) -> None:
    with pytest.raises(Unread) as caught:
        asyncio.run(read_body([header], never, 1000))
    assert caught.value.status == status
