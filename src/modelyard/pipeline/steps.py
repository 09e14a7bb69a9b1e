"""The few steps that join houses: which model to compare with, and that comparison's predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.errors import ModelError
from modelyard.records import Gone, ModelVersion, TableVersion, read_value

if TYPE_CHECKING:
    import polars as pl

    from modelyard.inference import Bundle

__all__ = ["champion", "evaluate_champion", "facts"]


def champion(*, model: ModelVersion, endpoint: str, state: dict[str, Any]) -> ModelVersion | None:
    """Return the model that the new one is compared with, as its probe saw it; none for a first model."""
    other = read_value(state["champion"])
    assert other is None or isinstance(other, ModelVersion)  # noqa: S101 - the probe wrote it
    return other


def evaluate_champion(
    *,
    model: Bundle | Gone | None,
    table: pl.LazyFrame,
    keep: list[str],
    candidate: ModelVersion | None = None,
    endpoint: str = "",
    state: dict[str, Any] | None = None,
) -> pl.DataFrame | Gone | None:
    """Return the champion's predictions on the rows the new model is tested on; none while there is no champion.

    A champion whose bundle somebody has deleted answers nothing, and no run brings it back: that it is gone is what
    comes out, with what the probe saw of its place.

    Raises:
        ModelError: The champion needs a column that the features do not make any more.
    """
    from modelyard.models.steps import evaluate

    if model is None:
        return None
    if isinstance(model, Gone):
        return msgspec.structs.replace(model, replaced=bool(state and state["unkeyed"]["replaced"]))
    try:
        return evaluate(model=model, table=table, keep=keep)
    except ModelError as error:
        raise ModelError(
            "champion-cannot-answer",
            f"the champion cannot answer the new test rows: {error.problem.message}",
            where="checks.beats",
            hint="keep what it needs in the features, or set `beats: {champion: false}` for the run that replaces it",
        ) from error


def facts(*, tables: list[TableVersion]) -> list[dict[str, Any]]:
    """Return what a card says of each table: name, rows, digest, columns with their types."""
    return [
        {
            "name": table.name,
            "rows": table.rows,
            "digest": table.digest,
            "columns": [{"name": c.name, "type": c.type} for c in table.columns],
        }
        for table in tables
    ]
