"""Where things live: the ledger, the blobs, the tables.

`base.py` says what a store is, `local.py` is the embedded one (SQLite, files, Delta Lake on one machine).
`open_store(project)` opens `.modelyard/` of a project folder and makes it at first use.
"""

from __future__ import annotations

from modelyard.store.base import Appended, Blobs, Fault, Ledger, Part, Store, Tables
from modelyard.store.local import LocalStore, open_store

__all__ = ["Appended", "Blobs", "Fault", "Ledger", "LocalStore", "Part", "Store", "Tables", "open_store"]
