"""When things happen by themselves.

`every` repeats an action at a fixed interval without overlap; schedules, triggers and alerts join it here.
"""

from __future__ import annotations

from modelyard.automation.every import every

__all__ = ["every"]
