"""Every call that Triton's HTTP clients offer, blocking and asyncio, from the clients themselves.

A call is answered rightly, or refused as the guide says. `CHECKS` names them all: a new one in a later version of the
client fails here until somebody says which of the two it is.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import time
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from .conftest import Server, mixed_answer  # noqa: TID252 - the suite is not installed, so there is no absolute name

ROWS = [(30.0 + at % 50, 500.0 + at, ("paris", "rome", "oslo")[at % 3]) for at in range(300)]
EXPECTED = [mixed_answer(*row) for row in ROWS]
OUTPUTS = ("probabilities", "label")


def load(name: str) -> ModuleType:
    with warnings.catch_warnings():
        # gevent, under the client, warns about itself when it is imported.
        warnings.simplefilter("ignore")
        import tritonclient.http
        import tritonclient.http.aio

    return {"http": tritonclient.http, "aio": tritonclient.http.aio}[name]


class Client:
    """One of the two clients, called in the same way: `client(method, ...)` with the token of a role."""

    def __init__(self, module: ModuleType, server: Server) -> None:
        from tritonclient.utils import InferenceServerException

        self.module, self.server, self.error = module, server, InferenceServerException
        self.runner = asyncio.Runner()
        self.inner = self._finish(self._connect())
        self.version = self("get_model_metadata", "credit")["versions"][0]

    async def _connect(self) -> Any:
        return self.module.InferenceServerClient(url=self.server.url.removeprefix("http://"))

    def _finish(self, made: Any) -> Any:
        return self.runner.run(made) if inspect.isawaitable(made) else made

    def __call__(self, method: str, *given: Any, role: str = "operator", **named: Any) -> Any:
        headers = {"authorization": f"Bearer {self.server.tokens[role]}"} if role else None
        return self._finish(getattr(self.inner, method)(*given, headers=headers, **named))

    def close(self) -> None:
        self._finish(self.inner.close())
        self.runner.close()

    def inputs(self, *, numeric: bool = True, texts: bool = True) -> list[Any]:
        arrays = {
            "numeric": (np.array([row[:2] for row in ROWS], np.float32), "FP32", numeric),
            "categorical": (np.array([[row[2]] for row in ROWS], object), "BYTES", texts),
        }
        made = []
        for name, (array, datatype, binary) in arrays.items():
            made.append(self.module.InferInput(name, list(array.shape), datatype))
            made[-1].set_data_from_numpy(array, binary_data=binary)
        return made

    def refused(self, code: str, status: int, method: str, *given: Any, **named: Any) -> None:
        with pytest.raises(self.error, match=rf"\[{status}\] \[{code}\]"):
            self(method, *given, **named)


def right(result: Any, *, only: tuple[str, ...] = OUTPUTS) -> None:
    """Assert that a result holds the answers to `ROWS`, and of the outputs only those that were asked for."""
    for name in OUTPUTS:
        assert (result.get_output(name) is not None) == (name in only)
    if "probabilities" in only:
        assert result.as_numpy("probabilities").shape == (len(ROWS), 2)
        assert result.as_numpy("probabilities")[:, 1] == pytest.approx(EXPECTED, abs=1e-6)
    if "label" in only:
        # The client gives texts back as bytes where they came as such.
        texts = [one.decode() if isinstance(one, bytes) else one for one in result.as_numpy("label").tolist()]
        assert texts == ["yes" if p >= 0.5 else "no" for p in EXPECTED]


def health(client: Client) -> None:
    assert client("is_server_live", role="") is True
    assert client("is_server_ready", role="") is True


def model_ready(client: Client) -> None:
    for version in ("", client.version):
        assert client("is_model_ready", "credit", version, role="viewer") is True
    assert client("is_model_ready", "credit", "0123456789ab") is False
    assert client("is_model_ready", "other") is False
    assert client("is_model_ready", "credit", role="") is False


def server_metadata(client: Client) -> None:
    metadata = client("get_server_metadata", role="viewer")
    assert metadata == {"name": "modelyard", "version": "2", "extensions": ["binary_tensor_data"]}


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
        "parameters": {"numeric": ["age", "income"], "categorical": ["city"], "classes": ["no", "yes"]},
    }
    assert client("get_model_metadata", "credit", client.version, role="viewer") == metadata
    client.refused("model-not-found", 404, "get_model_metadata", "credit", "0123456789ab")
    client.refused("token-missing", 401, "get_model_metadata", "credit", role="")


def model_config(client: Client) -> None:
    config = client("get_model_config", "credit", role="viewer")
    assert client("get_model_config", "credit", client.version, role="viewer") == config
    assert (config["name"], config["platform"]) == ("credit", "onnx")
    assert config["input"] == [
        {"name": "numeric", "data_type": "TYPE_FP32", "dims": [2]},
        {"name": "categorical", "data_type": "TYPE_STRING", "dims": [1]},
    ]
    assert [one["name"] for one in config["output"]] == list(OUTPUTS)
    names = {key: json.loads(one["string_value"]) for key, one in config["parameters"].items()}
    assert names == {"numeric": ["age", "income"], "categorical": ["city"], "classes": ["no", "yes"]}
    client.refused("model-not-found", 404, "get_model_config", "other")


def index(client: Client) -> None:
    expected = [{"name": "credit", "version": client.version, "state": "READY", "reason": ""}]
    assert client("get_model_repository_index", role="viewer") == expected


def statistics(client: Client) -> None:
    def counted(*asked: str) -> tuple[int, int, int]:
        (found,) = client("get_inference_statistics", *asked)["model_stats"]
        assert (found["name"], found["version"]) == ("credit", client.version)
        success = found["inference_stats"]["success"]
        return found["inference_count"], success["count"], success["ns"]

    before = counted()
    client("infer", "credit", client.inputs())
    for asked in ((), ("credit",), ("credit", client.version)):
        rows, count, ns = counted(*asked)
        assert (rows - before[0], count - before[1]) == (len(ROWS), 1)
        assert ns > before[2]
    (old,) = client("get_inference_statistics", "credit")["model_stats"]
    client("infer", "credit", client.inputs())
    client.refused("tensor-missing", 400, "infer", "credit", client.inputs()[:1])
    (new,) = client("get_inference_statistics", "credit")["model_stats"]
    more(old, new)
    client.refused("model-not-found", 404, "get_inference_statistics", "credit", "0123456789ab")
    client.refused("role-denied", 403, "get_inference_statistics", role="analyst")


def more(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Assert that one more large request was answered by a run of its own, and one refused."""
    count = lambda told, name: int(told["inference_stats"].get(name, {}).get("count", 0))  # noqa: E731
    assert [count(new, name) - count(old, name) for name in ("success", "fail", "compute_infer")] == [1, 1, 1]
    assert int(new["execution_count"]) - int(old["execution_count"]) == 1
    assert int(old["last_inference"]) <= int(new["last_inference"])
    assert abs(int(new["last_inference"]) / 1000 - time.time()) < 20
    stats = new["inference_stats"]
    spent = int(stats["compute_infer"]["ns"]) - int(old["inference_stats"]["compute_infer"]["ns"])
    assert 0 < spent < int(stats["success"]["ns"]) - int(old["inference_stats"]["success"]["ns"])
    # What is not measured is not there.
    assert set(stats) == {"success", "fail", "compute_infer"}
    assert "ns" not in stats["fail"]
    runs = {int(one["batch_size"]): one["compute_infer"] for one in new.get("batch_stats", ())}
    assert all(0 < size <= 256 and int(one["count"]) and int(one["ns"]) for size, one in runs.items())


