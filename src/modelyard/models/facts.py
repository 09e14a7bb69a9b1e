"""What made a model, as plain data: interpreter and libraries, threads, and the recipe."""

from __future__ import annotations

import platform
import sys
from typing import Any

__all__ = ["environment_facts", "thread_facts"]

# Libraries that a model's bytes may depend on.
_LIBRARIES = ("modelyard", "lightgbm", "numpy", "onnx", "onnxruntime", "polars", "scikit-learn", "scipy")


def environment_facts() -> dict[str, Any]:
    """Return interpreter, machine type and the versions of the libraries that make models."""
    from importlib.metadata import PackageNotFoundError, version

    libraries: dict[str, str] = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            libraries[name] = "none"
    return {
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine()}",
        "libraries": libraries,
    }


def thread_facts() -> dict[str, int]:
    """Return how many threads each loaded numerical library may use, outside our own limit of one."""
    from threadpoolctl import threadpool_info

    return {f"{pool['internal_api']}:{pool['prefix']}": int(pool["num_threads"]) for pool in threadpool_info()}
