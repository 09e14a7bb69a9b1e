"""Typed clients of an endpoint, made of its description: Python of the standard library alone, and TypeScript.

What calls stands in a template beside this file (`client.py.txt`, `client.ts.txt`); what differs from endpoint to
endpoint, its types, is written by `python` and `typescript`. Column names stay as they are, as keys: no name is
cleaned, so none can collide with another.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

from modelyard.serving.contract.clients import python, typescript
from modelyard.serving.contract.clients.names import module_name

__all__ = ["LANGUAGES", "client_files"]

LANGUAGES = ("python", "typescript")


def client_files(document: dict[str, Any], language: str) -> dict[str, str]:
    """Return the files of a client by name, the client itself first; the same description gives the same text.

    Args:
        document: The description of the endpoint.
        language: One of `LANGUAGES`.
    """
    endpoint = document["info"]["title"]
    if language == "python":
        folder = f"{module_name(endpoint)}_client"
        return {
            f"{folder}/__init__.py": _filled("client.py.txt", document, python.types, repr),
            f"{folder}/py.typed": "",
        }
    return {f"{endpoint}-client.ts": _filled("client.ts.txt", document, typescript.types, typescript.literal)}


def _filled(
    template: str, document: dict[str, Any], types: Callable[[dict[str, Any]], str], literal: Callable[[str], str]
) -> str:
    text = files(__name__).joinpath(template).read_text(encoding="utf-8")
    info = document["info"]
    for mark, value in (
        ("@ENDPOINT@", literal(info["title"])),
        ("@VERSION@", literal(info["version"])),
        ("@NAME@", info["title"]),
        ("@DIGEST@", info["version"]),
        # The types may hold anything, also what looks like a mark: they come last.
        ("@TYPES@", types(document)),
    ):
        text = text.replace(mark, value)
    return text
