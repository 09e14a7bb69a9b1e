"""Every call that Triton's gRPC clients offer, blocking and asyncio: answered rightly, or refused as the guide says.

`CHECKS` names them all: a new one in a later version of the client fails here until somebody says which of the two it
is.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException

from ..conftest import Server, mixed_answer  # noqa: TID252 - the suite is not installed
from ..test_tritonclient import more  # noqa: TID252

ROWS = [(30.0 + at % 50, 500.0 + at, ("paris", "rome", "oslo")[at % 3]) for at in range(300)]
EXPECTED = [mixed_answer(*row) for row in ROWS]
OUTPUTS = ("probabilities", "label")
MODULES: dict[str, ModuleType] = {"grpc": tritonclient.grpc, "aio": tritonclient.grpc.aio}
# Numbers of 64 bits are texts in protobuf's JSON.
COUNTS = frozenset(("shape", "dims", "inference_count", "execution_count", "count", "ns"))


class Client:
    """One of the two clients, called in the same way: `client(method, ...)` with the token of a role."""

    def __init__(self, module: ModuleType, server: Server) -> None:
        self.module, self.server = module, server
        self.runner = asyncio.Runner()
        self.inner = self._finish(self._connect())
        self.version = self("get_model_metadata", "credit")["versions"][0]

    async def _connect(self) -> Any:
        return self.module.InferenceServerClient(self.server.grpc)

    def _finish(self, made: Any) -> Any:
        return self.runner.run(made) if inspect.isawaitable(made) else made

    def __call__(self, method: str, *given: Any, role: str = "operator", **named: Any) -> Any:
        call = getattr(self.inner, method)
        if "as_json" in inspect.signature(call).parameters:
            named["as_json"] = True
        return plain(self._finish(call(*given, headers=self.headers(role), **named)))

    def headers(self, role: str) -> dict[str, str] | None:
        return {"authorization": f"Bearer {self.server.tokens[role]}"} if role else None

    def close(self) -> None:
        self._finish(self.inner.close())
        self.runner.close()

    def inputs(self) -> list[Any]:
        made = []
        for name, array, datatype in (
            ("numeric", np.array([row[:2] for row in ROWS], np.float32), "FP32"),
            ("categorical", np.array([[row[2]] for row in ROWS], object), "BYTES"),
        ):
            made.append(self.module.InferInput(name, list(array.shape), datatype))
            made[-1].set_data_from_numpy(array)
        return made

    def refused(self, code: str, status: str, method: str, *given: Any, **named: Any) -> None:
        with pytest.raises(InferenceServerException, match=rf"\[StatusCode.{status}\] \[{code}\]"):
            self(method, *given, **named)


def plain(value: Any, name: str = "") -> Any:
    """Return protobuf's JSON with its counts as numbers."""
    if isinstance(value, dict):
        return {key: plain(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one, name) for one in value]
    return int(value) if name in COUNTS else value


def right(result: Any, *, only: tuple[str, ...] = OUTPUTS, id_: str | None = None) -> None:
    """Assert that a result holds the answers to `ROWS`, and of the outputs only those that were asked for."""
    assert [one.name for one in result.get_response().outputs] == [name for name in OUTPUTS if name in only]
    assert id_ is None or result.get_response().id == id_
    if "probabilities" in only:
        assert result.as_numpy("probabilities").shape == (len(ROWS), 2)
        assert result.as_numpy("probabilities")[:, 1] == pytest.approx(EXPECTED, abs=1e-6)
    if "label" in only:
        assert result.as_numpy("label").tolist() == [b"yes" if p >= 0.5 else b"no" for p in EXPECTED]


def health(client: Client) -> None:
    assert client("is_server_live", role="") is True
    assert client("is_server_ready", role="") is True


