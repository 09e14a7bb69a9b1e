"""Whether what a recorded step made is still there: the ledger remembers also what somebody has deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modelyard._kit.errors import NotFound
from modelyard.records import Gone, ModelVersion, TableVersion, read_value
from modelyard.store.base import Store

__all__ = ["gone", "holds"]

# Values whose content stands in the store rather than in the ledger.
_STORED = ("model", "table", "gone")
# What every bundle has; its name stands here again because the reader of bundles is slow to import.
_MODEL = "model.json"


def gone(outputs: Mapping[str, Any], store: Store) -> str:
    """Return why a step's recorded outputs cannot be taken, at a glance; empty if they can.

    The store does not hold them any more, or they say that something was gone then: whether it still is has to be
    looked at again.

    Args:
        outputs: Output name -> plain JSON of the value, as the ledger has it.
        store: Where it should be.
    """
    for raw in _stored(list(outputs.values())):
        value = read_value(raw)
        if isinstance(value, TableVersion) and not store.tables.holds(value):
            return f"table `{value.name}`, which it made, is gone from the store"
        if isinstance(value, ModelVersion) and not holds(value, store):
            return f"model `{value.name}`, which it made, is gone from the store"
        if isinstance(value, Gone):
            return f"the bundle of model `{value.model.name}` was gone, and may be back"
    return ""


def holds(model: ModelVersion, store: Store) -> bool:
    """Say whether a model's bundle is in the store; of a model without one there is nothing to be held."""
    if not model.address:
        return True
    try:
        # An emptied folder is as good as none.
        return (store.blobs.folder(model.address) / _MODEL).is_file()
    except NotFound:
        return False


def _stored(values: list[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _stored(value)
        elif isinstance(value, dict) and value.get("kind") in _STORED:
            yield value
