"""Messages of the protocol as classes, in a pool of descriptors of our own.

Names, numbers and types of the fields are those of the Open Inference Protocol's gRPC specification (KServe,
`open_inference_grpc.proto`) and of the calls and the model configuration that Triton has beside it
(`grpc_service.proto`, `model_config.proto`). Protobuf's own pool takes each name once in a process, and a client in the
same process has put them there.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from modelyard.serving.errors import bad

__all__ = ["message", "read", "write"]

_PACKAGE = "inference"
# Message -> its fields: a number, a type and a name each. `*` stands for any number of them, `{}` for a map from texts,
# `|` for a choice of one.
_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "1 bool live",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "1 bool ready",
    "ModelReadyRequest": "1 string name, 2 string version",
    "ModelReadyResponse": "1 bool ready",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "1 string name, 2 string version, 3 string* extensions",
    "ModelMetadataRequest": "1 string name, 2 string version",
    "TensorMetadata": "1 string name, 2 string datatype, 3 int64* shape",
    "ModelMetadataResponse": "1 string name, 2 string* versions, 3 string platform, "
    "4 TensorMetadata* inputs, 5 TensorMetadata* outputs",
    "InferParameter": "1 bool| bool_param, 2 int64| int64_param, 3 string| string_param, "
    "4 double| double_param, 5 uint64| uint64_param",
    "InferTensorContents": "1 bool* bool_contents, 2 int32* int_contents, 3 int64* int64_contents, "
    "4 uint32* uint_contents, 5 uint64* uint64_contents, 6 float* fp32_contents, 7 double* fp64_contents, "
    "8 bytes* bytes_contents",
    "InferInputTensor": "1 string name, 2 string datatype, 3 int64* shape, 4 InferParameter{} parameters, "
    "5 InferTensorContents contents",
    "InferRequestedOutputTensor": "1 string name, 2 InferParameter{} parameters",
    "InferOutputTensor": "1 string name, 2 string datatype, 3 int64* shape, 4 InferParameter{} parameters, "
    "5 InferTensorContents contents",
    "ModelInferRequest": "1 string model_name, 2 string model_version, 3 string id, 4 InferParameter{} parameters, "
    "5 InferInputTensor* inputs, 6 InferRequestedOutputTensor* outputs, 7 bytes* raw_input_contents",
    "ModelInferResponse": "1 string model_name, 2 string model_version, 3 string id, 4 InferParameter{} parameters, "
    "5 InferOutputTensor* outputs, 6 bytes* raw_output_contents",
    "ModelStreamInferResponse": "1 string error_message, 2 ModelInferResponse infer_response",
    "RepositoryIndexRequest": "1 string repository_name, 2 bool ready",
    "ModelIndex": "1 string name, 2 string version, 3 string state, 4 string reason",
    "RepositoryIndexResponse": "1 ModelIndex* models",
    "ModelRepositoryParameter": "1 bool| bool_param, 2 int64| int64_param, 3 string| string_param, "
    "4 bytes| bytes_param",
    "RepositoryModelLoadRequest": "1 string repository_name, 2 string model_name, "
    "3 ModelRepositoryParameter{} parameters",
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": "1 string repository_name, 2 string model_name, "
    "3 ModelRepositoryParameter{} parameters",
    "RepositoryModelUnloadResponse": "",
    "ModelConfigRequest": "1 string name, 2 string version",
    "ModelInput": "1 string name, 2 DataType data_type, 4 int64* dims",
    "ModelOutput": "1 string name, 2 DataType data_type, 3 int64* dims",
    "ModelConfig": "1 string name, 2 string platform, 4 int32 max_batch_size, 5 ModelInput* input, "
    "6 ModelOutput* output, 14 ModelParameter{} parameters",
    "ModelParameter": "1 string string_value",
    "ModelConfigResponse": "1 ModelConfig config",
    "ModelStatisticsRequest": "1 string name, 2 string version",
    "StatisticDuration": "1 uint64 count, 2 uint64 ns",
    "InferStatistics": "1 StatisticDuration success, 2 StatisticDuration fail, 5 StatisticDuration compute_infer",
    "InferBatchStatistics": "1 uint64 batch_size, 3 StatisticDuration compute_infer",
    "ModelStatistics": "1 string name, 2 string version, 3 uint64 last_inference, 4 uint64 inference_count, "
    "5 uint64 execution_count, 6 InferStatistics inference_stats, 7 InferBatchStatistics* batch_stats",
    "ModelStatisticsResponse": "1 ModelStatistics* model_stats",
}
_DATA_TYPES = {"TYPE_INVALID": 0, "TYPE_FP32": 11, "TYPE_STRING": 13}


@cache
def _pool() -> Any:
    """Return a pool that holds the messages, and nothing else."""
    from google.protobuf import descriptor_pb2, descriptor_pool

    file = descriptor_pb2.FileDescriptorProto(name="inference.proto", package=_PACKAGE, syntax="proto3")
    kinds = file.enum_type.add(name="DataType")
    for name, number in _DATA_TYPES.items():
        kinds.value.add(name=name, number=number)
    for name, fields in _MESSAGES.items():
        made = file.message_type.add(name=name)
        for field in filter(None, fields.split(", ")):
            _field(made, field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _field(made: Any, text: str) -> None:
    """Add a field to a message."""
    number, kind, name = text.split(" ")
    plain = kind.rstrip("*|{}")
    field = made.field.add(name=name, number=int(number), label="LABEL_OPTIONAL")
    if kind.endswith("{}"):
        entry = made.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        _field(entry, "1 string key")
        _field(entry, f"2 {plain} value")
        field.label, field.type = "LABEL_REPEATED", "TYPE_MESSAGE"
        field.type_name = f".{_PACKAGE}.{made.name}.{entry.name}"
        return
    if kind.endswith("*"):
        field.label = "LABEL_REPEATED"
    if kind.endswith("|"):
        if not made.oneof_decl:
            made.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if plain == "DataType" or plain in _MESSAGES:
        field.type = "TYPE_ENUM" if plain == "DataType" else "TYPE_MESSAGE"
        field.type_name = f".{_PACKAGE}.{plain}"
    else:
        field.type = f"TYPE_{plain.upper()}"


@cache
def message(name: str) -> Any:
    """Return the class of a message."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))


def read(name: str, data: bytes) -> Any:
    """Return a message that was sent.

    Raises:
        HttpError: It is none of this name (`grpc-message`).
    """
    from google.protobuf.message import DecodeError

    try:
        return message(name).FromString(data)
    except DecodeError:
        raise bad("grpc-message", f"the message is no `{name}`") from None


def write(name: str, values: dict[str, Any]) -> bytes:
    """Return a message with these fields; what it has no field for is left out."""
    from google.protobuf.json_format import ParseDict

    data: bytes = ParseDict(values, message(name)(), ignore_unknown_fields=True).SerializeToString()
    return data