def loading(client: Client) -> None:
    assert client("load_model", "credit") is None
    client.refused("model-not-found", 404, "load_model", "other")
    client.refused("not-supported", 400, "load_model", "credit", config="{}")
    client.refused("not-supported", 400, "load_model", "credit", config="{}", files={"file:1/model.onnx": b"x"})
    client.refused("role-denied", 403, "load_model", "credit", role="analyst")


def unsupported(method: str, *calls: tuple[tuple[Any, ...], dict[str, Any]]) -> Callable[[Client], None]:
    """Return a check that a call is refused as one that this server does not have, and to a stranger as any other."""

    def check(client: Client) -> None:
        for given, named in calls:
            client.refused("not-supported", 400, method, *given, **named)
            client.refused("role-denied", 403, method, *given, **named, role="analyst")
            client.refused("token-missing", 401, method, *given, **named, role="")

    return check


def infer(client: Client) -> None:
    asked: list[dict[str, bool] | None] = [
        None,
        dict.fromkeys(OUTPUTS, True),
        dict.fromkeys(OUTPUTS, False),
        {"label": False, "probabilities": True},
        {"label": True},
        {"probabilities": False},
    ]
    coded = ((None, None), ("gzip", "deflate"), ("deflate", "gzip"))
    for binary, outputs, (there, back) in itertools.product(
        ((False, False), (True, False), (True, True)), asked, coded
    ):
        result = client(
            "infer",
            "credit",
            client.inputs(numeric=binary[0], texts=binary[1]),
            outputs=outputs and [client.module.InferRequestedOutput(*one) for one in outputs.items()],
            request_compression_algorithm=there,
            response_compression_algorithm=back,
            role="analyst",
        )
        right(result, only=tuple(outputs or OUTPUTS))
        for name, as_bytes in (outputs or {}).items():
            assert ("data" not in result.get_output(name)) is as_bytes


