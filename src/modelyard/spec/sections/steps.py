"""The `steps` section: plain functions of the project as steps of its plan."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from modelyard._kit.fields import Duration, FunctionPath, Name, Section, Size, Texts
from modelyard.records import Resources
from modelyard.spec.sections.retries import Retries

__all__ = ["Asked", "OwnStep", "Partitioned"]

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
    network: Annotated[
        bool,
        Meta(
            description="Whether it may use the network. Without, what opens a network socket or looks up a name is "
            "refused as `step-network`; in a process of its own also native code and what it starts.",
            examples=[True],
        ),
    ] = False

    def to_resources(self) -> Resources:
        """Return what is asked as the record that the runner admits by."""
        return Resources(
            cpus=self.cpus,
            memory=self.memory or 0,
            gpus=self.gpus,
            own_process=self.own_process,
            network=self.network,
        )


class Partitioned(Section, frozen=True, kw_only=True):
    """What a step is run for, one by one."""

    every: Annotated[
        Literal["hourly", "daily", "weekly", "monthly"] | None,
        Meta(
            description="Periods of time, in UTC: the function takes `partition: str`, such as `2026-11-20T13` "
            "(hourly), `2026-11-20` (daily; weekly: its Monday) or `2026-11` (monthly). A run handles the newest that "
            "is complete, `modelyard backfill` any others. Left out, there are `values`.",
            examples=["daily"],
        ),
    ] = None
    start: Annotated[
        Annotated[
            str,
            Meta(
                pattern=r"^[12][0-9]{3}-[0-9]{2}(-[0-9]{2}(T[0-9]{2})?)?\Z",
                extra_json_schema={"say": "a month, day or hour: 2026-11, 2026-11-20 or 2026-11-20T13"},
            ),
        ]
        | None,
        Meta(description="First period. Left out, there is no first one.", examples=["2026-01-01"]),
    ] = None
    values: Annotated[
        tuple[
            Annotated[
                str,
                Meta(
                    pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z",
                    extra_json_schema={"say": "letters, digits, `_`, `.` and `-`, at most 63", "form": "label"},
                ),
            ],
            ...,
        ],
        Meta(
            description="The partitions themselves, such as regions; a run handles all of them. Left out, there is "
            "`every`.",
            examples=[["north", "south"]],
            extra_json_schema={"form": "texts"},
        ),
    ] = ()


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
    notebook: Annotated[
        Annotated[
            str,
            Meta(
                pattern=r"^[^:]+\.ipynb\Z",
                extra_json_schema={"say": "a notebook: FILE.ipynb"},
            ),
        ]
        | None,
        Meta(
            description="Notebook instead of a function; it needs the extra `notebooks`. `params` and `inputs` are set "
            "in it (a table as the path of a Parquet file), the executed copy is its output `notebook`, and `outputs` "
            "names variables that are kept besides.",
            examples=["report.ipynb"],
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
            description="Names of what the function returns; several mean that it returns a tuple in this order. "
            "Of a notebook: variables that are kept.",
            examples=[["table", "report"]],
            min_length=1,
            extra_json_schema={"form": "texts"},
        ),
    ] = ("value",)
    feeds: Annotated[
        Name | None,
        Meta(
            description="Name under which `features` (or the model, where there is none) takes its first output as a "
            "table; the name of a table in `data` replaces that one. Left out, the model takes nothing from it.",
            examples=["applicants"],
        ),
    ] = None
    partition: Annotated[
        Partitioned | None,
        Meta(
            description="Runs it once a partition: `hourly`, `daily`, `weekly`, `monthly`, or the fields below. Left "
            "out, it runs once.",
            examples=["daily", {"every": "daily", "start": "2026-01-01"}, {"values": ["north", "south"]}],
            extra_json_schema={"form": "short", "short": "every"},
        ),
    ] = None
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
