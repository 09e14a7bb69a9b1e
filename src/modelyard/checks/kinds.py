"""The kinds of check: which step measures each, and what it has to be given.

Light to import: the planner reads it for every command.
"""

from __future__ import annotations

import msgspec

from modelyard.checks.metrics import METRICS
from modelyard.checks.section import Beats, Gap, Latency, MetricLimit, Parity, Repeatable

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


def _kind(name: str, needs: tuple[str, ...], params: type[msgspec.Struct], about: str) -> Kind:
    return Kind(name=name, verb=f"modelyard.checks.steps:{name}", needs=needs, params=params, about=about)


_METRIC = _kind("metric", ("predictions", "problem"), MetricLimit, "a metric on the test rows, against a limit")

KINDS: dict[str, Kind] = {
    "metric": _METRIC,
    # A metric's own name is a kind as well, as it stands in the file.
    **{
        name: msgspec.structs.replace(_METRIC, name=name, about=metric.about.rstrip("."))
        for name, metric in METRICS.items()
    },
    "beats": _kind(
        "beats",
        ("predictions", "champion_predictions", "train", "problem"),
        Beats,
        "not worse than the champion, and better than a baseline, on the same test rows",
    ),
    "gap": _kind("gap", ("predictions", "problem"), Gap, "the largest difference of a metric between groups"),
    "repeatable": _kind("repeatable", ("repeats",), Repeatable, "training again gives the same model"),
    "parity": _kind("parity", ("parity",), Parity, "the portable model answers as the trained one does"),
    "latency": _kind("latency", ("latency",), Latency, "how long an answer takes, in process"),
}
