"""Measure what can answer for a model on this machine, choose the cheapest that meets the limits, record both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.digest import digest_bytes
from modelyard._kit.machine import kind_of_machine
from modelyard.checks.runtimes import Cell, Limits, choose
from modelyard.inference import Bundle, open_bundle
from modelyard.inference.runtimes import about
from modelyard.models.forms import Forms, forms_of
from modelyard.models.runtimes import BATCHES, measure
from modelyard.pipeline.trained import RowsOf, rows_of
from modelyard.records import CheckResult, Decision, Draft, ModelVersion, Runtime, plain
from modelyard.security.keys import signing_key, trusted_keys
from modelyard.security.seal import seal
from modelyard.store.base import Store

if TYPE_CHECKING:
    from modelyard.inference.encode import Feeds

__all__ = ["Measured", "measure_runtimes", "record"]

# Rows that answers are compared on, and that are asked for in turns.
_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Measured:
    """What came out.

    Attributes:
        model: The model.
        cells: Each runtime, with its threads and rows of a prediction.
        runtime: What was chosen; none: nothing meets the limits.
        result: The same as the result of a check.
        files: What it reads and the bundle does not hold.
    """

    model: ModelVersion
    cells: Sequence[Cell]
    runtime: Runtime | None
    result: CheckResult
    files: dict[str, bytes]


def measure_runtimes(
    store: Store,
    model: ModelVersion,
    limits: Limits,
    *,
    seconds: float = 1.0,
    say: Callable[[str], None] = lambda text: None,
    tell: Callable[[Cell], None] = lambda cell: None,
) -> Measured:
    """Measure the runtimes of a model and choose one.

    Args:
        store: Where the model and its rows are.
        model: The model.
        limits: What is asked.
        seconds: How long each cell is timed.
        say: Is told what is done before anything is measured.
        tell: Is told of each cell.

    Raises:
        Tampered: The bundle is not what was signed.
        NotFound: The store does not hold it.
    """
    bundle = open_bundle(store.blobs.folder(model.address), trusted=trusted_keys(store.root), version=model)
    rows = rows_of(store, model)
    if bundle.version.format == "onnx" and rows.train is not None:
        say(f"training {model.family} again on {rows.train.height:,} rows: the bundle holds nothing of its library")
    forms = forms_of(bundle, rows.train, why=rows.why)
    for name, why in forms.left_out.items():
        say(f"{name} is left out: {why}")
    feeds, truth, where = _rows(bundle, rows)
    say(where)
    batches = sorted({*BATCHES, limits.batch})
    cells, evidence = measure(
        bundle, forms, feeds, batches=batches, seconds=seconds, truth=truth, about_rows=where, tell=tell
    )
    evidence = msgspec.structs.replace(evidence, data=rows.tables)
    usual = bundle.runtime.name
    runtime, result = choose(cells, limits, usual=usual, left_out=forms.left_out, evidence=evidence)
    files = _beside(bundle, forms, runtime) if runtime is not None else {}
    return Measured(model, cells, runtime, result, files)


def record(store: Store, measured: Measured, limits: Limits, *, actor: str) -> dict[str, Any]:
    """Keep what the chosen runtime reads, write the decision to the ledger, and return it as plain JSON."""
    runtime, model = measured.runtime, measured.model.digest
    if runtime is not None and measured.files:
        files = seal({**measured.files, **about(model, runtime.name)}, signing_key(store.root))
        address = digest_bytes(files["manifest.json"])
        store.blobs.put_folder(address, files)
        runtime = msgspec.structs.replace(runtime, address=address)
    decision = Decision(model=model, runtime=runtime, forced=limits.name is not None, machine=kind_of_machine())
    payload = {**msgspec.to_builtins(decision), "result": plain(measured.result)}
    store.ledger.append(Draft(kind="runtimes.finished", actor=actor, payload=payload), durable=True)
    return payload


def _beside(bundle: Bundle, forms: Forms, runtime: Runtime) -> dict[str, bytes]:
    """Return what a runtime reads, if the bundle does not hold it."""
    files = forms.files[runtime.name]
    return {} if set(files) <= set(bundle.names) else files


def _rows(bundle: Bundle, rows: RowsOf) -> tuple[Feeds, Any, str]:
    """Return real rows, their truth if it is known, and where they come from."""
    import polars as pl

    from modelyard.models.dataset import encode_target
    from modelyard.models.making import feeds_of
    from modelyard.serving.load.requests import drawn

    if rows.test is not None and rows.test.height:
        some = rows.test.sample(min(_ROWS, rows.test.height), seed=0)
        truth = encode_target(some, bundle.signature.problem)
        return feeds_of(some, bundle.signature), truth, f"{some.height:,} test rows of {rows.run}"
    made = drawn(bundle.signature, bundle.profile, _ROWS)
    schema = {f.name: pl.Float64 if f.type == "number" else pl.String for f in bundle.signature.features}
    frame = pl.DataFrame(made, schema_overrides=schema, strict=False)
    return feeds_of(frame, bundle.signature), None, f"{_ROWS:,} rows drawn by the profile of the model: {rows.why}"
