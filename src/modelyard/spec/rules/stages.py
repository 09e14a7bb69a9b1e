"""What cannot stand in `deploy.stages`."""

from __future__ import annotations

from collections.abc import Iterator

from modelyard.deploy.stages import endpoint_at
from modelyard.spec.declaration import Declaration
from modelyard.spec.report import Finding

__all__ = ["stage_rules"]

# What an endpoint's name may have: it stands in a URL and in a path.
_LONGEST = 63


def stage_rules(d: Declaration) -> Iterator[Finding]:
    """Yield what would do nothing, or cannot be done."""
    model = d.deploy.endpoint or d.project
    first = next(iter(d.deploy.stages), "")
    seen: dict[str, str] = {}
    for name, stage in d.deploy.stages.items():
        at = f"deploy.stages.{name}"
        endpoint = endpoint_at(model, name)
        if len(endpoint) > _LONGEST:
            yield Finding(
                at,
                f"the endpoint of this stage would be `{endpoint}`: {len(endpoint)} characters, {_LONGEST} at most",
                "shorten `deploy.endpoint`, or the name of the stage",
                ("deploy.endpoint", "project"),
            )
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            # A request log is a file, and not every file system tells them apart.
            yield Finding(at, f'the stages "{other}" and "{name}" differ in capitals only', "give one another name")
        if stage.approvals and name == first:
            yield Finding(
                f"{at}.approvals",
                f'"{name}" is the first stage, which gets what `modelyard run` makes: nobody is asked before',
                "put a stage before it, or leave `approvals` out",
                ("deploy.stages",),
            )
        elif stage.four_eyes and not stage.approvals:
            yield Finding(
                f"{at}.four_eyes",
                f'"{name}" asks for no approval, so none of the one who promotes has to be left out',
                "add `approvals: 1`, or leave `four_eyes` out",
                (f"{at}.approvals",),
            )
