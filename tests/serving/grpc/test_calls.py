"""Real clients, unmodified: what they ask is answered as over REST, and so are their mistakes."""

from __future__ import annotations

import json
import queue
import sqlite3
import threading
from contextlib import closing
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from modelyard.serving.grpc.messages import message
from modelyard.store.requests import ids_of

from ..conftest import Server, mixed_answer, regression_bundle  # noqa: TID252 - the suite is not installed
from .conftest import SERVICE, Ask, asker, metadata, row, said  # noqa: TID252 - the same


def yes(answer: Any) -> float:
    return float(np.frombuffer(answer.raw_output_contents[0], np.float32)[1])


def inputs(age: float = 30, city: str = "rome") -> list[Any]:
    numbers = triton.InferInput("numeric", [1, 2], "FP32")
    numbers.set_data_from_numpy(np.array([[age, 1]], np.float32))
    texts = triton.InferInput("categorical", [1, 1], "BYTES")
    texts.set_data_from_numpy(np.array([[city]], object))
    return [numbers, texts]


def test_the_calls_of_tritons_client(server: Server) -> None:
    headers = dict(metadata(server, "operator"))
    with triton.InferenceServerClient(server.grpc) as client, server.client("operator") as rest:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("credit", headers=headers)
        assert client.get_server_metadata(headers=headers, as_json=True) == rest.get("/v2").json()
        told = rest.get("/v2/models/credit").json()
        found = client.get_model_metadata("credit", headers=headers, as_json=True)
        shapes = [{**one, "shape": [str(n) for n in one["shape"]]} for one in told["inputs"]]
        assert found["inputs"] == shapes
        assert found["versions"] == told["versions"]
        config = client.get_model_config("credit", headers=headers).config
        assert [(one.name, one.data_type, list(one.dims)) for one in config.input] == [
            ("numeric", 11, [2]),
            ("categorical", 13, [1]),
        ]
        assert config.max_batch_size == 100_000
        index = client.get_model_repository_index(headers=headers, as_json=True)["models"]
        assert {**index[0], "reason": ""} == rest.post("/v2/repository/index").json()[0]
        client.load_model("credit", headers=headers)
        before = client.get_inference_statistics("credit", headers=headers).model_stats[0]
        answer = client.infer("credit", inputs(), headers=headers, request_id="mine")
        assert answer.as_numpy("probabilities")[0][1] == pytest.approx(mixed_answer(30, 1, "rome"), abs=1e-6)
        assert answer.as_numpy("label").tolist() == [b"yes"]
        assert answer.get_response().id == "mine"
        after = client.get_inference_statistics("credit", headers=headers).model_stats[0]
        assert after.inference_count == before.inference_count + 1
        assert after.inference_stats.success.ns > before.inference_stats.success.ns
        wanted = [triton.InferRequestedOutput("label")]
        assert client.infer("credit", inputs(), outputs=wanted, headers=headers).as_numpy("probabilities") is None
        for what in (
            lambda: client.unload_model("credit", headers=headers),
            lambda: client.load_model("credit", headers=headers, config="{}"),
            lambda: client.get_system_shared_memory_status(headers=headers),
            lambda: client.get_log_settings(headers=headers),
        ):
            with pytest.raises(triton.InferenceServerException, match="not-supported") as refused:
                what()
            assert refused.value.status() == "StatusCode.UNIMPLEMENTED"


def test_equal_to_rest(server: Server, ask: Ask) -> None:
    body = {
        "inputs": [
            {"name": "numeric", "shape": [1, 2], "datatype": "FP32", "data": [95, 1]},
            {"name": "categorical", "shape": [1, 1], "datatype": "BYTES", "data": ["oslo"]},
        ]
    }
    with server.client() as client:
        rest = client.post("/v2/models/credit/infer", json=body).json()
    raw = ask("ModelInfer", row(95, 1, "oslo", id="a"))
    typed = ask("ModelInfer", row(95, 1, "oslo", raw=False))
    shown = {one["name"]: one for one in rest["outputs"]}
    for answer in (raw, typed):
        assert (answer.model_name, answer.model_version) == (rest["model_name"], rest["model_version"])
        for one in answer.outputs:
            assert (one.datatype, list(one.shape)) == (shown[one.name]["datatype"], shown[one.name]["shape"])
        assert answer.parameters["warnings"].string_param == "; ".join(rest["parameters"]["warnings"])
    assert np.frombuffer(raw.raw_output_contents[0], np.float32).tolist() == shown["probabilities"]["data"]
    assert list(typed.outputs[0].contents.fp32_contents) == shown["probabilities"]["data"]
    assert [one.decode() for one in typed.outputs[1].contents.bytes_contents] == shown["label"]["data"]
    assert raw.id == "a"
    assert not typed.raw_output_contents


