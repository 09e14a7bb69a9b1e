"""When things happen by themselves: schedules, triggers, alerts, and the daemon behind `modelyard up`.

A trigger (`base`) looks at the world and says which runs are wanted; `fires` writes each down once; the daemon takes
them from the ledger in order and runs them. Nothing that a restart would need is kept anywhere else.
"""

from __future__ import annotations

from modelyard.automation.every import every

__all__ = ["every"]
