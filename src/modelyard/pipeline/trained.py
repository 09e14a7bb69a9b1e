"""The rows that a model was trained and tested on, by the run that made it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard._kit.digest import short
from modelyard._kit.errors import NotFound, Tampered
from modelyard.pipeline.recompute import plan_of
from modelyard.records import ModelVersion, Run, TableVersion, read_value
from modelyard.store import Store

if TYPE_CHECKING:
    import polars as pl

__all__ = ["RowsOf", "rows_of"]

_FIT = "modelyard.models.steps:fit"


@dataclass(frozen=True, slots=True)
class RowsOf:
    """The rows of a model.

    Attributes:
        train: Those that it was trained on; none: they are not there any more.
        test: Those that it was tested on; none likewise.
        run: The run that made it; empty: no run is known.
        tables: Digests of the tables that are there.
        why: Why something is missing; empty if nothing is.
    """

    train: pl.DataFrame | None = None
    test: pl.DataFrame | None = None
    run: str = ""
    tables: tuple[str, ...] = ()
    why: str = ""


def rows_of(store: Store, model: ModelVersion) -> RowsOf:
    """Return the rows that a model was trained and tested on, as far as the store has them."""
    run = _made_by(store, model)
    if run is None:
        return RowsOf(why=f"no run of this project made {short(model.digest)}")
    try:
        step = next(one for one in plan_of(run, store).steps if one.verb == _FIT)
        versions = [read_value(run[str(step.inputs[name])]) for name in ("table", "holdout")]
        train, test = (store.tables.read(one).collect() for one in versions)
    except (NotFound, Tampered, OSError, StopIteration, KeyError) as error:
        said = error.problem.message if isinstance(error, NotFound | Tampered) else str(error)
        return RowsOf(run=run.id, why=f"the rows of {run.id} are not there any more ({said})")
    return RowsOf(train, test, run.id, tuple(one.digest for one in versions if isinstance(one, TableVersion)))


def _made_by(store: Store, model: ModelVersion) -> Run | None:
    for event in store.ledger.events(kinds=("step.finished",)):
        if event.step == "fit" and any(_is(value, model) for value in event.payload["outputs"].values()):
            return store.ledger.run(event.run)
    return None


def _is(value: object, model: ModelVersion) -> bool:
    found = read_value(value)
    return isinstance(found, ModelVersion) and found.digest == model.digest
