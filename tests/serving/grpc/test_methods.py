"""Every method of the table is called without a token and with each role: the matrix is as declared."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import grpc
import pytest

from modelyard.security.roles import MATRIX, ROLES
from modelyard.serving.grpc.messages import message
from modelyard.serving.grpc.methods import METHODS, Method
from modelyard.serving.protocols.repository import unsupported

from ..conftest import Server  # noqa: TID252 - the suite is not installed, so there is no absolute name
from ..versions import until  # noqa: TID252 - the same
from .conftest import SERVICE, metadata, row, said  # noqa: TID252 - the same

# A row for each method that there is, beside the table of the server, so that no rule changes unseen.
OPEN, READ, INFER, OPERATE = None, "read", "infer", "operate"
DECLARED = {
    "ServerLive": OPEN,
    "ServerReady": OPEN,
    "ServerMetadata": READ,
    "ModelReady": READ,
    "ModelMetadata": READ,
    "ModelConfig": READ,
    "RepositoryIndex": READ,
    "ModelInfer": INFER,
    "ModelStreamInfer": INFER,
    "RepositoryModelLoad": OPERATE,
    "RepositoryModelUnload": OPERATE,
    "ModelStatistics": OPERATE,
    "TraceSetting": OPERATE,
    "LogSettings": OPERATE,
    "SystemSharedMemoryStatus": OPERATE,
    "SystemSharedMemoryRegister": OPERATE,
    "SystemSharedMemoryUnregister": OPERATE,
    "CudaSharedMemoryStatus": OPERATE,
    "CudaSharedMemoryRegister": OPERATE,
    "CudaSharedMemoryUnregister": OPERATE,
}
# Who may, by role: that of every protocol, written down once more.
MAY = {
    READ: {"viewer", "analyst", "operator", "admin"},
    INFER: {"analyst", "operator", "admin"},
    OPERATE: {"operator", "admin"},
}


def name_of(method: Method) -> str:
    return method.path.rpartition("/")[2]


def outcome(server: Server, path: str, given: list[tuple[str, str]], channel: grpc.Channel | None = None) -> str:
    """Call a method with a request that it can answer; return the status."""
    if channel is None:
        with grpc.insecure_channel(server.grpc) as made:
            return outcome(server, path, given, made)
    name = path.rpartition("/")[2]
    fields = {"RepositoryModelLoad": {"model_name": "credit"}}
    fields |= {key: {"name": "credit"} for key in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics")}
    data = row().SerializeToString() if name.endswith("Infer") else b""
    if name in fields:
        data = message(f"{name}Request")(**fields[name]).SerializeToString()
    if name == "ModelStreamInfer":
        call = channel.stream_stream(path)(iter([data]), metadata=given, timeout=20)
        with contextlib.suppress(grpc.RpcError):
            list(call)
    else:
        call = channel.unary_unary(path).future(data, metadata=given, timeout=20)
    return str(call.code().name)


def test_the_table_is_whole() -> None:
    from tritonclient.grpc import service_pb2

    there = {one.name for one in service_pb2.DESCRIPTOR.services_by_name[SERVICE.rpartition(".")[2]].methods}
    assert {name_of(method) for method in METHODS} == there
    assert {name_of(method): method.action for method in METHODS} == DECLARED
    assert {action: set(roles) for action, roles in MATRIX.items()} == MAY


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_method_as_declared(server: Server, method: Method) -> None:
    action = DECLARED[name_of(method)]
    for header in ("", "Basic abc", "Bearer", "Bearer yard_00000000_no", "yard_00000000_no"):
        given = [("authorization", header)] if header else []
        assert outcome(server, method.path, given) == ("OK" if action is OPEN else "UNAUTHENTICATED"), header
    for role in ROLES:
        may = action is OPEN or role in MAY[action]
        # A server of one bundle could not load it again.
        lacks = method.handler is unsupported or name_of(method) == "RepositoryModelUnload"
        there = "UNIMPLEMENTED" if lacks else "OK"
        assert outcome(server, method.path, metadata(server, role)) == (there if may else "PERMISSION_DENIED"), role


@pytest.mark.parametrize(
    "path",
    [f"/{SERVICE}/Nothing", f"/{SERVICE}", "/inference.Other/ModelInfer", "/", "/grpc.health.v1.Health/Check"],
)
def test_what_is_not_there(server: Server, path: str) -> None:
    """A stranger is not told what there is."""
    assert outcome(server, path, []) == "UNAUTHENTICATED"
    assert outcome(server, path, metadata(server, "admin")) == "UNIMPLEMENTED"


def test_roles_are_narrowed_and_tokens_revoked(fresh: Callable[..., Server], tmp_path: Path) -> None:
    from modelyard.security.tokens import revoke_token

    server = fresh(None, "--grpc-port", "0", "--role", "operator", "--per-minute", "5")
    with grpc.insecure_channel(server.grpc) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        data = row().SerializeToString()
        with pytest.raises(grpc.RpcError) as denied:
            infer(data, metadata=metadata(server, "analyst"), timeout=20)
        assert said(denied.value) == ("PERMISSION_DENIED", "role-denied")
        for _ in range(5):
            infer(data, metadata=metadata(server, "operator"), timeout=20)
        with pytest.raises(grpc.RpcError) as often:
            infer(data, metadata=metadata(server, "operator"), timeout=20)
        assert said(often.value) == ("RESOURCE_EXHAUSTED", "rate-exceeded")
        assert "retry-after" in dict(often.value.trailing_metadata())
        # Of a stream each message counts.
        admin = metadata(server, "operator")
        parts = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter([data, data]), metadata=admin, timeout=20)
        errors = [message("ModelStreamInferResponse").FromString(one).error_message for one in parts]
        assert [one.partition("]")[0] for one in errors] == ["[rate-exceeded"] * 2
        live = channel.unary_unary(f"/{SERVICE}/ServerMetadata")
        live(b"", metadata=metadata(server, "viewer"), timeout=20)
        revoke_token(tmp_path, "viewer")
        path = f"/{SERVICE}/ServerMetadata"
        until(lambda: outcome(server, path, metadata(server, "viewer"), channel) == "UNAUTHENTICATED")


def test_a_stream_ends_once_its_token_is_revoked(fresh: Callable[..., Server], tmp_path: Path) -> None:
    from modelyard.security.tokens import revoke_token

    server, data, revoked = fresh(None, "--grpc-port", "0"), row().SerializeToString(), Event()

    def asked() -> Iterator[bytes]:
        yield data
        revoked.wait(20)
        for _ in range(200):
            yield data
            time.sleep(0.02)

    with grpc.insecure_channel(server.grpc) as channel:
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        answers = stream(asked(), metadata=metadata(server, "analyst"), timeout=20)
        assert not message("ModelStreamInferResponse").FromString(next(answers)).error_message
        revoke_token(tmp_path, "analyst")
        revoked.set()
        with pytest.raises(grpc.RpcError) as ended:
            list(answers)
        assert said(ended.value)[0] == "UNAUTHENTICATED"
