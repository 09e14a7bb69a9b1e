"""The `logs` section: for how long lines stay, and who else gets them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta

from modelyard._kit.fields import Duration, Label, Section, Size
from modelyard.logs.files import KEEP_BYTES, KEEP_SECONDS

__all__ = ["Logs", "is_safe"]

# What is wrong with them is said by a rule that does not show them: they may hold a secret.
_Sink = Annotated[Label, Meta(min_length=1)]
_Place = Annotated[Label, Meta(min_length=1)]


class Logs(Section, frozen=True, kw_only=True):
    """What becomes of what steps and servers print and log."""

    keep: Annotated[
        Duration,
        Meta(description="Age at which lines are deleted, day by day.", examples=["90d"]),
    ] = KEEP_SECONDS
    size: Annotated[
        Size,
        Meta(
            description="Bytes of all lines together above which the oldest are deleted.",
            examples=["5GB"],
        ),
    ] = KEEP_BYTES
    to: Annotated[
        tuple[_Sink, ...],
        Meta(
            description="Who else gets each line, and each event of the ledger: addresses that take lines of JSON by "
            "POST, the system's log (`syslog`, or the socket of one), `env:NAME` and `file:PATH` for an address that "
            "holds a secret. What cannot be handed over waits in the files for as long as they stay, and nothing waits "
            "for it.",
            examples=[["https://logs.example.org/in", "syslog"]],
            extra_json_schema={"form": "texts"},
        ),
    ] = ()
    token: Annotated[
        _Place | None,
        Meta(
            description="Where the bearer token for the addresses is: `env:NAME` or `file:PATH`. Left out, there is "
            "none.",
            examples=["env:LOGS_TOKEN"],
        ),
    ] = None


def is_safe(address: str) -> bool:
    """Say whether nobody on the way to an address can read what is sent there."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    try:
        here = ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and here))
