"""The steps of a plan that make tables: from the sources to the rows that a model learns from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from modelyard.records import Resources, Step

if TYPE_CHECKING:
    from modelyard.spec import Spec

__all__ = ["data_steps", "features_step"]


def data_steps(spec: Spec) -> list[Step]:
    """Return the steps that load the tables and hold them against their contracts."""
    steps = [_guard(spec)] if spec.data else []
    for name, source in spec.data.items():
        reading = msgspec.to_builtins(source)
        rules, bad_rows = reading.pop("contract"), reading.pop("bad_rows")
        for asked in ("fresh_within", "volume"):
            del reading[asked]
        steps.append(
            Step(
                name=f"load.{name}",
                verb="modelyard.data.steps:load",
                params={"source": reading, "types": {c: r["type"] for c, r in rules.items() if r.get("type")}},
                outputs=("table",),
                after=("guard",),
                probe="modelyard.data.sources:probe",
                # Files are read here; whatever else has an address is read by a library's source, from elsewhere.
                resources=Resources(network=any("://" in address for address in source.from_)),
                about=f"read what is new in {', '.join(source.from_)}",
            )
        )
        steps.append(
            Step(
                name=f"contract.{name}",
                verb="modelyard.data.steps:contract",
                inputs={"table": f"load.{name}"},
                params={
                    "name": name,
                    "rules": rules,
                    "key": list(source.key),
                    "cursor": source.cursor,
                    "bad_rows": bad_rows,
                },
                outputs=("accepted", "quarantine", "results"),
                measures=True,
                about=f"hold {name} against its contract, put bad rows aside",
            )
        )
    return steps


def _guard(spec: Spec) -> Step:
    """Return stage zero: it looks at every source before anything is paid for."""
    asked = ("from", "cursor", "fresh_within", "volume", "delimiter", "null_values", "comment", "columns")
    sources = {}
    for name, source in spec.data.items():
        written = msgspec.to_builtins(source)
        kind = written["contract"].get(source.cursor, {}).get("type")
        sources[name] = {field: written[field] for field in asked} | {"type": kind}
    return Step(
        name="guard",
        verb="modelyard.data.steps:guard",
        params={"sources": sources},
        outputs=("results",),
        probe="modelyard.data.guard:guard_probe",
        about="are the sources there, new enough and large enough",
    )


def features_step(spec: Spec) -> Step:
    """Return the step that makes the model's table, of the accepted rows and of what own steps feed."""
    tables = {name: f"contract.{name}#accepted" for name in spec.data}
    tables |= {step.feeds: name for name, step in spec.steps.items() if step.feeds}
    return Step(
        name="features",
        verb="modelyard.data.steps:features",
        inputs={"tables": list(tables.values())},
        params={"names": list(tables), "function": spec.features or ""},
        outputs=("table",),
        probe="modelyard.data.features:features_probe",
        about=spec.features or "the accepted rows as they are",
    )
