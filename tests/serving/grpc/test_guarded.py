"""Guards hold over gRPC as they do over REST: a tensor has no place for an answer that is held back."""

from __future__ import annotations

import json
from collections.abc import Callable

import grpc
import pytest

from ..conftest import Server  # noqa: TID252 - the suite is not installed
from .conftest import asker, row  # noqa: TID252


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(("otherwise", "answered"), [("abstain", False), ("fallback", True)])
def test_what_is_held_back_is_refused_unless_there_is_a_fallback(
    fresh: Callable[..., Server], otherwise: str, answered: bool, raw: bool
) -> None:
    guards = {"confidence": {"at_least": 0.99, "else": otherwise}, "fallback": "yes"}
    server = fresh(None, "--grpc-port", "0", "--policy", json.dumps({"guards": guards}))
    with grpc.insecure_channel(server.grpc) as channel:
        ask = asker(channel, server)
        if answered:
            assert ask("ModelInfer", row(raw=raw)).model_name == "credit"
            return
        with pytest.raises(grpc.RpcError) as caught:
            ask("ModelInfer", row(raw=raw))
        assert "the answer is held back (`confidence`)" in caught.value.details()
        assert ask("ServerLive").live
