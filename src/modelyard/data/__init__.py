"""Where rows come from and what must hold of them: sources, incremental loads, contracts, features, splits.

`guard` looks whether the sources are worth a run, `sources` lists files by content, `csvlines` and `readers` open them,
`types` says what a value may be read as, `loading` makes new parts of a table, `contract` holds a table against its
rules in one pass, `features` runs the user's function, `splits` divides rows; `steps` are the plain functions of a
plan.
"""

from __future__ import annotations

from modelyard.data.base import Item, Opened, Options, Source

__all__ = ["Item", "Opened", "Options", "Source"]