def infer_details(client: Client) -> None:
    # What says how a request waits, or to which sequence it belongs, means nothing to a model without state.
    extra = {"sequence_id": 7, "sequence_start": True, "sequence_end": True, "priority": 1, "timeout": 1_000_000}
    result = client("infer", "credit", client.inputs(), client.version, request_id="t-1", parameters={"a": 1}, **extra)
    right(result)
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("t-1", "credit", client.version)
    outputs = [client.module.InferRequestedOutput("probabilities", class_count=1)]
    client.refused("not-supported", 400, "infer", "credit", client.inputs(), outputs=outputs)
    outputs = [client.module.InferRequestedOutput("probabilities")]
    outputs[0].set_shared_memory("r", 8)
    client.refused("not-supported", 400, "infer", "credit", client.inputs(), outputs=outputs)
    shared = client.module.InferInput("numeric", [1, 2], "FP32")
    shared.set_shared_memory("r", 8)
    client.refused("not-supported", 400, "infer", "credit", [shared])
    client.refused("tensor-missing", 400, "infer", "credit", client.inputs()[:1])
    client.refused("model-not-found", 404, "infer", "other", client.inputs())
    client.refused("role-denied", 403, "infer", "credit", client.inputs(), role="viewer")


def async_infer(client: Client) -> None:
    under_way = [client("async_infer", "credit", client.inputs(), request_id=f"a-{at}") for at in range(8)]
    for at, request in enumerate(under_way):
        result = request.get_result()
        right(result)
        assert result.get_response()["id"] == f"a-{at}"
    packed = client("async_infer", "credit", client.inputs(), request_compression_algorithm="gzip")
    right(packed.get_result(timeout=20))
    with pytest.raises(client.error, match=r"\[400\] \[tensor-missing\]"):
        client("async_infer", "credit", client.inputs()[:1]).get_result()


def bodies(client: Client) -> None:
    """The two static methods make a body for another HTTP client, and read the answer that it got."""
    kind = client.module.InferenceServerClient
    body, length = kind.generate_request_body(client.inputs(), request_id="b-1")
    with client.server.client() as other:
        answer = other.post(
            "/v2/models/credit/infer", content=body, headers={"inference-header-content-length": str(length)}
        )
    assert answer.status_code == 200, answer.text
    assert json.loads(answer.content[: int(answer.headers["inference-header-content-length"])])["id"] == "b-1"
    right(
        kind.parse_response_body(answer.content, header_length=int(answer.headers["inference-header-content-length"]))
    )


