"""Which step of one run is held against which of another: of a partitioned step each run may have another period."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from modelyard.pipeline.partitions import MARK

__all__ = ["counterpart", "same_reference", "unperioded"]

_PERIOD = re.compile(rf"{MARK}\d{{4}}-\d\d(-\d\d(T\d\d)?)?(?=#|$)")


def unperioded(name: str) -> str:
    """Return the name of a step, or of one of its outputs, with the kind of its period instead of the period.

    >>> unperioded("clean@2026-11-20#rows"), unperioded("clean@north")
    ('clean@0000-00-00#rows', 'clean@north')
    """
    return _PERIOD.sub(lambda found: re.sub(r"\d", "0", found[0]), name)


def same_reference(one: str | list[str] | None, other: str | list[str] | None) -> bool:
    """Say whether two inputs come from the same steps, whatever their periods."""
    if isinstance(one, str) and isinstance(other, str):
        return unperioded(one) == unperioded(other)
    if isinstance(one, list) and isinstance(other, list):
        return [*map(unperioded, one)] == [*map(unperioded, other)]
    return one == other


def counterpart(name: str, before: Sequence[str], now: Collection[str]) -> str:
    """Return the step of an earlier run that a step is held against: its own name, or that of another period.

    Args:
        name: The step.
        before: Steps of the earlier run, in their order.
        now: Steps of the run that has it.

    >>> counterpart("clean@2026-11-21", ["clean@2026-11-20", "clean@north"], ["clean@2026-11-21"])
    'clean@2026-11-20'
    """
    if name in before:
        return name
    # One that both runs have is held against itself.
    alike = [one for one in before if one not in now and unperioded(one) == unperioded(name)]
    return alike[-1] if alike else name