def model_ready(client: Client) -> None:
    for version in ("", client.version):
        assert client("is_model_ready", "credit", version, role="viewer") is True
    # As Triton does: no error, though there is no such model.
    assert client("is_model_ready", "credit", "0123456789ab") is False
    assert client("is_model_ready", "other") is False
    client.refused("token-missing", "UNAUTHENTICATED", "is_model_ready", "credit", role="")


def server_metadata(client: Client) -> None:
    metadata = client("get_server_metadata", role="viewer")
    assert (metadata["name"], metadata["version"]) == ("modelyard", "2")


def model_metadata(client: Client) -> None:
    metadata = client("get_model_metadata", "credit", role="viewer")
    assert metadata == {
        "name": "credit",
        "versions": [client.version],
        "platform": "onnx",
        "inputs": [
            {"name": "numeric", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "categorical", "datatype": "BYTES", "shape": [-1, 1]},
        ],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
        ],
    }
    assert client("get_model_metadata", "credit", client.version, role="viewer") == metadata
    client.refused("model-not-found", "NOT_FOUND", "get_model_metadata", "credit", "0123456789ab")
    client.refused("token-missing", "UNAUTHENTICATED", "get_model_metadata", "credit", role="")


def model_config(client: Client) -> None:
    config = client("get_model_config", "credit", role="viewer")["config"]
    assert client("get_model_config", "credit", client.version, role="viewer")["config"] == config
    assert (config["name"], config["platform"]) == ("credit", "onnx")
    assert config["input"] == [
        {"name": "numeric", "data_type": "TYPE_FP32", "dims": [2]},
        {"name": "categorical", "data_type": "TYPE_STRING", "dims": [1]},
    ]
    assert [one["name"] for one in config["output"]] == list(OUTPUTS)
    names = {key: json.loads(one["string_value"]) for key, one in config["parameters"].items()}
    assert names == {"numeric": ["age", "income"], "categorical": ["city"], "classes": ["no", "yes"]}
    client.refused("model-not-found", "NOT_FOUND", "get_model_config", "other")


def index(client: Client) -> None:
    expected = {"models": [{"name": "credit", "version": client.version, "state": "READY"}]}
    assert client("get_model_repository_index", role="viewer") == expected


def statistics(client: Client) -> None:
    def counted(*asked: str) -> tuple[int, int, int]:
        (found,) = client("get_inference_statistics", *asked)["model_stats"]
        assert (found["name"], found["version"]) == ("credit", client.version)
        success = found.get("inference_stats", {}).get("success", {})
        return found.get("inference_count", 0), success.get("count", 0), success.get("ns", 0)

    before = counted()
    client("infer", "credit", client.inputs())
    for asked in ((), ("credit",), ("credit", client.version)):
        rows, count, ns = counted(*asked)
        assert (rows - before[0], count - before[1]) == (len(ROWS), 1)
        assert ns > before[2]
    (old,) = client("get_inference_statistics", "credit")["model_stats"]
    client("infer", "credit", client.inputs())
    client.refused("tensor-missing", "INVALID_ARGUMENT", "infer", "credit", client.inputs()[:1])
    (new,) = client("get_inference_statistics", "credit")["model_stats"]
    more(old, new)
    client.refused("model-not-found", "NOT_FOUND", "get_inference_statistics", "credit", "0123456789ab")
    client.refused("role-denied", "PERMISSION_DENIED", "get_inference_statistics", role="analyst")


def loading(client: Client) -> None:
    assert client("load_model", "credit") is None
    client.refused("model-not-found", "NOT_FOUND", "load_model", "other")
    client.refused("not-supported", "UNIMPLEMENTED", "load_model", "credit", config="{}")
    client.refused("role-denied", "PERMISSION_DENIED", "load_model", "credit", role="analyst")


