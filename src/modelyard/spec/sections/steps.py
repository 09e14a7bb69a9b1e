"""The `steps` section: plain functions of the project as steps of its plan."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, field

from modelyard._kit.fields import Duration, FunctionPath, Name, Section, Size, Texts
from modelyard.records import Resources
from modelyard.spec.sections.retries import Retries

__all__ = ["Asked", "OwnStep"]

# Name of a parameter of a function.
_Parameter = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}\Z",
        extra_json_schema={"say": "a name of a parameter: letters, digits and `_`"},
    ),
]
# An output of a step: `step` or `step#output`.
_Output = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z][A-Za-z0-9_.-]*(#[A-Za-z][A-Za-z0-9_-]*)?\Z",
        extra_json_schema={"say": "an output of a step: STEP or STEP#OUTPUT"},
    ),
]


class Asked(Section, frozen=True, kw_only=True):
    """What a step asks of the machine."""

    cpus: Annotated[float, Meta(description="Cores that it may use at once.", examples=[2], gt=0, le=1024)] = 1.0
    memory: Annotated[
        Size | None,
        Meta(
            description="Memory that it may hold; a step that takes more is stopped as `out-of-memory` and its "
            "neighbours go on. Left out, as much as there is.",
            examples=["2GB"],
        ),
    ] = None
    gpus: Annotated[
        int, Meta(description="GPUs that it has for itself while it runs.", examples=[1], ge=0, le=1024)
    ] = 0
    own_process: Annotated[
        bool,
        Meta(
            description="Whether it runs in a process of its own, beside its neighbours. A step that asks for memory, "
            "GPUs or a `timeout` does in any case.",
            examples=[True],
        ),
    ] = False

    def to_resources(self) -> Resources:
        """Return what is asked as the record that the runner admits by."""
        return Resources(cpus=self.cpus, memory=self.memory or 0, gpus=self.gpus, own_process=self.own_process)


class OwnStep(Section, frozen=True, kw_only=True):
    """One step of the user's own."""

    function: Annotated[
        FunctionPath | None,
        Meta(
            description="Plain function of the project: values in, values out. It is called with `inputs` and `params` "
            "by name, and runs again when its file, or a file of the project that this imports, changes.",
            examples=["steps.py:clean"],
        ),
    ] = None
    inputs: Annotated[
        dict[_Parameter, _Output | tuple[_Output, ...]],
        Meta(
            description="Parameter of the function -> output of another step, built in or own: `step` (its first "
            "output) or `step#output`; a list gives the function a list. `modelyard plan` names the steps.",
            examples=[{"table": "contract.applicants#accepted", "prices": "fetch"}],
        ),
    ] = field(default_factory=dict)
    params: Annotated[
        dict[_Parameter, Any],
        Meta(
            description="Parameter of the function -> value: numbers, texts, lists and fields.",
            examples=[{"threshold": 3}],
        ),
    ] = field(default_factory=dict)
    after: Annotated[
        Texts,
        Meta(
            description="Steps that must have ended before, although nothing is taken from them.", examples=[["fetch"]]
        ),
    ] = ()
    outputs: Annotated[
        tuple[Name, ...],
        Meta(
            description="Names of what the function returns; several mean that it returns a tuple in this order.",
            examples=[["table", "report"]],
            min_length=1,
            extra_json_schema={"form": "texts"},
        ),
    ] = ("value",)
    resources: Annotated[
        Asked, Meta(description="What it asks of the machine.", examples=[{"cpus": 2, "memory": "2GB"}])
    ] = Asked()
    retries: Annotated[
        Retries | None,
        Meta(
            description="What is done when it fails, instead of what `retries` at the top says: a number, or its "
            "fields. Left out, as at the top.",
            examples=[3, {"times": 3, "wait": "1s", "most": "1m", "memory": "4GB"}],
            extra_json_schema={"form": "short", "short": "times"},
        ),
    ] = None
    timeout: Annotated[
        Duration | None,
        Meta(
            description="Time after which an attempt is stopped. Left out, it may take as long as it takes.",
            examples=["10m"],
        ),
    ] = None