@pytest.mark.parametrize("rows", [2, 300, 20_000])
def test_many_rows(ask: Ask, rows: int) -> None:
    answer = ask("ModelInfer", row(30, 1, "rome", rows=rows))
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).shape == (rows * 2,)
    assert answer.raw_output_contents[1] == b"\3\0\0\0yes" * rows


def test_one_tensor_a_column_of_any_type(ask: Ask) -> None:
    request = message("ModelInferRequest")(model_name="credit")
    for name, kind, field, value in (
        ("age", "INT8", "int_contents", 30),
        ("income", "FP64", "fp64_contents", 1.5),
        ("city", "BYTES", "bytes_contents", b"rome"),
    ):
        one = request.inputs.add(name=name, datatype=kind, shape=[1])
        getattr(one.contents, field).append(value)
    answer = ask("ModelInfer", request)
    assert answer.outputs[0].contents.fp32_contents[1] == pytest.approx(mixed_answer(30, 1.5, "rome"), abs=1e-6)


def change(request: Any, **given: Any) -> Any:
    one = request.inputs[0]
    for name, value in given.items():
        if name == "shape":
            del one.shape[:]
            one.shape.extend(value)
        elif name == "shared":
            one.parameters["shared_memory_region"].string_param = value
        else:
            setattr(one, name, value)
    return request


def dropped() -> Any:
    request = row()
    del request.raw_input_contents[1]
    return request


def both() -> Any:
    request = row()
    request.inputs[0].contents.fp32_contents.append(1)
    return request


def other_field() -> Any:
    request = row(raw=False)
    request.inputs[0].contents.int_contents.append(1)
    return request


def beyond() -> Any:
    request = change(row(raw=False), datatype="INT8")
    request.inputs[0].ClearField("contents")
    request.inputs[0].contents.int_contents.extend([300, 1])
    return request


MISTAKES = {
    "model-not-found": ("NOT_FOUND", lambda: message("ModelInferRequest")(model_name="other")),
    "tensor-unknown": ("INVALID_ARGUMENT", lambda: change(row(), name="numerc")),
    "tensor-missing": ("INVALID_ARGUMENT", lambda: message("ModelInferRequest")(model_name="credit")),
    "tensor-shape": ("INVALID_ARGUMENT", lambda: change(row(), shape=[1, 3])),
    "tensor-shape ": ("INVALID_ARGUMENT", lambda: change(row(raw=False), shape=[2, 2])),
    "tensor-binary": ("INVALID_ARGUMENT", dropped),
    "tensor-binary ": ("INVALID_ARGUMENT", both),
    "tensor-binary  ": ("INVALID_ARGUMENT", lambda: change(row(), shape=[2**40, 2])),
    "tensor-type": ("INVALID_ARGUMENT", lambda: change(row(), datatype="BYTES")),
    "tensor-type ": ("INVALID_ARGUMENT", other_field),
    "tensor-type  ": ("INVALID_ARGUMENT", beyond),
    "tensor-type   ": ("INVALID_ARGUMENT", lambda: change(row(raw=False), datatype="FP16")),
    "not-supported": ("UNIMPLEMENTED", lambda: change(row(), shared="x")),
    "value-missing": ("INVALID_ARGUMENT", lambda: row(float("nan"))),
    "rows-too-many": ("RESOURCE_EXHAUSTED", lambda: change(row(), shape=[200_000, 2])),
    "request-id": ("INVALID_ARGUMENT", lambda: row(id="no spaces")),
    "grpc-message": ("INVALID_ARGUMENT", lambda: b"\xff\xff"),
}


def test_a_width_that_has_no_field_of_its_own_is_told_where_it_comes(ask: Ask) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        ask("ModelInfer", change(row(raw=False), datatype="FP16"))
    assert "FP16, which comes as bytes alone, in `raw_input_contents`" in refused.value.details()


@pytest.mark.parametrize("code", MISTAKES)
def test_mistakes_as_over_rest(ask: Ask, code: str) -> None:
    status, make = MISTAKES[code]
    if code == "tensor-binary  ":
        status, code = "RESOURCE_EXHAUSTED", "rows-too-many"
    with pytest.raises(grpc.RpcError) as refused:
        ask("ModelInfer", make())
    assert said(refused.value) == (status, code.strip())
    ids = [value for key, value in refused.value.trailing_metadata() if key == "x-request-id"]
    assert len(ids) == 1


