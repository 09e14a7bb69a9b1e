"""The file as a whole: what stands at its top, and which house owns which section."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from modelyard._kit.fields import FunctionPath, Name, Section
from modelyard.cards.section import CardText
from modelyard.checks.section import CheckEntry
from modelyard.data.section import Source
from modelyard.deploy.section import Deploy
from modelyard.logs.section import Logs
from modelyard.models.section import Model
from modelyard.monitoring.section import Monitor
from modelyard.spec.sections.alerts import Mail, Told
from modelyard.spec.sections.cost import Cost
from modelyard.spec.sections.retries import Retries
from modelyard.spec.sections.schedule import Schedule
from modelyard.spec.sections.steps import OwnStep
from modelyard.spec.sections.triggers import OwnTrigger

__all__ = ["Declaration", "Owner"]

_Entry = Annotated[CheckEntry, Meta(extra_json_schema={"form": "one_key", "noun": "kind of check"})]


class Owner(Section, frozen=True, kw_only=True):
    """Somebody who answers for the model."""

    team: Annotated[str, Meta(description="Team or person who answers for the model.", examples=["credit"])]
    contact: Annotated[
        str | None,
        Meta(description="Where to reach them. Left out, the card names the team only.", examples=["mailto:a@b.org"]),
    ] = None


class Declaration(Section, frozen=True, kw_only=True):
    """Everything that `modelyard.yaml` says."""

    project: Annotated[
        Name,
        Meta(
            description="Name of the project; the endpoint has it too unless `deploy` says otherwise.",
            examples=["income"],
        ),
    ]
    purpose: Annotated[
        str,
        Meta(
            description="What the model decides or helps to decide, in a sentence. A model without one is not "
            "released.",
            examples=["Decide which applicants a person should look at first."],
        ),
    ] = ""
    owners: Annotated[
        tuple[Owner, ...],
        Meta(
            description="Who answers for the model. A model without any is not released.",
            examples=[[{"team": "credit", "contact": "mailto:credit@example.org"}]],
        ),
    ] = ()
    data: Annotated[
        dict[Name, Source],
        Meta(
            description="The tables, each under its own name: where they come from and what must hold of them. "
            "Left out, the project has own `steps` only.",
            examples=[{"applicants": {"from": "data/*.csv", "key": "id"}}],
            min_length=1,
        ),
    ] = field(default_factory=dict)
    features: Annotated[
        FunctionPath | None,
        Meta(
            description="Your function that makes the model's table: it takes the tables by name (narwhals lazy "
            "frames) and returns one. Left out, the only table is taken as it is.",
            examples=["features.py:build"],
        ),
    ] = None
    model: Annotated[
        Model | None,
        Meta(
            description="What is learned, how rows are split, and which families compete. Left out, the project is a "
            "pipeline of own `steps` without a model.",
            examples=[{"target": "income", "metric": "roc_auc"}],
        ),
    ] = None
    steps: Annotated[
        dict[Name, OwnStep],
        Meta(
            description="Own steps, each under its own name: functions of the project that run beside the built-in "
            "steps, with the same caching, retries and records.",
            examples=[{"clean": {"function": "steps.py:clean", "params": {"threshold": 3}}}],
            min_length=1,
        ),
    ] = field(default_factory=dict)
    retries: Annotated[
        Retries,
        Meta(
            description="What is done when a step fails for a reason that may pass, built-in or own: a number of "
            "further attempts, or the fields below.",
            examples=[3, {"times": 5, "wait": "2s", "most": "5m"}],
            extra_json_schema={"form": "short", "short": "times"},
        ),
    ] = Retries()
    checks: Annotated[
        tuple[_Entry, ...],
        Meta(
            description="Claims about the model, one a line; each is measured on the test rows, leaves evidence, and "
            "stops the run when it does not hold, unless it says `blocking: false`.",
            examples=[[{"roc_auc": {"at_least": 0.9, "with_confidence": "95%"}}]],
        ),
    ] = ()
    card: Annotated[
        CardText,
        Meta(
            description="What only a person can say of the model; its numbers come from evidence.",
            examples=[{"factors": ["sex", "race"]}],
        ),
    ] = CardText()
    deploy: Annotated[
        Deploy,
        Meta(description="Under which name the model answers, and who may ask.", examples=[{"endpoint": "income"}]),
    ] = Deploy()
    monitor: Annotated[
        Monitor,
        Meta(
            description="How far live requests may move from the training data.",
            examples=[{"drift": {"psi": 0.2}, "window": 500}],
        ),
    ] = Monitor()
    cost: Annotated[
        Cost,
        Meta(
            description="What the machine costs, and how much a run or a month may cost.",
            examples=[{"prices": {"cpu_hour": 0.04}, "per_run": 5.0}],
        ),
    ] = Cost()
    logs: Annotated[
        Logs,
        Meta(
            description="For how long what steps and servers say is kept, and who else gets it.",
            examples=[{"keep": "90d", "to": ["https://logs.example.org/in"]}],
        ),
    ] = Logs()
    schedule: Annotated[
        tuple[Schedule, ...],
        Meta(
            description="When runs start by themselves while `modelyard up` is at work: one schedule, or a list.",
            examples=[{"at": "0 3 * * *", "zone": "Europe/Berlin", "avoid": "Mon-Fri 08:00-18:00"}],
            min_length=1,
            extra_json_schema={"form": "sections"},
        ),
    ] = ()
    triggers: Annotated[
        dict[Name, OwnTrigger],
        Meta(
            description="What `modelyard up` watches, each under its own name, and starts runs for: files, objects, "
            "rows, webhooks, other projects, drift. Each change is run for once, over restarts too.",
            examples=[{"arrivals": {"files": "data/in/*.csv"}}],
        ),
    ] = field(default_factory=dict)
    alerts: Annotated[
        tuple[
            Annotated[
                Told,
                Meta(
                    description="One target: its address, or the fields below.",
                    examples=["mailto:ml@example.org"],
                    extra_json_schema={"form": "short", "short": "to"},
                ),
            ],
            ...,
        ],
        Meta(
            description="Who is told when a run fails, when data are stale, when something drifts; a target that "
            "cannot be reached never slows or fails a run.",
            examples=[["mailto:ml@example.org", "env:ML_HOOK"]],
            min_length=1,
        ),
    ] = ()
    mail: Annotated[
        Mail | None,
        Meta(
            description="The mail server that `mailto:` targets go through. Left out, the relay of this machine.",
            examples=[{"host": "smtp.example.org", "user": "ml@example.org"}],
        ),
    ] = None
    store: Annotated[
        Annotated[
            str,
            Meta(min_length=1, extra_json_schema={"say": "`local`, or an address: `postgresql://USER@HOST/DATABASE`"}),
        ]
        | None,
        Meta(
            description="Where the records are kept: `local` is `.modelyard/` beside the file; a Postgres is shared by "
            "several machines. Never with a password in it; the environment's `MODELYARD_STORE` wins over it. Left "
            "out, it is `local`.",
            examples=["postgresql://modelyard@db.example.org/modelyard?files=/mnt/team/income"],
        ),
    ] = None
