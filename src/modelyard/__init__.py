"""Modelyard: one file from raw data to a tested, documented, served and watched model, with proof.

    >>> import modelyard
    >>> def double(x: int) -> int:
    ...     return 2 * x
    >>> flow = modelyard.Flow("example")
    >>> four = flow.step(double, x=2)

Importing the package loads nothing but this file; each name below is found when it is first used.
"""

from __future__ import annotations

import os

# From 1.29 on ONNX Runtime tells its maker over the network which models are run where, unless it is told not to before
# it is loaded, by whomever. Whoever wants that sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# `typing` is only for who checks types: it takes longer to load than the rest of this file.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from modelyard._kit.errors import ModelyardError
    from modelyard.api import load, open_project, plan, run
    from modelyard.pipeline.flow import Flow
    from modelyard.pipeline.settings import step
    from modelyard.records import Card, Check, CheckResult, Evidence, ModelVersion, Plan, Run, Step, TableVersion
    from modelyard.spec import Spec

__version__ = "0.1.0"

__all__ = [
    "Card",
    "Check",
    "CheckResult",
    "Evidence",
    "Flow",
    "ModelVersion",
    "ModelyardError",
    "Plan",
    "Run",
    "Spec",
    "Step",
    "TableVersion",
    "__version__",
    "load",
    "open_project",
    "plan",
    "run",
    "step",
]

_RECORDS = "modelyard.records"
_WHERE = {
    "ModelyardError": "modelyard._kit.errors",
    "Flow": "modelyard.pipeline.flow",
    "Spec": "modelyard.spec",
    "load": "modelyard.api",
    "open_project": "modelyard.api",
    "plan": "modelyard.api",
    "run": "modelyard.api",
    "step": "modelyard.pipeline.settings",
    **dict.fromkeys(
        ("Card", "Check", "CheckResult", "Evidence", "ModelVersion", "Plan", "Run", "Step", "TableVersion"), _RECORDS
    ),
}


def __getattr__(name: str) -> Any:
    """Find a public name in its house when it is first used."""
    if name not in _WHERE:
        raise AttributeError(f"module 'modelyard' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
