"""What answers for a model: one of the runtimes that can, and what it needs beside the bundle."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import msgspec

__all__ = ["RUNTIMES", "Decision", "Runtime", "RuntimeName"]

# Our own form of trees; ONNX Runtime; the same with weights of 8 bits; the library that trained the model.
RuntimeName = Literal["kernels", "onnxruntime", "int8", "native"]
RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)


class Runtime(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What answers, and how.

    Attributes:
        name: Which.
        threads: Threads of one prediction.
        address: Where the store keeps the sealed folder with what it reads and the bundle does not hold; empty: it
            reads the bundle's own files.
    """

    name: RuntimeName
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    address: str = ""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What the newest measurement of a model's runtimes says; part of the payload of `runtimes.finished`.

    Attributes:
        model: Digest of the model.
        runtime: What answers for it; none: nothing that was measured met the limits.
        forced: It was named in the declaration, so that it counts on every machine.
        machine: Processor and cores that it was measured on; what is cheap there need not be so elsewhere.
    """

    model: str
    runtime: Runtime | None
    forced: bool = False
    machine: dict[str, Any] = {}
