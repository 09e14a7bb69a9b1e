"""Read-only pages over a project's store, on this machine.

`create_app(store)` is the site: `pages/` holds one module a noun, `reader.py` is what they may see of the store,
`guard.py` what every answer carries, `templates/` and `static/` what it looks like. `python -m modelyard.web --project
DIR` serves it; nothing here writes to the store, runs a step or calls out.
"""

from __future__ import annotations

from modelyard.web.app import create_app
from modelyard.web.reader import Reader

__all__ = ["Reader", "create_app"]