def plugins(client: Client) -> None:
    from tritonclient._plugin import InferenceServerClientPlugin

    class Bearer(InferenceServerClientPlugin):  # type: ignore[misc]
        def __call__(self, request: Any) -> None:
            request.headers["authorization"] = f"Bearer {client.server.tokens['viewer']}"

    plugin = Bearer()
    client.inner.register_plugin(plugin)
    assert client.inner.plugin() is plugin
    assert client("get_server_metadata", role="")["name"] == "modelyard"
    client.inner.unregister_plugin()
    client.refused("token-missing", 401, "get_server_metadata", role="")


def closing(client: Client) -> None:
    """Nobody else is harmed when a client leaves."""
    client._finish(client.inner.close())
    with client.server.client() as other:
        assert other.get("/v2/health/ready").status_code == 200


def _memory(kind: str, *register: Any) -> dict[str, Callable[[Client], None]]:
    anyone, one = ((), {}), (("r",), {})
    return {
        name: unsupported(name, *calls)
        for name, calls in (
            (f"get_{kind}_shared_memory_status", (anyone, one)),
            (f"unregister_{kind}_shared_memory", (anyone, one)),
            (f"register_{kind}_shared_memory", ((("r", *register), {}),)),
        )
    }


CHECKS: dict[str, tuple[Callable[[Client], None], ...]] = {
    **{name: (check,) for name, check in {**_memory("system", "/key", 8), **_memory("cuda", b"handle", 0, 8)}.items()},
    "async_infer": (async_infer,),
    "close": (closing,),
    "generate_request_body": (bodies,),
    "get_inference_statistics": (statistics,),
    "get_log_settings": (unsupported("get_log_settings", ((), {})),),
    "get_model_config": (model_config,),
    "get_model_metadata": (model_metadata,),
    "get_model_repository_index": (index,),
    "get_server_metadata": (server_metadata,),
    "get_trace_settings": (unsupported("get_trace_settings", ((), {}), (("credit",), {})),),
    "infer": (infer, infer_details),
    "is_model_ready": (model_ready,),
    "is_server_live": (health,),
    "is_server_ready": (health,),
    "load_model": (loading,),
    "parse_response_body": (bodies,),
    "plugin": (plugins,),
    "register_plugin": (plugins,),
    "unload_model": (unsupported("unload_model", (("credit",), {}), (("credit",), {"unload_dependents": True})),),
    "unregister_plugin": (plugins,),
    "update_log_settings": (unsupported("update_log_settings", (({"log_info": True},), {})),),
    "update_trace_settings": (
        unsupported(
            "update_trace_settings",
            ((), {"settings": {"trace_level": "OFF"}}),
            (("credit",), {"settings": {"trace_level": "OFF"}}),
        ),
    ),
}
ONLY_BLOCKING = {"async_infer"}


def methods(module: ModuleType) -> set[str]:
    return {name for name, _ in inspect.getmembers(module.InferenceServerClient, callable) if name[0] != "_"}


@pytest.fixture
def connect(served: Server) -> Iterator[Callable[[str], Client]]:
    made: list[Client] = []

    def connected(name: str) -> Client:
        made.append(Client(load(name), served))
        return made[-1]

    yield connected
    for client in made:
        client.close()


def test_each_call_of_the_clients_has_a_check() -> None:
    assert methods(load("http")) == set(CHECKS)
    assert methods(load("aio")) == set(CHECKS) - ONLY_BLOCKING


@pytest.mark.parametrize(
    ("module", "check"),
    [
        # A check of several calls runs once for each client.
        pytest.param(module, check, id=f"{module}-{name}")
        for module in ("http", "aio")
        for check, name in {check: name for name, of in CHECKS.items() for check in of}.items()
        if module == "http" or name not in ONLY_BLOCKING
    ],
)
def test_call(connect: Callable[[str], Client], module: str, check: Callable[[Client], None]) -> None:
    check(connect(module))
