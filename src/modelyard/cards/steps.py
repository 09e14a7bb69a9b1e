"""The step of this house: evidence into a card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelyard.cards.build import build

if TYPE_CHECKING:
    from modelyard.inference import Bundle
    from modelyard.records import Card, CheckResult, Evidence, Problem

__all__ = ["card"]


def card(
    *,
    project: dict[str, Any],
    human: dict[str, Any],
    model: Bundle,
    problem: Problem,
    selection: CheckResult | Evidence,
    results: list[Any],
    contracts: list[Any] | tuple[Any, ...] = (),
    rates: Evidence | None = None,
    curves: Evidence | None = None,
    importances: Evidence | None = None,
    tables: list[dict[str, Any]] | tuple[dict[str, Any], ...] = (),
    split: dict[str, Any] | None = None,
) -> Card:
    """Return the model card: nine sections, each number with its evidence; see `cards.build.build`."""
    return build(
        project=project,
        human=human,
        model=model,
        problem=problem,
        selection=selection,
        results=results,
        contracts=contracts,
        rates=rates,
        curves=curves,
        importances=importances,
        tables=tables,
        split=split,
    )
