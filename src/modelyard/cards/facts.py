"""Facts: numbers copied out of records by path, so that each can be found again where it came from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from modelyard._kit.digest import digest_of
from modelyard.records import CheckResult, Evidence, Fact, ModelVersion, Value

__all__ = ["NOWHERE", "Book", "Source", "as_fact", "look_up", "to_json"]

# What `look_up` returns where nothing stands; `None` is a value.
NOWHERE: Any = object()


def to_json(value: Any) -> Any:
    """Return a value as the plain JSON that a store would give back: no tuples, no `nan`."""
    return msgspec.json.decode(msgspec.json.encode(value))


def as_fact(value: Any) -> float | int | str | None:
    """Return a value as a fact shows it: truth as `yes` or `no`, lists and mappings as text.

    >>> as_fact(True), as_fact(["a", "b"]), as_fact({"sex": "Female", "race": "Black"}), as_fact(0.5)
    ('yes', 'a, b', 'sex = Female, race = Black', 0.5)
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, int | str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {as_fact(item)}" for key, item in value.items())
    return ", ".join(str(as_fact(item)) for item in value)


def look_up(record: Any, path: str) -> Any:
    """Return what stands at a path such as `details.groups.3.fpr`, or `NOWHERE`.

    A key may hold dots itself (`details.capital.gain`): the shortest key that leads on is taken.

    >>> look_up({"details": {"a.b": [1, {"c": 2}]}}, "details.a.b.1.c")
    2
    """
    return _walk(record, path.split(".")) if path else record


def _walk(node: Any, parts: list[str]) -> Any:
    if not parts:
        return node
    if isinstance(node, list | tuple):
        if not parts[0].isdecimal() or int(parts[0]) >= len(node):
            return NOWHERE
        return _walk(node[int(parts[0])], parts[1:])
    if not isinstance(node, Mapping):
        return NOWHERE
    for count in range(1, len(parts) + 1):
        key = ".".join(parts[:count])
        if key in node:
            found = _walk(node[key], parts[count:])
            if found is not NOWHERE:
                return found
    return NOWHERE


@dataclass(frozen=True, slots=True)
class Source:
    """A record that facts are copied from.

    Attributes:
        digest: What stands for it.
        record: The record as plain JSON.
    """

    digest: str
    record: dict[str, Any]

    def get(self, path: str, default: Any = None) -> Any:
        """Return what stands at the path, or the default."""
        found = look_up(self.record, path)
        return default if found is NOWHERE else found

    def has(self, path: str) -> bool:
        """Say whether anything but nothing stands at the path."""
        return self.get(path) is not None

    def fact(self, label: str, path: str, unit: str = "") -> Fact:
        """Copy what stands at the path.

        Raises:
            KeyError: Nothing stands there.
        """
        found = look_up(self.record, path)
        if found is NOWHERE:
            raise KeyError(f"{path} of {self.digest}")
        return Fact(label=label, value=as_fact(found), unit=unit, evidence=self.digest, path=path)


@dataclass(frozen=True, slots=True)
class Book:
    """The records that a card stands on, by digest, as they go into the card."""

    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, value: Evidence | ModelVersion) -> Source:
        """Take in a value under its own digest."""
        digest = value.digest if isinstance(value, ModelVersion) else value.identity
        return self._keep(digest, value)

    def result(self, result: CheckResult) -> tuple[Source, Source]:
        """Take in a result and its evidence; the result names its evidence by digest.

        Returns:
            The result (status, reason, limit) and its evidence (what was measured).
        """
        evidence = self.add(result.evidence)
        record = {**to_json(result), "evidence": evidence.digest}
        return self._keep(result.identity, record), evidence

    def note(self, kind: str, facts: Mapping[str, Any], digest: str = "") -> Source:
        """Take in plain facts (of a table, of a split); without a digest of their own they get one.

        Tables of equal content have an equal digest and still their own names: the second gets that of its facts.
        """
        record = {"kind": kind, **to_json(dict(facts))}
        if not digest or self.records.get(digest, record) != record:
            digest = digest_of(record)
        return self._keep(digest, record)

    def _keep(self, digest: str, value: Value | dict[str, Any]) -> Source:
        if digest not in self.records:
            self.records[digest] = to_json(value)
        return Source(digest, self.records[digest])
