"""The `deploy` section: under which name the model answers, who may ask, and what is refused or held back."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from modelyard._kit.fields import Column, Duration, Label, Name, OpenShare, Section, Share
from modelyard.deploy.rollout import Rollout
from modelyard.security.roles import ROLES, allowed

__all__ = [
    "Access",
    "Alarm",
    "Confidence",
    "Deploy",
    "Extraction",
    "Guards",
    "Oidc",
    "Outlier",
    "OutputCheck",
    "Requests",
    "Traces",
    "Within",
]

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
        Meta(description="Requests that one token may make in a minute. Left out, there is no limit.", examples=[600]),
    ] = None
    per_day: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="Requests that one caller may make in a day (UTC). Left out, there is no limit. The count "
            "begins anew when the server does.",
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
            "in the order of the certificate, joined by commas.",
            examples=[{"CN=scoring-job,O=Example": "analyst"}],
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


class Outlier(Section, frozen=True, kw_only=True):
    """Rows that are unlike those the model was made from."""

    score: Annotated[
        OpenShare,
        Meta(
            description="A row is an outlier if its score lies above this. At 0.99 about one row in a hundred of "
            "those that the model was made from is.",
            examples=[0.999],
        ),
    ] = 0.999
    do: Annotated[
        Literal["warn", "reject", "quarantine"],
        Meta(
            description="What becomes of it: a warning, a refusal, or the fallback as the answer and a log of its own.",
            examples=["quarantine"],
        ),
    ] = "warn"


class Confidence(Section, frozen=True, kw_only=True):
    """What a classifier answers when it is not sure."""

    at_least: Annotated[OpenShare, Meta(description="Probability that the answered class must have.", examples=[0.6])]
    otherwise: Annotated[
        Literal["abstain", "fallback"],
        Meta(description="What is answered below it: no label, or `deploy.guards.fallback`.", examples=["abstain"]),
    ] = field(name="else", default="abstain")


class Within(Section, frozen=True, kw_only=True):
    """Between which values a regression answers."""

    low: Annotated[float | None, Meta(description="Lowest answer.", examples=[0])] = None
    high: Annotated[float | None, Meta(description="Highest answer.", examples=[80])] = None
    do: Annotated[
        Literal["clip", "abstain", "fallback"],
        Meta(
            description="What becomes of an answer outside: the nearest value inside, no answer, or "
            "`deploy.guards.fallback`.",
            examples=["clip"],
        ),
    ] = "clip"


class OutputCheck(Section, frozen=True, kw_only=True):
    """A look at the answers before anybody gets them."""

    use: Annotated[
        str,
        Meta(
            pattern=r"^([A-Za-z][A-Za-z0-9_-]{0,62}|[^:]+\.py:[A-Za-z_][A-Za-z0-9_]*)\Z",
            description="Which: `blocklist`, `labels` or `unusual`; one that an installed package brings, by its name; "
            "or a function of the project, FILE.py:FUNCTION.",
            examples=["unusual", "guards.py:harmful"],
            extra_json_schema={"say": "a name, or a file and a function: FILE.py:FUNCTION"},
        ),
    ]
    params: Annotated[
        dict[str, Any],
        Meta(description="Parameter of the check -> value.", examples=[{"terms": ["idiot"]}]),
    ] = field(default_factory=dict)
    do: Annotated[
        Literal["warn", "abstain", "fallback"],
        Meta(
            description="What becomes of an answer that it marks: a warning beside it, no answer, or "
            "`deploy.guards.fallback`.",
            examples=["fallback"],
        ),
    ] = "abstain"
    above: Annotated[
        float,
        Meta(
            description="Score from above which an answer is marked, where the check gives scores.",
            examples=[0.8],
        ),
    ] = 0.5
    timeout: Annotated[
        Duration,
        Meta(
            description="Time that it may take for the rows that are answered together; built-in ones are not timed.",
            examples=["20ms"],
        ),
    ] = 0.05
    on_error: Annotated[
        Literal["abstain", "accept"] | None,
        Meta(
            description="What becomes of rows that it could not look at, for it failed or took too long. Left out, "
            "they are treated as marked; with `do: warn` they are accepted.",
            examples=["accept"],
        ),
    ] = None


class Extraction(Section, frozen=True, kw_only=True):
    """Callers that ask as if they copied the model."""

    score: Annotated[
        OpenShare,
        Meta(
            description="Score of a caller's newest rows, from 0 (as usual) to 1, above which it is suspected.",
            examples=[0.3],
        ),
    ] = 0.3
    do: Annotated[
        Literal["warn", "limit"],
        Meta(
            description="What becomes of it: a line in the logs and a count, or besides these no answers for an hour.",
            examples=["limit"],
        ),
    ] = "warn"


class Alarm(Section, frozen=True, kw_only=True):
    """When so many rows are refused or held back that somebody should look."""

    share: Annotated[Share, Meta(description="Part of the rows that may be.", examples=["5%"])] = 0.05
    window: Annotated[Duration, Meta(description="Time that is looked back over.", examples=["5m"])] = 300.0
    then: Annotated[
        Literal["tell", "kill"],
        Meta(
            description="What is done then: those in `alerts` are told, or besides that the endpoint is switched off "
            "until somebody runs `modelyard revive`.",
            examples=["kill"],
        ),
    ] = "tell"


class Guards(Section, frozen=True, kw_only=True):
    """What is refused, changed or held back on the way to the model and from it."""

    unseen: Annotated[
        Literal["warn", "reject"],
        Meta(description="What becomes of a category that was not seen in training.", examples=["reject"]),
    ] = "warn"
    out_of_range: Annotated[
        Literal["warn", "reject", "clip"],
        Meta(
            description="What becomes of a number outside the range seen in training; `clip` gives the model the "
            "nearest one inside, and says so.",
            examples=["clip"],
        ),
    ] = "warn"
    missing: Annotated[
        Literal["accept", "warn", "reject"],
        Meta(
            description="What becomes of a missing value in a column that may miss values; in others it is refused.",
            examples=["warn"],
        ),
    ] = "accept"
    outlier: Annotated[
        Outlier | None,
        Meta(description="What becomes of rows unlike those the model was made from.", examples=[{"do": "reject"}]),
    ] = None
    coerce: Annotated[
        tuple[Column, ...],
        Meta(
            description='Columns in which a text is taken as the number it shows (`"42"`), and a number as the text '
            "it is written as. Elsewhere the wrong type is refused.",
            examples=[["age"]],
        ),
    ] = ()
    confidence: Annotated[
        Confidence | None,
        Meta(description="What a classifier answers when it is not sure.", examples=[{"at_least": 0.6}]),
    ] = None
    within: Annotated[
        Within | None,
        Meta(description="Between which values a regression answers.", examples=[{"low": 0, "high": 80}]),
    ] = None
    fallback: Annotated[
        Label | None,
        Meta(
            description="What is answered in place of an answer that is held back: a class, or a number.",
            examples=["review"],
        ),
    ] = None
    checks: Annotated[
        tuple[OutputCheck, ...],
        Meta(
            description="Looks at the answers before anybody gets them, for harmful or irrelevant ones.",
            examples=[[{"use": "guards.py:harmful", "do": "fallback"}]],
        ),
    ] = ()
    extraction: Annotated[
        Extraction | None,
        Meta(
            description="What becomes of callers that ask as if they copied the model.",
            examples=[{"do": "limit"}],
        ),
    ] = None
    alarm: Annotated[
        Alarm | None,
        Meta(
            description="When so many rows are refused or held back that those in `alerts` are told.",
            examples=[{"share": "5%", "window": "5m"}],
        ),
    ] = None


class Requests(Section, frozen=True, kw_only=True):
    """What is kept of the requests that are answered."""

    sample: Annotated[
        Share,
        Meta(
            description="Share of the requests that is kept, drawn by their ids; what is held back by a guard is kept "
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
    rollout: Annotated[
        Rollout,
        Meta(
            description="How a challenger is tried before it becomes the champion.",
            examples=[{"canary": "10%", "watch": "1h"}],
        ),
    ] = Rollout()
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
