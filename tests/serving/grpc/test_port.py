"""The second port: TLS, several processes, the ledger, the end, and nothing of it without `--grpc-port`."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from modelyard._kit.processes import family
from modelyard.records import Draft
from modelyard.serving.grpc.frames import Code, Kind, goaway
from modelyard.serving.grpc.messages import message

from ..authority import Authority  # noqa: TID252 - the suite is not installed, so there is no absolute name
from ..conftest import Server, lay, mixed_bundle  # noqa: TID252 - the same
from ..versions import ENDPOINT, Yard, times, until  # noqa: TID252 - the same
from .conftest import SERVICE, metadata, row, said  # noqa: TID252 - the same

Fresh = Callable[..., Server]
INFER, STREAM = f"/{SERVICE}/ModelInfer", f"/{SERVICE}/ModelStreamInfer"


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.store.close()


def number(value: float, name: str = ENDPOINT) -> bytes:
    request = message("ModelInferRequest")(model_name=name, raw_input_contents=[np.float32([value]).tobytes()])
    request.inputs.add(name="numeric", datatype="FP32", shape=[1, 1])
    data: bytes = request.SerializeToString()
    return data


def value(data: bytes) -> float:
    return float(np.frombuffer(message("ModelInferResponse").FromString(data).raw_output_contents[0], np.float32)[0])


def test_nothing_is_imported_without_it(tmp_path: Path) -> None:
    code = (
        "import sys, modelyard.serving.server, modelyard.serving.app\n"
        "assert not [m for m in sys.modules if m.startswith(('google.', 'hpack', 'modelyard.serving.grpc'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


def test_beside_tritons_messages() -> None:
    """A client in the same process has put the same names into protobuf's own pool."""
    from tritonclient.grpc import service_pb2

    theirs = service_pb2.ModelInferRequest(model_name="a", id="b")
    theirs.parameters["x"].string_param = "y"
    ours = message("ModelInferRequest").FromString(theirs.SerializeToString())
    assert (ours.model_name, ours.id, ours.parameters["x"].string_param) == ("a", "b", "y")


@pytest.mark.parametrize("name", ["ModelInferRequest", "ModelInferResponse", "InferTensorContents", "ModelStatistics"])
def test_fields_as_in_the_protocol(name: str) -> None:
    from tritonclient.grpc import service_pb2

    theirs = {f.name: (f.number, f.type) for f in getattr(service_pb2, name).DESCRIPTOR.fields}
    ours = {f.name: (f.number, f.type) for f in message(name).DESCRIPTOR.fields}
    assert ours.items() <= theirs.items()


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = [sys.executable, "-m", "modelyard.serving", "--bundle", str(lay(tmp_path, mixed_bundle()))]
        line += ["--project", str(tmp_path), "--port", "0", "--grpc-port", str(taken.getsockname()[1])]
        done = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "port-taken" in done.stderr
    assert "--grpc-port N" in done.stderr