def unsupported(method: str, *calls: tuple[tuple[Any, ...], dict[str, Any]]) -> Callable[[Client], None]:
    """Return a check that a call is refused as one that this server does not have, and to a stranger as any other."""

    def check(client: Client) -> None:
        for given, named in calls:
            client.refused("not-supported", "UNIMPLEMENTED", method, *given, **named)
            client.refused("role-denied", "PERMISSION_DENIED", method, *given, **named, role="analyst")
            client.refused("token-missing", "UNAUTHENTICATED", method, *given, **named, role="")

    return check


def infer(client: Client) -> None:
    wanted = client.module.InferRequestedOutput
    asked = (None, OUTPUTS, ("label",), ("probabilities",))
    for outputs, coding in itertools.product(asked, (None, "gzip", "deflate")):
        result = client(
            "infer",
            "credit",
            client.inputs(),
            outputs=outputs and [wanted(name) for name in outputs],
            compression_algorithm=coding,
            role="analyst",
        )
        right(result, only=outputs or OUTPUTS)
    # What says how a request waits, or to which sequence it belongs, means nothing to a model without state.
    extra = {"sequence_id": 7, "sequence_start": True, "sequence_end": True, "priority": 1, "timeout": 1_000_000}
    extra |= {"request_id": "t-1", "parameters": {"a": 1}, "client_timeout": 20}
    right(client("infer", "credit", client.inputs(), client.version, **extra), id_="t-1")


def infer_refused(client: Client) -> None:
    best = [client.module.InferRequestedOutput("probabilities", class_count=1)]
    client.refused("not-supported", "UNIMPLEMENTED", "infer", "credit", client.inputs(), outputs=best)
    shared = client.module.InferInput("numeric", [1, 2], "FP32")
    shared.set_shared_memory("r", 8)
    client.refused("not-supported", "UNIMPLEMENTED", "infer", "credit", [shared])
    client.refused("tensor-missing", "INVALID_ARGUMENT", "infer", "credit", client.inputs()[:1])
    client.refused("model-not-found", "NOT_FOUND", "infer", "other", client.inputs())
    client.refused("role-denied", "PERMISSION_DENIED", "infer", "credit", client.inputs(), role="viewer")


def async_infer(client: Client) -> None:
    came: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def back(result: Any, error: Any) -> None:
        came.put((result, error))

    for at in range(8):
        client("async_infer", "credit", client.inputs(), back, request_id=f"a-{at}")
    found = [came.get(timeout=20) for _ in range(8)]
    assert [error for _, error in found] == [None] * 8
    assert {result.get_response().id for result, _ in found} == {f"a-{at}" for at in range(8)}
    for result, _ in found:
        right(result)
    client("async_infer", "credit", client.inputs()[:1], back)
    result, error = came.get(timeout=20)
    assert result is None
    assert "[tensor-missing]" in str(error)


def stream(client: Client) -> None:
    """Answers come in the order of the requests, and one that is refused leaves the stream open."""
    came: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.inner.start_stream(lambda result, error: came.put((result, error)), headers=client.headers("analyst"))
    for at in range(5):
        inputs = client.inputs()[: 1 if at == 2 else 2]
        client.inner.async_stream_infer("credit", inputs, request_id=f"s-{at}")
    found = [came.get(timeout=20) for _ in range(5)]
    client.inner.stop_stream()
    for at, (result, error) in enumerate(found):
        if at == 2:
            assert "[tensor-missing]" in str(error)
        else:
            assert error is None
            right(result, id_=f"s-{at}")


def stream_of_aio(client: Client) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for at in range(5):
            yield {"model_name": "credit", "inputs": client.inputs()[: 1 if at == 2 else 2], "request_id": f"s-{at}"}

    async def ask() -> list[tuple[Any, Any]]:
        return [one async for one in client.inner.stream_infer(requests(), headers=client.headers("analyst"))]

    for at, (result, error) in enumerate(client.runner.run(ask())):
        if at == 2:
            assert "[tensor-missing]" in str(error)
        else:
            assert error is None
            right(result, id_=f"s-{at}")


