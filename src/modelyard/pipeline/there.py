"""Whether what a recorded step made is still there: the ledger remembers also what somebody has deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelyard._kit.errors import NotFound
from modelyard.records import ModelVersion, TableVersion, read_value
from modelyard.store.base import Store

__all__ = ["Gone", "gone"]


@dataclass(frozen=True, slots=True)
class Gone:
    """A model of which the ledger knows and the store holds nothing any more.

    A step that can do without it says so by its annotation: `model: Bundle | Gone`.

    Attributes:
        version: The model.
    """

    version: ModelVersion


# Values whose content stands in the store rather than in the ledger.
_STORED = ("model", "table")


def gone(outputs: Mapping[str, Any], store: Store) -> str:
    """Return what of a step's outputs the store does not hold any more, at a glance; empty if it holds all.

    Args:
        outputs: Output name -> plain JSON of the value, as the ledger has it.
        store: Where it should be.
    """
    for raw in _stored(list(outputs.values())):
        value = read_value(raw)
        if isinstance(value, TableVersion) and not store.tables.holds(value):
            return f"table `{value.name}`"
        if isinstance(value, ModelVersion) and value.address:
            try:
                store.blobs.folder(value.address)
            except NotFound:
                return f"model `{value.name}`"
    return ""


def _stored(values: list[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _stored(value)
        elif isinstance(value, dict) and value.get("kind") in _STORED:
            yield value
