"""What versions of a model counted that are gone: it is told on, since no counter may go back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from modelyard._kit.digest import short
from modelyard.serving.board import Told
from modelyard.serving.observability.metrics import told_of

if TYPE_CHECKING:
    from modelyard.serving.service import Service

__all__ = ["Retired"]

# Versions that are still told of by themselves; what those before them counted stands under one label.
_NAMED = 8
_OLDER = "older"


class Retired:
    """Counts of the versions that are gone."""

    def __init__(self) -> None:
        # (name, version) -> what it counted; the last to go is the last.
        self._told: dict[tuple[str, str], Told] = {}
        self._older = Told()

    def __iter__(self) -> Iterator[Told]:
        """Yield what they counted."""
        yield self._older
        yield from self._told.values()

    def add(self, service: Service, living: Iterable[Service], other: Counter[tuple[str, str, str, int]]) -> None:
        """Keep what a version counted that goes.

        Args:
            service: The version.
            living: Those that stay: what one of them counted in an earlier life keeps its label.
            other: Refusals by path, model, version and status; they take the label of their version.
        """
        told = self._told.pop(_label(service), Told())
        told.add(told_of(service), dead=True)
        self._told[_label(service)] = told
        stay = {_label(one) for one in living}
        for key in [key for key in self._told if key not in stay][:-_NAMED]:
            self._fold(*key, other)

    def _fold(self, name: str, version: str, other: Counter[tuple[str, str, str, int]]) -> None:
        told = self._told.pop((name, version))
        was, now = f'version="{version}"', f'version="{_OLDER}"'
        for family in told.families:
            family.samples = {key.replace(was, now): value for key, value in family.samples.items()}
        self._older.add(told)
        for key in [key for key in other if key[1:3] == (name, version)]:
            other[key[0], name, _OLDER, key[3]] += other.pop(key)


def _label(service: Service) -> tuple[str, str]:
    return service.endpoint, short(service.version.digest)