def plugins(client: Client) -> None:
    from tritonclient._plugin import InferenceServerClientPlugin

    class Bearer(InferenceServerClientPlugin):  # type: ignore[misc]
        def __call__(self, request: Any) -> None:
            request.headers = client.headers("viewer")

    plugin = Bearer()
    client.inner.register_plugin(plugin)
    assert client.inner.plugin() is plugin
    assert client("get_server_metadata", role="")["name"] == "modelyard"
    client.inner.unregister_plugin()
    client.refused("token-missing", "UNAUTHENTICATED", "get_server_metadata", role="")


def closing(client: Client) -> None:
    """Nobody else is harmed when a client leaves."""
    client._finish(client.inner.close())
    other = tritonclient.grpc.InferenceServerClient(client.server.grpc)
    assert other.is_server_ready()
    other.close()


def _memory(kind: str, *register: Any) -> dict[str, tuple[Callable[[Client], None], ...]]:
    anyone, one = ((), {}), (("r",), {})
    return {
        name: (unsupported(name, *calls),)
        for name, calls in (
            (f"get_{kind}_shared_memory_status", (anyone, one)),
            (f"unregister_{kind}_shared_memory", (anyone, one)),
            (f"register_{kind}_shared_memory", ((("r", *register), {}),)),
        )
    }


OFF = {"settings": {"trace_level": "OFF"}}
CHECKS: dict[str, tuple[Callable[[Client], None], ...]] = {
    **_memory("system", "/key", 8),
    **_memory("cuda", b"aGFuZGxl", 0, 8),
    "async_infer": (async_infer,),
    "async_stream_infer": (stream,),
    "close": (closing,),
    "get_inference_statistics": (statistics,),
    "get_log_settings": (unsupported("get_log_settings", ((), {})),),
    "get_model_config": (model_config,),
    "get_model_metadata": (model_metadata,),
    "get_model_repository_index": (index,),
    "get_server_metadata": (server_metadata,),
    "get_trace_settings": (unsupported("get_trace_settings", ((), {}), (("credit",), {})),),
    "infer": (infer, infer_refused),
    "is_model_ready": (model_ready,),
    "is_server_live": (health,),
    "is_server_ready": (health,),
    "load_model": (loading,),
    "plugin": (plugins,),
    "register_plugin": (plugins,),
    "start_stream": (stream,),
    "stop_stream": (stream,),
    "stream_infer": (stream_of_aio,),
    "unload_model": (unsupported("unload_model", (("credit",), {}), (("credit",), {"unload_dependents": True})),),
    "unregister_plugin": (plugins,),
    "update_log_settings": (unsupported("update_log_settings", (({"log_info": True},), {})),),
    "update_trace_settings": (unsupported("update_trace_settings", ((), OFF), (("credit",), OFF)),),
}
NOT_IN = {"grpc": {"stream_infer"}, "aio": {"async_infer", "async_stream_infer", "start_stream", "stop_stream"}}


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[[str], Client]]:
    made: list[Client] = []

    def connected(name: str) -> Client:
        made.append(Client(MODULES[name], server))
        return made[-1]

    yield connected
    for client in made:
        client.close()


@pytest.mark.parametrize("module", MODULES)
def test_each_call_of_the_clients_has_a_check(module: str) -> None:
    kind = MODULES[module].InferenceServerClient
    found = {name for name, _ in inspect.getmembers(kind, callable) if name[0] != "_"}
    assert found == set(CHECKS) - NOT_IN[module]


@pytest.mark.parametrize(
    ("module", "check"),
    [
        # A check of several calls runs once for each client.
        pytest.param(module, check, id=f"{module}-{name}")
        for module in MODULES
        for check, name in {check: name for name, of in CHECKS.items() for check in of}.items()
        if name not in NOT_IN[module]
    ],
)
def test_call(connect: Callable[[str], Client], module: str, check: Callable[[Client], None]) -> None:
    check(connect(module))
