"""What a step gave, as links to the pages that show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from modelyard._kit.text import number
from modelyard.records import Candidate, Card, CheckResult, Deployment, Evidence, ModelVersion, StepRun, TableVersion
from modelyard.web.pages.parts import UNMET, look, measured
from modelyard.web.reader import values_in

__all__ = ["Given", "given_by", "together"]

_MOST_RESULTS = 2


@dataclass(frozen=True, slots=True)
class Given:
    """One value that a step gave, as a link or a few words.

    Attributes:
        output: Name of the output.
        kind: `table`, `model`, `check_result`, `card`, ... or `json`.
        text: What to show.
        href: Where it is shown in full; empty if only on the step's own page.
        status: Status of a check; empty otherwise.
    """

    output: str
    kind: str
    text: str
    href: str = ""
    status: str = ""


def given_by(step: StepRun, run_id: str) -> list[Given]:
    """Return what a step gave, each with the page that shows it."""
    given = [_given(output, value, run_id) for output, value in values_in(step.outputs)]
    # A list of plain JSON is one thing to a reader.
    return list({(one if one.kind != "json" else (one.output, one.kind)): one for one in given}.values())


def _given(output: str, value: Any, run_id: str) -> Given:
    match value:
        case TableVersion():
            return Given(output, "table", f"{value.rows:,} rows", f"/tables/{value.name}/{value.digest}")
        case ModelVersion():
            return Given(output, "model", value.family, f"/models/{value.digest}")
        case CheckResult():
            name = value.check.name
            shown = look(value.check.type, value.status, blocking=value.check.blocking)
            return Given(output, "check_result", name, f"/checks?run={run_id}#check-{name}", shown)
        case Card():
            return Given(output, "card", "model card", f"/cards/{run_id}")
        case Deployment():
            text = f"{value.endpoint}: {value.alias} revision {value.revision}"
            return Given(output, "deployment", text, f"/models/{value.model.digest}")
        case Candidate():
            return Given(output, "candidate", f"{value.family} {number(value.mean) if value.scores else 'is out'}")
        case Evidence():
            return Given(output, "evidence", f"{value.measure} {measured(value.value, value.unit)}")
        case msgspec.Struct():
            return Given(output, str(value.__struct_config__.tag), output)
        case _:
            return Given(output, "json", output)


def together(given: list[Given], step: str, run_id: str) -> list[Given]:
    """Return what a step gave with its results as one link where there are more than a few, as of a data contract."""
    results = [one for one in given if one.kind == "check_result"]
    if len(results) <= _MOST_RESULTS:
        return given
    unmet = sum(one.status in UNMET for one in results)
    aside = sum(one.status == "aside" for one in results)
    text = f"{len(results)} results"
    text += f", {unmet} not met" if unmet else f", {aside} set rows aside" if aside else ""
    status = "failed" if unmet else "aside" if aside else "passed"
    link = Given("results", "check_result", text, f"/checks?run={run_id}&q={quote(step)}", status)
    return [*(one for one in given if one.kind != "check_result"), link]
