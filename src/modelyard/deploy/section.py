"""The `deploy` section: under which name the model answers, and who may ask."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from modelyard._kit.fields import Name, Section
from modelyard.security.roles import ROLES, allowed

__all__ = ["Access", "Deploy"]

_Asking = Annotated[str, Meta(extra_json_schema={"enum": [role for role in ROLES if allowed(role, "infer")]})]


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
    access: Annotated[
        Access, Meta(description="Who may ask for predictions, and how often.", examples=[{"per_minute": 600}])
    ] = Access()