def test_ids_and_versions_come_as_metadata(server: Server, ask: Ask) -> None:
    answer = ask("ModelInfer", row(), more=[("x-request-id", "my-own")])
    assert answer.id == "my-own"
    assert dict(ask.done.trailing_metadata())["x-request-id"] == "my-own"  # type: ignore[attr-defined]
    assert dict(ask.done.initial_metadata())["x-model-version"] == answer.model_version  # type: ignore[attr-defined]
    with pytest.raises(grpc.RpcError) as refused:
        ask("ModelInfer", row(), more=[("x-request-id", "no spaces")])
    assert said(refused.value) == ("INVALID_ARGUMENT", "request-id")


@pytest.mark.parametrize("kind", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed(ask: Ask, kind: grpc.Compression) -> None:
    answer = ask("ModelInfer", row(rows=500), compression=kind)
    assert len(answer.raw_output_contents[0]) == 500 * 8


def test_a_message_too_large(server: Server) -> None:
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.grpc, options=options) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        with pytest.raises(grpc.RpcError) as refused:
            infer(bytes(10_000_001), metadata=metadata(server), timeout=20)
        assert said(refused.value) == ("RESOURCE_EXHAUSTED", "body-too-large")
        infer(row().SerializeToString(), metadata=metadata(server), timeout=20)


def test_a_stream_goes_on_after_an_error(server: Server) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)), headers=dict(metadata(server)))
        ages = [20, 30, 40, 50]
        for at, age in enumerate(ages):
            client.async_stream_infer("credit", inputs(age), request_id=f"s{at}")
        client.async_stream_infer("other", inputs(), request_id="bad")
        client.async_stream_infer("credit", inputs(60), request_id="last")
        for at, age in enumerate(ages):
            result, error = answers.get(timeout=20)
            assert error is None
            assert result.get_response().id == f"s{at}"
            wanted = pytest.approx(mixed_answer(age, 1, "rome"), abs=1e-6)
            assert result.as_numpy("probabilities")[0][1] == wanted
        result, error = answers.get(timeout=20)
        assert "[model-not-found]" in str(error)
        assert answers.get(timeout=20)[0].get_response().id == "last"
        client.stop_stream()


