"""Read, complete, check and explain the declaration.

`load` turns `modelyard.yaml` into a `Spec`: text to nodes with lines (`read`), nodes to the sections that the houses
declare (`convert`), and what cannot hold together (`contradict`, `outside`); everything that is wrong is said at once.
`explain` and `json_schema` say what may be written, from the same declarations.
"""

from __future__ import annotations

from modelyard.spec.declaration import Declaration, Owner
from modelyard.spec.explain import Explained, explain, paths
from modelyard.spec.schema import json_schema
from modelyard.spec.spec import FILE, Spec, load

__all__ = ["FILE", "Declaration", "Explained", "Owner", "Spec", "explain", "json_schema", "load", "paths"]
