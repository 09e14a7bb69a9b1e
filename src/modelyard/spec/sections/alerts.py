"""The `alerts` and `mail` sections: who is told what, when, and through which mail server."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal

from msgspec import Meta, field

from modelyard._kit.fields import Duration, Label, Name, Section, Texts

__all__ = ["DEFAULT_ON", "KINDS", "Escalate", "Mail", "Told"]

# What a target may be told of -> when.
KINDS = {
    "start": "a run begins",
    "stage": "a step has run or failed",
    "success": "a run succeeded",
    "failure": "a run failed, or its process died",
    "stuck": "a step takes much longer than it usually does",
    "stale": "a run was skipped because its data are too old",
    "budget": "a run was stopped because its budget is spent",
    "drift": "live requests moved too far from the training data",
    "guards": "more answers are refused or held back than `deploy.guards.alarm` allows",
    "anomaly": "training went on although something in it is wrong",
    "recovered": "a trouble that was told of is over",
}
DEFAULT_ON = ("failure", "stuck", "stale", "budget", "drift", "guards", "anomaly", "recovered")

_ADDRESS = (
    "`mailto:` and addresses with commas between them; `https://` for a signed JSON request; any address that Apprise "
    "takes (`slack://`, `tgram://`, `ntfy://`, ...). `env:NAME` and `file:PATH` read it from a variable or a file: an "
    "address that holds a secret may stand nowhere else."
)
_To = Annotated[Label, Meta(min_length=1)]


class Escalate(Section, frozen=True, kw_only=True):
    """What happens when nobody acknowledges an urgent alert."""

    after: Annotated[
        Duration,
        Meta(description="How long an alert of high urgency waits for `modelyard alerts ack`.", examples=["30m"]),
    ]
    to: Annotated[
        _To,
        Meta(
            description="Who is told then: the `name` of another target, or an address.",
            examples=["mailto:boss@example.org"],
        ),
    ]


class Told(Section, frozen=True, kw_only=True):
    """One target and what it is told."""

    to: Annotated[_To, Meta(description=f"Where messages go: {_ADDRESS}", examples=["mailto:ml@example.org"])]
    name: Annotated[
        Name | None,
        Meta(
            description="What commands, pages and records call it; they never show the address. Left out, it is made "
            "of the kind of address and its host, or of the variable's name.",
            examples=["ml-team"],
        ),
    ] = None
    secret: Annotated[
        str | None,
        Meta(
            description="For `http(s)://`: where the secret is that requests are signed with, as Standard Webhooks "
            "says: `env:NAME` or `file:PATH`.",
            examples=["env:ML_HOOK_SECRET"],
        ),
    ] = None
    private: Annotated[
        bool,
        Meta(
            description="For `http(s)://`: whether the host's name may lead to a private address. An address that is "
            "written as a number, and `localhost`, may in any case.",
            examples=[True],
        ),
    ] = False
    on: Annotated[
        tuple[Annotated[str, Meta(extra_json_schema={"enum": list(KINDS)})], ...],
        Meta(
            description="What it is told of: " + "; ".join(f"`{name}`: {when}" for name, when in KINDS.items()) + ".",
            examples=[["start", "success", "failure"]],
            min_length=1,
            extra_json_schema={"form": "texts"},
        ),
    ] = DEFAULT_ON
    stages: Annotated[
        Texts,
        Meta(
            description="Steps that `stage` is about, by name or with `*`. Left out, all of them.",
            examples=[["select", "check.*"]],
            min_length=1,
        ),
    ] = ()
    at_least: Annotated[
        Literal["low", "normal", "high"],
        Meta(
            description="Least urgency that is told. `start`, `stage` and `success` are low; a failure, a lost "
            "process, a stuck step and the alarm of the guards are high; all else is normal.",
            examples=["normal"],
        ),
    ] = "low"
    quiet: Annotated[
        Texts,
        Meta(
            description="Windows of the week in which only high urgency is sent; all else waits for their end.",
            examples=["22:00-07:00", ["Mon-Fri 20:00-07:00", "Sat-Sun"]],
        ),
    ] = ()
    zone: Annotated[
        str | None,
        Meta(
            description="Time zone of `quiet`. Left out, it is that of the first `schedule`, or of the machine.",
            examples=["Europe/Berlin"],
        ),
    ] = None
    digest: Annotated[
        Duration | None,
        Meta(
            description="Gather what is low or normal into one message, at most one in this time. High urgency is sent "
            "at once.",
            examples=["1h"],
        ),
    ] = None
    repeat: Annotated[
        Duration,
        Meta(
            description="The same trouble is told again only after this time, unless it was over meanwhile.",
            examples=["6h"],
        ),
    ] = 6 * 3600.0
    escalate: Annotated[
        Escalate | None,
        Meta(
            description="Who is told of an alert of high urgency that nobody has acknowledged.",
            examples=[{"after": "30m", "to": "mailto:boss@example.org"}],
        ),
    ] = None


class Mail(Section, frozen=True, kw_only=True):
    """The mail server that `mailto:` goes through."""

    host: Annotated[
        str,
        Meta(description="Name of the server. Left out, the relay of this machine.", examples=["smtp.example.org"]),
    ] = "localhost"
    port: Annotated[
        Annotated[int, Meta(ge=1, le=65535)] | None,
        Meta(
            description="Its port. Left out, 25 for this machine's relay, 465 for `tls: direct`, else 587.",
            examples=[587],
        ),
    ] = None
    tls: Annotated[
        Literal["starttls", "direct", "none"] | None,
        Meta(
            description="How the connection is encrypted; the certificate is checked. Left out, `none` for this "
            "machine's relay, `direct` on port 465, else `starttls`.",
            examples=["starttls"],
        ),
    ] = None
    user: Annotated[
        str | None,
        Meta(
            description="Who signs in. The password is in the variable MODELYARD_SMTP_PASSWORD; without a user nobody "
            "signs in.",
            examples=["ml@example.org"],
        ),
    ] = None
    from_: Annotated[
        str | None,
        Meta(
            description="Sender of the mails. Left out, it is `user` if that is an address, else `modelyard@` and the "
            "name of the machine.",
            examples=["ml@example.org"],
        ),
    ] = field(name="from", default=None)

    @property
    def local(self) -> bool:
        """Whether it is a relay on this machine, so that nothing crosses a network."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def encryption(self) -> Literal["starttls", "direct", "none"]:
        """How the connection is encrypted."""
        if self.tls is not None:
            return self.tls
        if self.port == 465:
            return "direct"
        return "none" if self.local else "starttls"

    @property
    def at_port(self) -> int:
        """The port that is asked."""
        if self.port is not None:
            return self.port
        if self.encryption == "direct":
            return 465
        return 25 if self.local else 587