def test_http1_is_sent_away(server: Server) -> None:
    host, _, port = server.grpc.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as sock:
        sock.sendall(b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n")
        data = b""
        while part := sock.recv(4096):
            data += part
    assert data.endswith(struct.pack(">HBBBIII", 0, 8, Kind.GOAWAY, 0, 0, 0, Code.PROTOCOL_ERROR))


def test_tls_and_certificates(tmp_path: Path, fresh: Fresh) -> None:
    ca = Authority(tmp_path, "ca")
    cert, key = ca.sign("server")
    names = {"CN=job,O=Own\\, Ltd": "analyst"}
    tls = ("--tls-cert", cert, "--tls-key", key, "--client-ca", str(ca.path))
    server = fresh(None, "--grpc-port", "0", *tls, "--policy", json.dumps({"access": {"certificates": names}}))
    options = [("grpc.ssl_target_name_override", "localhost")]

    def channel(name: str) -> grpc.Channel:
        parts = [Path(path).read_bytes() for path in ca.sign(name)] if name else [None, None]
        given = grpc.ssl_channel_credentials(ca.path.read_bytes(), parts[1], parts[0])
        return grpc.secure_channel(server.grpc, given, options)

    data = row().SerializeToString()
    with channel("job") as asking:
        for _ in range(3):
            assert asking.unary_unary(INFER)(data, timeout=20)
        # A token that is given decides alone.
        with pytest.raises(grpc.RpcError) as refused:
            asking.unary_unary(INFER)(data, metadata=[("authorization", "Bearer no")], timeout=20)
        assert said(refused.value)[0] == "UNAUTHENTICATED"
    with channel("nobody") as asking, pytest.raises(grpc.RpcError) as unknown:
        asking.unary_unary(INFER)(data, timeout=20)
    assert said(unknown.value)[0] == "UNAUTHENTICATED"
    with channel("") as asking, pytest.raises(grpc.RpcError) as bare:
        asking.unary_unary(INFER)(data, metadata=metadata(server), timeout=20)
    assert said(bare.value)[0] == "UNAVAILABLE"
    # Who does not ask for HTTP/2 by ALPN is not spoken to in it.
    context = ssl.create_default_context(cafile=str(ca.path))
    context.load_cert_chain(*ca.sign("job"))
    host, _, port = server.grpc.rpartition(":")
    with (
        socket.create_connection((host, int(port)), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        sent = b""
        while part := sock.recv(4096):
            sent += part
    assert sent == goaway(0, Code.PROTOCOL_ERROR)


def test_processes_share_the_port(fresh: Fresh) -> None:
    server = fresh(None, "--grpc-port", "0", "--processes", "2")

    def processes() -> set[str]:
        ids = set()
        for _ in range(30):
            # Each of them has a connection of its own.
            with grpc.insecure_channel(server.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                data = channel.unary_unary(INFER)(row().SerializeToString(), metadata=metadata(server), timeout=20)
                ids.add(message("ModelInferResponse").FromString(data).id)
        assert len(ids) == 30
        # Each process puts its own prefix before the number of a request.
        return {one.rsplit("-", 1)[0] for one in ids}

    assert len(processes()) == 2
    # Who comes to one that does nothing is answered by the other.
    idle = family(server.process.pid)[0]
    os.kill(idle, signal.SIGSTOP)
    assert len(processes()) == 1
    os.kill(idle, signal.SIGCONT)
    assert server.stop() == 0


def test_swaps_canaries_and_the_switch(yard: Yard) -> None:
    first, second = yard.keep(times(2.0)), yard.keep(times(3.0))
    yard.point(first)
    server = yard.serve(first, "--grpc-port", "0", "--canary", "0.5")
    with grpc.insecure_channel(server.grpc) as channel:
        infer = channel.unary_unary(INFER)

        def ask(role: str = "analyst", **more: str) -> float:
            given = [*metadata(server, role), *((key.replace("_", "-"), one) for key, one in more.items())]
            return value(infer(number(2.0), metadata=given, timeout=20))

        assert ask() == 4.0
        with pytest.raises(grpc.RpcError, match="none answers requests") as caught:
            ask("operator", x_model="challenger")
        assert said(caught.value) == ("INVALID_ARGUMENT", "rollout-model")
        yard.point(second, "challenger")
        until(lambda: ask() == 6.0)
        assert ask("operator", x_model="challenger") == 6.0
        assert {ask("operator", x_model="champion") for _ in range(5)} == {4.0}
        with pytest.raises(grpc.RpcError, match="did you mean `challenger`") as caught:
            ask("operator", x_model="chalenger")
        assert said(caught.value) == ("INVALID_ARGUMENT", "rollout-model")
        with pytest.raises(grpc.RpcError, match="may not choose a version") as caught:
            ask("analyst", x_model="challenger")
        assert said(caught.value) == ("PERMISSION_DENIED", "role-denied")
        for key in ("ana", "bea", "eva"):
            assert len({ask(x_canary_key=key) for _ in range(5)}) == 1
        assert {ask() for _ in range(40)} == {4.0, 6.0}
        yard.point(second)
        until(lambda: {ask() for _ in range(10)} == {6.0})
        body = {"endpoint": ENDPOINT, "reason": "test"}
        yard.store.ledger.append(Draft(kind="endpoint.killed", actor="user:ana", payload=body))

        def off() -> Any:
            try:
                ask()
            except grpc.RpcError as error:
                return said(error)
            return None

        assert until(off) == ("UNAVAILABLE", "endpoint-killed")
        ready = channel.unary_unary(f"/{SERVICE}/ServerReady")(b"", timeout=20)
        assert not message("ServerReadyResponse").FromString(ready).ready
    assert server.stop() == 0


def test_sigterm_answers_what_is_under_way(fresh: Fresh) -> None:
    server = fresh(None, "--grpc-port", "0")
    with grpc.insecure_channel(server.grpc) as channel:
        infer, more = channel.unary_unary(INFER), threading.Event()
        data = row(rows=5000).SerializeToString()

        def messages() -> Iterator[bytes]:
            yield row().SerializeToString()
            more.wait(20)

        stream = channel.stream_stream(STREAM)(messages(), metadata=metadata(server), timeout=20)
        assert next(stream)
        infer(data, metadata=metadata(server), timeout=20)
        sent = [infer.future(data, metadata=metadata(server), timeout=20) for _ in range(20)]
        sent[0].result()
        server.process.terminate()
        # What was sent before the server said goodbye is answered; nobody is cut off in the middle.
        codes = {one.code().name for one in sent}
        assert codes <= {"OK", "UNAVAILABLE"}
        with pytest.raises(grpc.RpcError) as ended:
            list(stream)
        assert said(ended.value) == ("UNAVAILABLE", "not-ready")
        more.set()
    assert server.stop() == 0
