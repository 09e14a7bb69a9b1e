"""Where things live: the ledger, the blobs, the tables.

`base.py` says what a store is, `local.py` is the embedded one (SQLite, files, Delta Lake on one machine), `postgres.py`
the one that machines share. `open_store(project)` opens the one that a project has and makes it at first use.
"""

from __future__ import annotations

from modelyard.store.base import Appended, Blobs, Fault, Held, Ledger, Part, Store, Tables
from modelyard.store.local import LocalStore
from modelyard.store.opening import open_store, store_exists

__all__ = [
    "Appended",
    "Blobs",
    "Fault",
    "Held",
    "Ledger",
    "LocalStore",
    "Part",
    "Store",
    "Tables",
    "open_store",
    "store_exists",
]
