"""From a declaration to a plan, from a plan to a run.

`compose` turns a spec into steps, `preview` says what would run and why, `run` runs it: one output key a step, skipping
what the ledger has; `journal` writes its events. `execute` is one step in any process, `executors` say where steps run,
`Flow` builds plans from a user's own functions, and `recompute` makes evidence again to see whether it holds.
"""

from __future__ import annotations

from modelyard.pipeline.flow import Flow, Output
from modelyard.pipeline.journal import Observer
from modelyard.pipeline.preview import Foreseen, preview
from modelyard.pipeline.run import run

__all__ = ["Flow", "Foreseen", "Observer", "Output", "preview", "run"]
