"""The steps of this house: one plain function a kind of check, the measurements that cards show, and the gate."""

from __future__ import annotations

from modelyard.checks.beats import beats
from modelyard.checks.curves import curves
from modelyard.checks.gap import gap
from modelyard.checks.gate import gate
from modelyard.checks.groups import rates
from modelyard.checks.latency import latency
from modelyard.checks.limit import metric
from modelyard.checks.parity import parity
from modelyard.checks.repeatable import repeatable

__all__ = ["beats", "curves", "gap", "gate", "latency", "metric", "parity", "rates", "repeatable"]
