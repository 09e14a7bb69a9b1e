"""Who is told of what, and when: targets, urgency, quiet hours, digests, escalation."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from fnmatch import fnmatchcase
from pathlib import Path

from modelyard._kit.times import Windows, windows, zone
from modelyard.automation.alerts.happening import Happening
from modelyard.records import Urgency
from modelyard.spec import Spec
from modelyard.spec.sections.addresses import names, source_of
from modelyard.spec.sections.alerts import Told

__all__ = ["Target", "here", "targets", "unset"]

_ORDER: tuple[Urgency, ...] = ("low", "normal", "high")
_LOCALTIME = Path("/etc/localtime")


@dataclass(frozen=True, slots=True)
class Target:
    """One target.

    Attributes:
        name: What everybody calls it.
        told: What the file says of it.
        quiet: Windows in which only high urgency is sent.
        further: Name of the target that is told of what nobody acknowledged; empty: none.
        after: Seconds until then.
        asked: Whether it is told of what happens; not if it is told of escalations only.
    """

    name: str
    told: Told
    quiet: Windows | None = None
    further: str = ""
    after: float = math.inf
    asked: bool = True

    def wants(self, happening: Happening) -> bool:
        """Say whether it is to be told."""
        told = self.told
        if happening.on == "recovered":
            # Whoever heard of the trouble hears that it is over.
            return "recovered" in told.on
        if not self.asked or happening.on not in told.on:
            return False
        if _ORDER.index(happening.urgency) < _ORDER.index(told.at_least):
            return False
        return happening.on != "stage" or not told.stages or any(fnmatchcase(happening.step, s) for s in told.stages)

    def due(self, urgency: Urgency, now: float) -> tuple[float, bool]:
        """Return when a message may be sent that is written down now, and whether it may share one with others."""
        if urgency == "high":
            return now, False
        every = self.told.digest
        due = (math.floor(now / every) + 1) * every if every else now
        if self.quiet is not None and self.quiet.contains(due):
            due = self.quiet.next_change(due)
        return due, bool(every)


def targets(spec: Spec) -> dict[str, Target]:
    """Return the targets of a declaration by name, those that only escalations go to included."""
    called = names(spec.alerts)
    found: dict[str, Target] = {}
    only: dict[str, Target] = {}
    for name, told in zip(called, spec.alerts, strict=True):
        quiet = windows(told.quiet, _zone(told, spec)) if told.quiet else None
        target = Target(name=name, told=told, quiet=quiet)
        if told.escalate is not None:
            further = told.escalate.to
            if further not in called:
                further = f"{name}.further"
                only[further] = Target(name=further, told=Told(to=told.escalate.to), asked=False)
            target = replace(target, further=further, after=told.escalate.after)
        found[name] = target
    return found | only


def unset(spec: Spec) -> list[tuple[str, str]]:
    """Return the targets whose address is not where the file says it is, and what is missing."""
    missing = []
    for name, target in targets(spec).items():
        source = source_of(target.told.to)
        if source is None:
            continue
        kind, where = source
        if kind == "env" and not os.environ.get(where, "").strip():
            missing.append((name, f"the variable {where} is not set"))
        elif kind == "file" and not (spec.root / Path(where).expanduser()).is_file():
            missing.append((name, "the file with its address is not there"))
    return missing


def here() -> tzinfo:
    """Return the time zone of this machine, with its clock changes where they can be known."""
    import zoneinfo

    name = os.environ.get("TZ", "").lstrip(":")
    try:
        if name:
            return zoneinfo.ZoneInfo(name)
        with _LOCALTIME.open("rb") as file:
            return zoneinfo.ZoneInfo.from_file(file)
    except (OSError, ValueError, KeyError):
        fixed = datetime.now().astimezone().tzinfo
        assert fixed is not None  # noqa: S101 - astimezone gives one
        return fixed


def _zone(told: Told, spec: Spec) -> tzinfo:
    name = told.zone or next((schedule.zone for schedule in spec.schedule), "")
    return zone(name) if name else here()
