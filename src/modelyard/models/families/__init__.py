"""The families that compete, one file each; `base.py` says what a family is.

`get` finds one by its name. `logistic` is what people call `linear` when there are classes.
"""

from __future__ import annotations

from functools import cache

from modelyard._kit.errors import NotFound
from modelyard.models.families.base import Family, Setting
from modelyard.models.families.hist_gradient_boosting import HistGradientBoosting
from modelyard.models.families.lightgbm import LightGBM
from modelyard.models.families.linear import Linear
from modelyard.models.families.random_forest import RandomForest

__all__ = ["ALIASES", "Family", "Setting", "get", "names"]

ALIASES = {"logistic": "linear", "ridge": "linear"}


@cache
def _families() -> dict[str, Family]:
    found: list[Family] = [Linear(), LightGBM(), HistGradientBoosting(), RandomForest()]
    return {family.name: family for family in found}


def names() -> list[str]:
    """Return the names of the families, the usually cheapest first."""
    return sorted(_families(), key=lambda name: _families()[name].rank)


def get(name: str) -> Family:
    """Return the family of this name.

    Raises:
        NotFound: There is none.
    """
    try:
        return _families()[ALIASES.get(name, name)]
    except KeyError:
        raise NotFound.of("family", name, [*names(), *ALIASES]) from None
