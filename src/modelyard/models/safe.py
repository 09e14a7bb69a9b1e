"""Write a scikit-learn estimator in the safe format of skops, with equal bytes for equal estimators.

skops names every object by its address in memory and dates the files of its archive; both differ in every process.
"""

from __future__ import annotations

import io
import zipfile
from typing import Any

import msgspec

__all__ = ["skops_bytes"]

_SCHEMA = "schema.json"
# The earliest date a zip archive knows.
_DATE = (1980, 1, 1, 0, 0, 0)


def skops_bytes(estimator: Any) -> bytes:
    """Return an estimator as skops writes it, with objects numbered in the order of the file."""
    from skops.io import dumps

    with zipfile.ZipFile(io.BytesIO(dumps(estimator))) as source:
        numbers: dict[int, int] = {}
        schema = _numbered(msgspec.json.decode(source.read(_SCHEMA)), numbers)
        files = {_renamed(name, numbers): source.read(name) for name in source.namelist() if name != _SCHEMA}
    files[_SCHEMA] = msgspec.json.encode(schema)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _DATE), files[name], zipfile.ZIP_DEFLATED)
    return target.getvalue()


def _numbered(node: Any, numbers: dict[int, int]) -> Any:
    """Give objects the numbers 1, 2, 3, ... in the order in which they appear; one object keeps one number."""
    if isinstance(node, list):
        return [_numbered(item, numbers) for item in node]
    if not isinstance(node, dict):
        return node
    if isinstance(address := node.get("__id__"), int):
        numbers.setdefault(address, len(numbers) + 1)
    found = {name: _numbered(value, numbers) for name, value in node.items()}
    if isinstance(address, int):
        found["__id__"] = numbers[address]
        if isinstance(node.get("file"), str):
            found["file"] = _renamed(node["file"], numbers)
    return found


def _renamed(name: str, numbers: dict[int, int]) -> str:
    stem, dot, ending = name.partition(".")
    return f"{numbers[int(stem)]}{dot}{ending}" if stem.isdigit() and int(stem) in numbers else name
