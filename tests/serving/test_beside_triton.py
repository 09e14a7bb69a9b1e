"""The same ONNX model in our server and in Triton, over REST and gRPC: equal answers, and the same requests refused.

Triton is the `tritonserver` of the wheel that `benchmarks/serving.py` installs below `.bench/`; without it this skips.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from modelyard.security.tokens import add_token

from .conftest import lay, mixed_bundle, mixed_model, start  # noqa: TID252 - the suite is not installed

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
LENGTH = "inference-header-content-length"
NUMBERS = np.array([[30, 500], [60, 2500]], np.float32)
TOWNS = np.array([["paris"], ["oslo"]], object)
NUMERIC = {"name": "numeric", "shape": [1, 2], "datatype": "FP32", "data": [30, 500]}
CITY = {"name": "categorical", "shape": [1, 1], "datatype": "BYTES", "data": ["rome"]}

pytestmark = pytest.mark.slow


@dataclass
class Pair:
    """Our server and Triton, each with its address and the headers of a request."""

    client: Any
    servers: tuple[tuple[str, dict[str, str]], ...]
    # The same over gRPC; none where Triton does not serve it here.
    calls: tuple[tuple[str, dict[str, str]], ...] = ()
    operator: str = ""

    def infer(self, inputs: list[Any], **named: Any) -> list[Any]:
        """Return what each answers: the probabilities, or the error."""
        answers: list[Any] = []
        for url, headers in self.servers:
            client = self.client.InferenceServerClient(url.removeprefix("http://"))
            try:
                # The client writes into the headers that it is given.
                answers.append(client.infer("credit", inputs, headers=dict(headers), **named).as_numpy("probabilities"))
            except self.client.InferenceServerException as error:
                answers.append(error)
            finally:
                client.close()
        return answers

    def post(self, body: bytes, path: str = "/v2/models/credit/infer", **named: str) -> list[int]:
        """Return the status with which each answers a body."""
        return [
            httpx.post(url + path, content=body, headers={**headers, **named}, timeout=20).status_code
            for url, headers in self.servers
        ]

    def tensor(self, name: str, array: Any, datatype: str, *, binary: bool = True) -> Any:
        made = self.client.InferInput(name, list(array.shape), datatype)
        # Over gRPC all values are bytes.
        made.set_data_from_numpy(array, **({"binary_data": binary} if self.calls else {}))
        return made

    def sent(self, request: Any) -> list[Any]:
        """Return what each answers to a message: one, or the error."""
        import grpc
        from tritonclient.grpc import service_pb2_grpc

        answers = []
        for url, headers in self.servers:
            with grpc.insecure_channel(url) as channel:
                try:
                    ask = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
                    answers.append(ask(request, metadata=list(headers.items()), timeout=20))
                except grpc.RpcError as error:
                    answers.append(error)
        return answers

    def inputs(self, numbers: Any = NUMBERS, towns: Any = TOWNS, *, binary: bool = True) -> list[Any]:
        return [
            self.tensor("numeric", numbers, "FP32", binary=binary),
            self.tensor("categorical", towns, "BYTES", binary=binary),
        ]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = importlib.import_module("tritonclient.http")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        serving, peers = importlib.import_module("_serving"), importlib.import_module("_peers")
    peer = peers.PEERS["triton"]
    if not (peers.ENVIRONMENTS / peer.name / "whole").exists():
        pytest.skip("Triton is not installed; `make bench NAME=serving ARGS='--quick'` does it")
    project = tmp_path_factory.mktemp("pair")
    (project / "model.onnx").write_bytes(mixed_model())
    port, grpc = serving.free_port(), serving.free_port()
    (folder := project / "triton").mkdir()
    command, env = peers.triton(peers.python_of(peer), folder, project / "model.onnx", port, name="credit", grpc=grpc)
    tokens = {role: add_token(project, role, role) for role in ("analyst", "operator")}
    ours = start(project, lay(project, mixed_bundle()), "--grpc-port", "0", **tokens)
    try:
        with serving.running(command, port, peer.ready, wait_s=60, env={**os.environ, **env}):
            headers = {"authorization": f"Bearer {ours.tokens['analyst']}"}
            calls = ((ours.grpc, headers), (f"127.0.0.1:{grpc}", {}))
            servers = ((ours.url, headers), (f"http://127.0.0.1:{port}", {}))
            yield Pair(client, servers, calls, ours.tokens["operator"])
    finally:
        ours.stop()


@pytest.mark.parametrize("binary", [False, True])
def test_answers_are_equal(pair: Pair, binary: bool) -> None:
    rng = np.random.default_rng(5)
    numbers = np.stack([rng.integers(18, 91, 1500), rng.uniform(0, 9000, 1500)], axis=1).astype(np.float32)
    towns = rng.choice(np.array(["paris", "rome", "oslo", "", "Łódź"], object), (1500, 1))
    if binary:
        # As bytes, a NaN is a missing value to both.
        numbers[rng.random(1500) < 0.2, 1] = np.nan
    outputs = [pair.client.InferRequestedOutput("probabilities", binary_data=binary)]
    ours, theirs = pair.infer(pair.inputs(numbers, towns, binary=binary), outputs=outputs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "named",
    [
        {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"},
        {"request_compression_algorithm": "deflate", "response_compression_algorithm": "deflate"},
        {"sequence_id": 5, "sequence_start": True},
        {"priority": 3, "timeout": 5_000_000, "parameters": {"mine": 1}},
        {"request_id": "r-1"},
    ],
)
def test_what_goes_with_a_request_changes_no_answer(pair: Pair, named: dict[str, Any]) -> None:
    ours, theirs = pair.infer(pair.inputs(), **named)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_both_refuse_the_same_tensors(pair: Pair) -> None:
    texts, numbers = TOWNS, NUMBERS
    cases: dict[str, list[Any]] = {
        "no tensor": [],
        "one too few": pair.inputs()[:1],
        "one too many": [*pair.inputs(), pair.tensor("x", texts, "BYTES")],
        "twice": [*pair.inputs(), pair.inputs()[0]],
        "misspelt": [pair.inputs()[0], pair.tensor("categorica", texts, "BYTES")],
        "texts for numbers": [pair.tensor("numeric", texts, "BYTES"), pair.inputs()[1]],
        "numbers for texts": [pair.inputs()[0], pair.tensor("categorical", np.array([[1], [2]], np.int32), "INT32")],
        "no UTF-8": pair.inputs(towns=np.array([[b"\xff"], [b"rome"]], object)),
        "too wide": pair.inputs(np.ones((2, 3), np.float32)),
        "flat": pair.inputs(np.ones(2, np.float32)),
        "deep": pair.inputs(np.ones((2, 2, 1), np.float32)),
        "uneven": pair.inputs(towns=texts[:1]),
        "empty": pair.inputs(numbers[:0], texts[:0]),
    }
    for case, inputs in cases.items():
        assert [isinstance(one, Exception) for one in pair.infer(inputs)] == [True, True], case
    asked = [pair.client.InferRequestedOutput("labels")]
    for named in ({"outputs": asked}, {"model_version": "9"}, {"model_version": "abc"}):
        assert [isinstance(one, Exception) for one in pair.infer(pair.inputs(), **named)] == [True, True], named


def test_both_refuse_the_same_bodies(pair: Pair) -> None:
    def body(**changed: Any) -> bytes:
        return json.dumps({"inputs": [{**NUMERIC, **changed}, CITY]}).encode()

    good = body()
    assert pair.post(good) == [200, 200]
    cases = {
        "nothing": b"",
        "half": good[:-1],
        "list": b"[]",
        "empty object": b"{}",
        "null": b"null",
        "too few": body(data=[1]),
        "too many": body(data=[1, 2, 3]),
        "texts": body(data=["30", "500"]),
        "object": body(data={"a": 1}),
        "negative shape": body(shape=[-1, 2]),
        "text as shape": body(shape=["1", "2"]),
        "datatype": body(datatype="FLOAT"),
        "small letters": body(datatype="fp32"),
        "name": body(name=3),
        "both forms": body(parameters={"binary_data_size": 8}),
    }
    for case, sent in cases.items():
        assert [status >= 400 for status in pair.post(sent)] == [True, True], case
    made, length = pair.client.InferenceServerClient.generate_request_body(pair.inputs())
    assert pair.post(made, **{LENGTH: str(length)}) == [200, 200]
    for sent, header in ((made[:-1], length), (made + b"x", length), (made, length + 10**6), (made, "x"), (made, -1)):
        assert [status >= 400 for status in pair.post(sent, **{LENGTH: str(header)})] == [True, True], header
    assert [status >= 400 for status in pair.post(made)] == [True, True]
    assert pair.post(good, "/v2/models/other/infer") == [404, 404]


def test_where_the_two_differ(pair: Pair) -> None:
    """We know what was trained on and check it; and we turn one kind of number into another."""
    missing, endless = NUMBERS.copy(), NUMBERS.copy()
    missing[0, 0], endless[0, 0] = np.nan, np.inf
    best = [pair.client.InferRequestedOutput("probabilities", class_count=1)]
    for inputs, named in (
        (pair.inputs(missing), {}),
        (pair.inputs(endless), {}),
        (pair.inputs(), {"outputs": best}),
        (pair.inputs(), {"request_id": "a b"}),
    ):
        assert [isinstance(one, Exception) for one in pair.infer(inputs, **named)] == [True, False]
    for dtype, datatype in ((np.float64, "FP64"), (np.int32, "INT32")):
        ours, theirs = pair.infer([pair.tensor("numeric", NUMBERS.astype(dtype), datatype), pair.inputs()[1]])
        np.testing.assert_allclose(ours, pair.infer(pair.inputs())[1], rtol=0, atol=1e-6)
        assert isinstance(theirs, Exception)
    unknown = json.dumps({"inputs": [{**NUMERIC, "data": [30, None]}, CITY]}).encode()
    assert pair.post(unknown) == [200, 500]


@pytest.fixture(scope="module")
def called(pair: Pair) -> Pair:
    """The pair over gRPC."""
    import tritonclient.grpc as client

    with client.InferenceServerClient(pair.calls[1][0]) as theirs:
        try:
            assert theirs.is_server_live(client_timeout=20)
        except client.InferenceServerException as error:
            pytest.skip(f"this Triton does not serve gRPC: {error}")
    return Pair(client, pair.calls, operator=pair.operator)


def test_answers_over_grpc_are_equal(called: Pair) -> None:
    rng = np.random.default_rng(6)
    numbers = np.stack([rng.integers(18, 91, 1500), rng.uniform(0, 9000, 1500)], axis=1).astype(np.float32)
    numbers[rng.random(1500) < 0.2, 1] = np.nan
    towns = rng.choice(np.array(["paris", "rome", "oslo", "", "Łódź"], object), (1500, 1))
    outputs = [called.client.InferRequestedOutput("probabilities")]
    for named in ({}, {"compression_algorithm": "gzip"}, {"timeout": 5_000_000, "priority": 3}, {"request_id": "r-1"}):
        ours, theirs = called.infer(called.inputs(numbers, towns), outputs=outputs, **named)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_values_in_fields_for_their_type_are_answered_alike(called: Pair) -> None:
    """We answer in the form of the request, Triton always in bytes."""
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name="credit", id="r-2")
    one = request.inputs.add(name="numeric", datatype="FP32", shape=[2, 2])
    one.contents.fp32_contents.extend(NUMBERS.ravel().tolist())
    two = request.inputs.add(name="categorical", datatype="BYTES", shape=[2, 1])
    two.contents.bytes_contents.extend([b"paris", b"oslo"])
    ours, theirs = called.sent(request)
    assert (ours.model_name, ours.id) == (theirs.model_name, theirs.id) == ("credit", "r-2")
    assert not ours.raw_output_contents
    assert [list(one.outputs[0].shape) for one in (ours, theirs)] == [[2, 2]] * 2
    found = np.frombuffer(theirs.raw_output_contents[0], np.float32)
    np.testing.assert_allclose(ours.outputs[0].contents.fp32_contents, found, rtol=0, atol=1e-6)


def test_both_streams_answer_in_order_and_outlive_a_wrong_request(called: Pair) -> None:
    found = []
    for url, headers in called.servers:
        came: queue.Queue[tuple[Any, Any]] = queue.Queue()
        with called.client.InferenceServerClient(url) as client:
            client.start_stream(lambda result, error, came=came: came.put((result, error)), headers=dict(headers))
            wrong = [called.inputs()[0], called.tensor("categorical", TOWNS[:1], "BYTES")]
            answers = []
            for inputs in (called.inputs(), wrong, called.inputs(NUMBERS[:1], TOWNS[:1])):
                client.async_stream_infer("credit", inputs)
                result, error = came.get(timeout=20)
                answers.append(None if error is not None else result.as_numpy("probabilities"))
            client.stop_stream()
        found.append(answers)
    for ours, theirs in zip(*found, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    assert [answer is None for answer in found[0]] == [False, True, False]


def test_both_refuse_the_same_messages(called: Pair) -> None:
    from tritonclient.grpc import service_pb2

    texts, numbers = TOWNS, NUMBERS
    cases: dict[str, list[Any]] = {
        "no tensor": [],
        "one too few": called.inputs()[:1],
        "one too many": [*called.inputs(), called.tensor("x", texts, "BYTES")],
        "misspelt": [called.inputs()[0], called.tensor("categorica", texts, "BYTES")],
        "texts for numbers": [called.tensor("numeric", texts, "BYTES"), called.inputs()[1]],
        "too wide": called.inputs(np.ones((2, 3), np.float32)),
        "flat": called.inputs(np.ones(2, np.float32)),
        "uneven": called.inputs(towns=texts[:1]),
        "empty": called.inputs(numbers[:0], texts[:0]),
    }
    for case, inputs in cases.items():
        found = called.infer(inputs)
        assert [isinstance(one, Exception) for one in found] == [True, True], case
    for named in ({"model_version": "9"}, {"outputs": [called.client.InferRequestedOutput("labels")]}):
        assert [isinstance(one, Exception) for one in called.infer(called.inputs(), **named)] == [True, True], named
    unknown = called.sent(service_pb2.ModelInferRequest(model_name="other"))
    assert [one.code().name for one in unknown] == ["NOT_FOUND", "NOT_FOUND"]
    # One of the two has no bytes.
    request = service_pb2.ModelInferRequest(model_name="credit", raw_input_contents=[NUMBERS.tobytes()])
    request.inputs.add(name="numeric", datatype="FP32", shape=[2, 2])
    request.inputs.add(name="categorical", datatype="BYTES", shape=[2, 1])
    assert [one.code().name for one in called.sent(request)] == ["INVALID_ARGUMENT"] * 2


def test_statistics_of_both_are_read_by_the_same_names(called: Pair) -> None:
    called.infer(called.inputs())
    for url, _ in called.servers:
        headers = {"authorization": f"Bearer {called.operator}"} if url == called.servers[0][0] else {}
        with called.client.InferenceServerClient(url) as client:
            (found,) = client.get_inference_statistics("credit", headers=headers).model_stats
        assert found.inference_stats.success.count
        assert found.inference_stats.compute_infer.count
        assert 0 < found.inference_stats.compute_infer.ns <= found.inference_stats.success.ns
        assert abs(found.last_inference / 1000 - time.time()) < 60
        assert {one.batch_size for one in found.batch_stats} >= {2}
