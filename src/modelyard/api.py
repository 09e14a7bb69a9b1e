"""The front door for Python: load a declaration, plan it, run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelyard._kit.errors import UserError
from modelyard.pipeline.flow import Flow
from modelyard.pipeline.journal import Observer
from modelyard.pipeline.run import run as run_plan
from modelyard.records import Plan, Run
from modelyard.store import Store, open_store

if TYPE_CHECKING:
    from modelyard.spec import Spec

__all__ = ["load", "open_project", "plan", "run"]


def load(path: str | Path = "modelyard.yaml") -> Spec:
    """Read and check a declaration.

    Raises:
        SpecError: It has mistakes; all of them are listed.
    """
    from modelyard.spec import load as load_spec

    return load_spec(Path(path))


def plan(target: Flow | Spec | str | Path = "modelyard.yaml") -> Plan:
    """Return the steps of a flow or of a declaration, in order.

    Raises:
        SpecError: The declaration has mistakes.
    """
    if isinstance(target, Flow):
        return target.plan()
    from modelyard.pipeline.compose import compose

    return compose(load(target) if isinstance(target, str | Path) else target)


def run(
    target: Flow | Spec | str | Path = "modelyard.yaml",
    *,
    project: str | Path | None = None,
    observe: Observer | None = None,
) -> Run:
    """Run a flow or a declaration; what did not change is taken from the ledger.

    Args:
        target: A `Flow`, a `Spec`, or the path of a declaration.
        project: Folder that keeps the state (`.modelyard/`) of a flow, by default the current one. A declaration keeps
            its state beside itself.
        observe: Called with each event after it was written.

    Returns:
        The finished run; `run["step"]` is the output of a step as plain JSON.

    Raises:
        SpecError: The declaration has mistakes.
        CheckFailed: A blocking check failed.
        Busy: Another run holds the project.
        StepFailed: A step raised an error.
        UserError: `project` is given for a declaration.
    """
    if isinstance(target, Flow):
        store = open_project(project or ".")
        try:
            return run_plan(target.plan(), store, observe=observe, functions=target.functions)
        finally:
            store.close()
    from modelyard.pipeline.project import run_project

    if project is not None:
        raise UserError(
            "api-project", "`project` is for flows", hint="a declaration keeps its state beside itself; move the file"
        )
    from modelyard.automation.alerts import sending

    spec = load(target) if isinstance(target, str | Path) else target
    store = open_store(spec.root, file=spec.path.name)
    try:
        with sending(spec, store):
            return run_project(spec, store, observe=observe)
    finally:
        store.close()


def open_project(folder: str | Path = ".") -> Store:
    """Open the store of a project folder, made at first use.

    Raises:
        UserError: The folder cannot be written.
    """
    return open_store(Path(folder).resolve())