def test_a_stream_is_let_in_as_a_call_is(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        for role, status in (("", "UNAUTHENTICATED"), ("viewer", "PERMISSION_DENIED")):
            with pytest.raises(grpc.RpcError) as refused:
                list(stream(iter([row().SerializeToString()]), metadata=metadata(server, role), timeout=20))
            assert said(refused.value)[0] == status


def test_many_at_once_each_get_their_own(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        ages = [18 + at % 70 for at in range(400)]
        sent = [infer.future(row(age).SerializeToString(), metadata=metadata(server), timeout=20) for age in ages]
        answered = 0
        for age, future in zip(ages, sent, strict=True):
            if future.exception() is not None:
                # A server that has too much to do says so, and to whom.
                assert said(future.exception()) == ("RESOURCE_EXHAUSTED", "too-many-requests")
                continue
            answer = message("ModelInferResponse").FromString(future.result())
            assert yes(answer) == pytest.approx(mixed_answer(age, 1, "rome"), abs=1e-6)
            answered += 1
        assert answered


def test_who_gives_up_costs_nobody_else(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        data = row(rows=2000).SerializeToString()
        for _ in range(20):
            infer.future(data, metadata=metadata(server), timeout=20).cancel()
        with pytest.raises(grpc.RpcError) as late:
            infer(data, metadata=metadata(server), timeout=0.0001)
        assert said(late.value)[0] == "DEADLINE_EXCEEDED"
        assert message("ModelInferResponse").FromString(infer(data, metadata=metadata(server), timeout=20)).outputs


def test_a_regression(fresh: Any) -> None:
    server = fresh(regression_bundle(), "--grpc-port", "0")
    request = message("ModelInferRequest")(model_name="hours", raw_input_contents=[np.float32([2, 3]).tobytes()])
    request.inputs.add(name="numeric", datatype="FP32", shape=[1, 2])
    with grpc.insecure_channel(server.grpc) as channel:
        data = channel.unary_unary(f"/{SERVICE}/ModelInfer")(
            request.SerializeToString(), metadata=metadata(server), timeout=20
        )
    answer = message("ModelInferResponse").FromString(data)
    assert [one.name for one in answer.outputs] == ["prediction"]
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [7.0]


def test_logged_counted_and_guarded(fresh: Any) -> None:
    policy = {"guards": {"unseen": "reject"}, "access": {"show": {"viewer": "label"}, "log": "all"}}
    server = fresh(None, "--grpc-port", "0", "--policy", json.dumps(policy))
    ids = []
    with grpc.insecure_channel(server.grpc) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        for at in range(50):
            ids.append(f"call-{at}")
            infer(row(id=ids[-1]).SerializeToString(), metadata=metadata(server), timeout=20)
        with pytest.raises(grpc.RpcError) as unseen:
            infer(row(30, 1, "oslo").SerializeToString(), metadata=metadata(server), timeout=20)
        assert said(unseen.value)[0] == "INVALID_ARGUMENT"
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        parts = [row(id=f"part-{at}").SerializeToString() for at in range(50)]
        assert len(list(stream(iter(parts), metadata=metadata(server), timeout=20))) == 50
        ids += [f"part-{at}" for at in range(50)]
    with server.client("operator") as client:
        text = client.get("/metrics").text
    for name, count in (("ModelInfer", 50), ("ModelStreamInfer", 50)):
        line = next(one for one in text.splitlines() if f'route="/{SERVICE}/{name}"' in one and "requests_total" in one)
        assert line.endswith(f" {count}"), line
    assert "modelyard_refused_total" in text
    assert server.stop() == 0
    with closing(sqlite3.connect(server.log)) as db:
        assert ids_of(db) == set(ids)


def test_rows_that_are_held_back_and_roles_that_see_less(fresh: Any) -> None:
    policy = {"guards": {"confidence": {"at_least": 0.9, "else": "abstain"}}, "access": {"show": {"analyst": "label"}}}
    server = fresh(None, "--grpc-port", "0", "--policy", json.dumps(policy))
    with grpc.insecure_channel(server.grpc) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        with pytest.raises(grpc.RpcError) as unsure:
            infer(row(18, 1800, "rome").SerializeToString(), metadata=metadata(server), timeout=20)
        assert said(unsure.value) == ("INVALID_ARGUMENT", "answer-withheld")
        data = row(80, 1, "paris").SerializeToString()
        for role, names in (("analyst", ["label"]), ("operator", ["probabilities", "label"])):
            answer = message("ModelInferResponse").FromString(infer(data, metadata=metadata(server, role), timeout=20))
            assert [one.name for one in answer.outputs] == names
            assert len(answer.raw_output_contents) == len(names)
            ask = asker(channel, server)
            for method, listed in (
                ("ModelMetadata", lambda found: found.outputs),
                ("ModelConfig", lambda found: found.config.output),
            ):
                found = ask(method, message(f"{method}Request")(name="credit"), role)
                assert [one.name for one in listed(found)] == names
        wanted = row(80, 1, "paris")
        wanted.outputs.add(name="probabilities")
        with pytest.raises(grpc.RpcError) as hidden:
            infer(wanted.SerializeToString(), metadata=metadata(server), timeout=20)
        assert said(hidden.value) == ("PERMISSION_DENIED", "role-denied")


def test_threads_share_a_channel(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        wrong: list[Any] = []

        def work(age: int) -> None:
            for _ in range(20):
                data = infer(row(age).SerializeToString(), metadata=metadata(server), timeout=20)
                if abs(yes(message("ModelInferResponse").FromString(data)) - mixed_answer(age, 1, "rome")) > 1e-6:
                    wrong.append(age)

        threads = [threading.Thread(target=work, args=(age,)) for age in (20, 40, 60, 80)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_load_tests_are_an_operators_by_every_way_an_id_comes(server: Server) -> None:
    """Whoever could name a request so would not be watched."""
    mark = ("x-load-test", "1")
    with grpc.insecure_channel(server.grpc) as channel:
        ask = asker(channel, server)
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")

        def streamed(role: str) -> list[str]:
            given = [*metadata(server, role), mark]
            data = [row(id=name).SerializeToString() for name in ("", "s")]
            parts = [message("ModelStreamInferResponse").FromString(one) for one in stream(iter(data), metadata=given)]
            return [part.infer_response.id for part in parts]

        # The third of a kind is known by its metadata.
        ids = [ask("ModelInfer", row(), role="operator", more=[mark]).id for _ in range(3)]
        ids += [ask("ModelInfer", row(id="m"), role="operator", more=[mark]).id]
        ids += [ask("ModelInfer", row(), role="operator", more=[mark, ("x-request-id", "h")]).id]
        ids += streamed("operator")
        assert all(name.startswith("loadtest-") for name in ids), ids
        assert len(set(ids)) == len(ids)
        ids = [ask("ModelInfer", row(), more=[mark]).id for _ in range(3)] + streamed("analyst")
        assert not any(name.startswith("loadtest-") for name in ids), ids
        for settings in (
            {"request": row(id="loadtest-m")},
            {"request": row(), "more": [("x-request-id", "loadtest-h")]},
        ):
            with pytest.raises(grpc.RpcError) as refused:
                ask("ModelInfer", **settings)
            assert said(refused.value) == ("INVALID_ARGUMENT", "request-id")
