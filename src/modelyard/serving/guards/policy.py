"""What a server is told of guards, access and requests in `deploy`: one JSON text, decided on once at the start.

The fields have the names and defaults of the file (`deploy/section.py`); a test holds both together.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from modelyard._kit.errors import ServeError
from modelyard.security.roles import Role

__all__ = [
    "Access",
    "Alarm",
    "Confidence",
    "Extraction",
    "Guarded",
    "Oidc",
    "Outlier",
    "OutputCheck",
    "Policy",
    "Requests",
    "Traced",
    "Within",
    "digits_of",
    "read_policy",
]

_ROUNDED = re.compile(r"rounded\(([0-9])\)")


class _Told(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the policy."""


class Outlier(_Told, frozen=True, kw_only=True):
    """See `deploy.guards.outlier`."""

    score: float = 0.999
    do: Literal["warn", "reject", "quarantine"] = "warn"


class Confidence(_Told, frozen=True, kw_only=True):
    """See `deploy.guards.confidence`."""

    at_least: float
    otherwise: Literal["abstain", "fallback"] = msgspec.field(name="else", default="abstain")


class Within(_Told, frozen=True, kw_only=True):
    """See `deploy.guards.within`."""

    low: float | None = None
    high: float | None = None
    do: Literal["clip", "abstain", "fallback"] = "clip"


class OutputCheck(_Told, frozen=True, kw_only=True):
    """See `deploy.guards.checks`."""

    use: str
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    do: Literal["warn", "abstain", "fallback"] = "abstain"
    above: float = 0.5
    timeout: float = 0.05
    on_error: Literal["abstain", "accept"] | None = None

    @property
    def name(self) -> str:
        """What callers and counters call it; never a path."""
        return self.use.rpartition(":")[2]


class Extraction(_Told, frozen=True, kw_only=True):
    """See `deploy.guards.extraction`."""

    score: float = 0.3
    do: Literal["warn", "limit"] = "warn"


class Alarm(_Told, frozen=True, kw_only=True):
    """See `deploy.guards.alarm`."""

    share: float = 0.05
    window: float = 300.0
    then: Literal["tell", "kill"] = "tell"


class Guarded(_Told, frozen=True, kw_only=True):
    """See `deploy.guards`."""

    unseen: Literal["warn", "reject"] = "warn"
    out_of_range: Literal["warn", "reject", "clip"] = "warn"
    missing: Literal["accept", "warn", "reject"] = "accept"
    outlier: Outlier | None = None
    coerce: tuple[str, ...] = ()
    confidence: Confidence | None = None
    within: Within | None = None
    fallback: str | None = None
    checks: tuple[OutputCheck, ...] = ()
    extraction: Extraction | None = None
    alarm: Alarm | None = None

    @property
    def uses_fallback(self) -> bool:
        """Whether something here answers with the fallback."""
        held = self.outlier is not None and self.outlier.do == "quarantine"
        unsure = self.confidence is not None and self.confidence.otherwise == "fallback"
        outside = self.within is not None and self.within.do == "fallback"
        return held or unsure or outside or any(check.do == "fallback" for check in self.checks)


class Oidc(_Told, frozen=True, kw_only=True):
    """See `deploy.access.oidc`."""

    issuer: str
    audience: str
    role_claim: str = "roles"
    roles: dict[str, Role] = msgspec.field(default_factory=dict)


class Access(_Told, frozen=True, kw_only=True):
    """See `deploy.access`, without what has a flag of its own."""

    log: Literal["off", "errors", "all"] = "errors"
    metrics: Literal["operate", "loopback"] = "operate"
    show: dict[str, str] = msgspec.field(default_factory=dict)
    per_day: int | None = None
    oidc: Oidc | None = None
    certificates: dict[str, Role] = msgspec.field(default_factory=dict)
    cors: tuple[str, ...] = ()


class Requests(_Told, frozen=True, kw_only=True):
    """See `deploy.requests`."""

    sample: float = 1.0
    redact: tuple[str, ...] = ()


class Traced(_Told, frozen=True, kw_only=True):
    """See `deploy.traces`."""

    to: str
    sample: float = 0.01


class Policy(_Told, frozen=True, kw_only=True):
    """What a server is told.

    Attributes:
        guards: What is refused, changed or held back; none: unusual values are answered with a warning.
        access: Who may ask, and what of it is written down.
        requests: What is kept of the requests that are answered.
        traces: Where spans of requests go; none: nowhere.
        project: Folder that the paths of checks begin at.
    """

    guards: Guarded | None = None
    access: Access = Access()
    requests: Requests = Requests()
    traces: Traced | None = None
    project: str = ""

    def shared(self, processes: int) -> Policy:
        """Return the policy of one of so many processes: what a caller may ask for in a day is shared out."""
        if self.access.per_day is None:
            return self
        access = msgspec.structs.replace(self.access, per_day=-(-self.access.per_day // processes))
        return msgspec.structs.replace(self, access=access)


def read_policy(text: str, project: Path = Path()) -> Policy:
    """Return the policy of a JSON text; an empty one has the defaults.

    Args:
        text: The JSON.
        project: Folder of the project.

    Raises:
        ServeError: It is none (`policy-unusable`).
    """
    if not text:
        return Policy()
    try:
        policy = msgspec.json.decode(text, type=Policy)
    except msgspec.DecodeError as error:
        raise ServeError(
            "policy-unusable",
            f"`--policy` cannot be used: {error}",
            hint="write `deploy` in modelyard.yaml and let `modelyard serve` start the server",
        ) from None
    for shown in policy.access.show.values():
        digits_of(shown)
    return msgspec.structs.replace(policy, project=str(project.resolve()))


def digits_of(shown: str) -> int | None:
    """Return the digits that numbers are rounded to; none: only the label is shown.

    Raises:
        ServeError: It is neither (`policy-unusable`).
    """
    rounded = _ROUNDED.fullmatch(shown)
    if rounded is None and shown != "label":
        raise ServeError("policy-unusable", f"`{shown}` is no way to show an answer", hint="`label` or `rounded(2)`")
    return int(rounded[1]) if rounded else None
