"""The kinds of check: which step measures each, and what it has to be given.

Light to import: the planner reads it for every command.
"""

from __future__ import annotations

import msgspec

from modelyard.checks.metrics import METRICS
from modelyard.checks.section import CLAIMS, MetricLimit

__all__ = ["KINDS", "Kind"]


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of check.

    Attributes:
        name: Its name, which is the `type` of its checks.
        verb: Dotted path of the step; it takes what the kind needs by name, and `check` and `seed`.
        needs: What the step has to be given, among `predictions`, `champion_predictions`, `train`, `test`,
            `problem`, `model`, `parity`, `repeats` and `latency`.
        params: Type of its settings in the file.
        about: What it claims, in one line.
    """

    name: str
    verb: str
    needs: tuple[str, ...]
    params: type[msgspec.Struct] | None = None
    about: str = ""


# Kind -> what its step has to be given; what it claims and its settings stand in `section`.
_NEEDS: dict[str, tuple[str, ...]] = {
    "beats": ("predictions", "champion_predictions", "train", "problem"),
    "gap": ("predictions", "problem"),
    "repeatable": ("repeats",),
    "parity": ("parity",),
    "latency": ("latency",),
}
_METRIC = Kind(
    name="metric",
    verb="modelyard.checks.steps:metric",
    needs=("predictions", "problem"),
    params=MetricLimit,
    about="a metric on the test rows, against a limit",
)


def _kind(name: str) -> Kind:
    params, about, _ = CLAIMS[name]
    if name in METRICS:
        # A metric's own name is a kind as well, as it stands in the file.
        return msgspec.structs.replace(_METRIC, name=name, about=METRICS[name].about.rstrip("."))
    claim = f"{about[:1].lower()}{about[1:].rstrip('.')}"
    return Kind(name=name, verb=f"modelyard.checks.steps:{name}", needs=_NEEDS[name], params=params, about=claim)


KINDS: dict[str, Kind] = {"metric": _METRIC, **{name: _kind(name) for name in CLAIMS}}
