"""A server that speaks gRPC, and a real client for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from modelyard.security.roles import ROLES
from modelyard.security.tokens import add_token
from modelyard.serving.grpc.messages import message

from ..conftest import Server, lay, mixed_bundle, start  # noqa: TID252 - the suite is not installed

SERVICE = "inference.GRPCInferenceService"
Ask = Callable[..., Any]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The mixed model, with a port for gRPC."""
    project = tmp_path_factory.mktemp("calls")
    tokens = {role: add_token(project, f"the-{role}", role) for role in ROLES}
    made = start(project, lay(project, mixed_bundle()), "--grpc-port", "0", **tokens)
    yield made
    assert made.stop() == 0, made.said
    assert not [line for line in made.said if "Traceback" in line], made.said


@pytest.fixture
def ask(server: Server) -> Iterator[Ask]:
    """Call a method of the server by its name, with a message or its bytes."""
    with grpc.insecure_channel(server.grpc) as channel:
        yield asker(channel, server)


def asker(channel: grpc.Channel, server: Server) -> Ask:
    def call(name: str, request: Any = None, role: str = "analyst", **settings: Any) -> Any:
        method = channel.unary_unary(name if name.startswith("/") else f"/{SERVICE}/{name}")
        given = [*metadata(server, role), *settings.pop("more", ())]
        data = request if isinstance(request, bytes) else request.SerializeToString() if request is not None else b""
        answer, done = method.with_call(data, metadata=given, timeout=20, **settings)
        call.done = done  # type: ignore[attr-defined]
        kind = f"{name}Response"
        return message(kind.replace("Stream", "")).FromString(answer)

    return call


def metadata(server: Server, role: str = "analyst") -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {server.tokens[role]}")] if role else []


def row(age: float = 30, income: float = 1, city: str = "rome", *, rows: int = 1, raw: bool = True, **more: Any) -> Any:
    """Return a request for rows that are all alike."""
    request = message("ModelInferRequest")(model_name="credit", **more)
    numbers = np.array([[age, income]] * rows, np.float32)
    one = request.inputs.add(name="numeric", datatype="FP32", shape=[rows, 2])
    two = request.inputs.add(name="categorical", datatype="BYTES", shape=[rows, 1])
    text = city.encode()
    if raw:
        request.raw_input_contents.append(numbers.tobytes())
        request.raw_input_contents.append((len(text).to_bytes(4, "little") + text) * rows)
    else:
        one.contents.fp32_contents.extend(numbers.ravel().tolist())
        two.contents.bytes_contents.extend([text] * rows)
    return request


def said(error: grpc.RpcError) -> tuple[str, str]:
    """Return status and code of a refusal."""
    assert isinstance(error, grpc.Call)
    return error.code().name, (error.details() or "").partition("]")[0].removeprefix("[")
