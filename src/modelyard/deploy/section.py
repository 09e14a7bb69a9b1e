"""The `deploy` section: under which name the model answers, who may ask, and what is refused or held back."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from modelyard._kit.fields import Column, Name, Section, Share, Texts
from modelyard.deploy.guards import Guards
from modelyard.deploy.rollout import Rollout
from modelyard.deploy.runtime import RuntimeLimits
from modelyard.deploy.stages import Stage
from modelyard.security.roles import ROLES, allowed

__all__ = ["Access", "Deploy", "Oidc", "Requests", "Traces"]

_Asking = Annotated[str, Meta(extra_json_schema={"enum": [role for role in ROLES if allowed(role, "infer")]})]


_Origin = Annotated[
    str,
    Meta(
        pattern=r"^https?://[A-Za-z0-9.:\[\]-]+\Z",
        extra_json_schema={"say": "an origin: https:// and a host, without a path"},
    ),
]
_Role = Annotated[str, Meta(extra_json_schema={"enum": list(ROLES)})]


class Oidc(Section, frozen=True, kw_only=True):
    """Tokens of an identity provider."""

    issuer: Annotated[
        str,
        Meta(
            description="Address of the provider, as it stands in the claim `iss`; its keys are found by OIDC "
            "discovery. `https`, or `http` on this machine.",
            examples=["https://login.example.org/realms/ml"],
        ),
    ]
    audience: Annotated[
        str, Meta(description="What must stand in the claim `aud`.", examples=["income-model"], min_length=1)
    ]
    role_claim: Annotated[
        str,
        Meta(
            description="Claim that holds a role or a list of them; dots lead into objects.",
            examples=["realm_access.roles"],
            min_length=1,
        ),
    ] = "roles"
    roles: Annotated[
        dict[str, _Role],
        Meta(
            description="Value of the claim -> role here. Left out, values are the names of roles.",
            examples=[{"ml-users": "analyst"}],
        ),
    ] = field(default_factory=dict)


class Access(Section, frozen=True, kw_only=True):
    """Who may ask for predictions, and how often."""

    roles: Annotated[
        tuple[_Asking, ...],
        Meta(
            description="Roles whose tokens may ask for predictions, of those that may at all. Left out, all of them.",
            examples=[["analyst"]],
        ),
    ] = ()
    per_minute: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="Requests for predictions that one token may make in a minute, and as many that tell outcomes. "
            "Left out, there is no limit.",
            examples=[600],
        ),
    ] = None
    per_day: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="Rows that one caller may ask about in a day (UTC), in however many requests. Left out, there "
            "is no limit. The count begins anew when the server does.",
            examples=[20000],
        ),
    ] = None
    oidc: Annotated[
        Oidc | None,
        Meta(
            description="Identity provider whose tokens (JWT) are taken beside those of the project.",
            examples=[{"issuer": "https://login.example.org", "audience": "income-model"}],
        ),
    ] = None
    certificates: Annotated[
        dict[str, _Role],
        Meta(
            description="Subject of a client certificate -> role, for a server with `--client-ca`. The parts stand "
            "in the order of the certificate, joined by commas; a comma within a part has a backslash before it.",
            examples=[{"CN=scoring-job,O=Example": "analyst"}, {"CN=scoring-job,O=Example\\, Ltd": "analyst"}],
        ),
    ] = field(default_factory=dict)
    cors: Annotated[
        tuple[_Origin, ...],
        Meta(
            description="Origins whose pages may ask from a browser. Left out, none may.",
            examples=[["https://app.example.org"]],
        ),
    ] = ()
    log: Annotated[
        Literal["off", "errors", "all"],
        Meta(
            description="Which requests get a line in the logs, with caller, route, status and time: those that were "
            "refused, all, or none. Never a body or a token.",
            examples=["all"],
        ),
    ] = "errors"
    metrics: Annotated[
        Literal["operate", "loopback"],
        Meta(
            description="Who may read `/metrics`: roles that may operate, or besides them anybody on the same machine.",
            examples=["loopback"],
        ),
    ] = "operate"
    show: Annotated[
        dict[
            _Asking,
            Annotated[
                str,
                Meta(
                    pattern=r"^(label|rounded\([0-9]\))\Z",
                    extra_json_schema={"say": "`label`, or `rounded(DIGITS)`"},
                ),
            ],
        ],
        Meta(
            description="How much of an answer a role sees: `label` without probabilities, or numbers rounded to so "
            "many digits. The log keeps them whole.",
            examples=[{"analyst": "rounded(2)"}],
        ),
    ] = field(default_factory=dict)


class Requests(Section, frozen=True, kw_only=True):
    """What is kept of the requests that are answered."""

    sample: Annotated[
        Share,
        Meta(
            description="Share of the requests that is kept, drawn by lot; what is held back by a guard is kept "
            "in any case. Only of what is kept can drift be seen, or an outcome joined.",
            examples=["10%"],
        ),
    ] = 1.0
    redact: Annotated[
        tuple[Column, ...],
        Meta(
            description="Columns whose values are never written down. The model gets them; their drift is not watched.",
            examples=[["postcode"]],
        ),
    ] = ()


class Traces(Section, frozen=True, kw_only=True):
    """Spans of requests for OpenTelemetry."""

    to: Annotated[
        str,
        Meta(
            description="Address of a collector that takes OTLP over HTTP; spans go to `/v1/traces` there.",
            examples=["http://127.0.0.1:4318"],
            pattern=r"^https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?\Z",
            extra_json_schema={"say": "an address: https://, a host and perhaps a path"},
        ),
    ]
    sample: Annotated[
        Share,
        Meta(
            description="Share of the requests that is traced. Of one that comes with a `traceparent` the caller has "
            "decided.",
            examples=["1%"],
        ),
    ] = 0.01


class Deploy(Section, frozen=True, kw_only=True):
    """Where the model answers."""

    endpoint: Annotated[
        Name | None,
        Meta(
            description="Name of the endpoint, as it stands in the URL; the aliases champion and challenger belong to "
            "it. Left out, it is the name of the project.",
            examples=["income"],
        ),
    ] = None
    stages: Annotated[
        dict[Name, Stage],
        Meta(
            description="What a model passes through, lowest first; each is an endpoint of its own, ENDPOINT-STAGE. "
            "`modelyard run` puts its model into the first, `modelyard promote --to STAGE` takes it on. Left out, "
            "there is the one endpoint.",
            examples=[{"dev": {}, "staging": {"approvals": 1}, "prod": {"approvals": 2}}],
            min_length=1,
        ),
    ] = field(default_factory=dict)
    rollout: Annotated[
        Rollout,
        Meta(
            description="How a challenger is tried before it becomes the champion, and a new champion is watched.",
            examples=[{"canary": "10%", "watch": "1h"}],
        ),
    ] = Rollout()
    runtime: Annotated[
        RuntimeLimits | None,
        Meta(
            description="What has to hold for what answers for the model, or its name alone. `modelyard runtimes` "
            "measures what there is on this machine and chooses the cheapest for which it holds.",
            examples=["onnxruntime", {"p99": "5ms", "memory": "200MB", "max_loss": "0.5%"}],
            extra_json_schema={"form": "short", "short": "name"},
        ),
    ] = None
    consumers: Annotated[
        Texts,
        Meta(
            description="Contract files of those who call the endpoint (`modelyard contract init`), by name or "
            "pattern. A new version that breaks a promise of one of them stops the run.",
            examples=[["contracts/*.yaml"]],
        ),
    ] = ()
    access: Annotated[
        Access, Meta(description="Who may ask for predictions, and how often.", examples=[{"per_minute": 600}])
    ] = Access()
    guards: Annotated[
        Guards | None,
        Meta(
            description="What is refused, changed or held back on the way to the model and from it. Left out, unusual "
            "values are answered with a warning.",
            examples=[{"out_of_range": "clip"}],
        ),
    ] = None
    requests: Annotated[
        Requests,
        Meta(
            description="What is kept of the requests that are answered. Left out, all of all.",
            examples=[{"redact": ["postcode"]}],
        ),
    ] = Requests()
    traces: Annotated[
        Traces | None,
        Meta(
            description="Where a span of OpenTelemetry goes for each request that is traced; never a value of a row. "
            "Left out, nowhere.",
            examples=[{"to": "http://127.0.0.1:4318", "sample": "1%"}],
        ),
    ] = None
