"""A contract file to begin with: what the endpoint does today, of which a consumer keeps what it relies on."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["contract_text", "file_name"]

_HEAD = """\
# What `{consumer}` relies on. Keep the parts of the answer that it reads, and take out the rest:
# `modelyard contract check FILE` fails once one of them is not as it says here.
"""


def file_name(consumer: str) -> str:
    """Return a name for the file of a consumer."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", consumer).strip("-.") or "consumer"


def contract_text(consumer: str, document: dict[str, Any]) -> str:
    """Return a contract file in YAML.

    Args:
        consumer: Who relies on it.
        document: The description of the endpoint.
    """
    import yaml

    asked = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    contract = {
        "consumer": consumer,
        "endpoint": document["info"]["title"],
        "interactions": [
            {"name": "ask for one row", "request": asked, "answer": {"status": 200, "fields": _fields(document)}}
        ],
    }
    text = yaml.safe_dump(contract, sort_keys=False, allow_unicode=True, width=120)
    return _HEAD.format(consumer=re.sub(r"\s+", " ", consumer)) + text


def _fields(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document["components"]["schemas"]
    properties = schemas["Prediction"]["properties"]
    fields: dict[str, Any] = {"/id": {"type": "string"}}
    if "value" in properties:
        fields["/predictions/*/value"] = {"type": "number"}
    else:
        fields["/predictions/*/label"] = {"one_of": schemas["Value"]["enum"]}
        # A role may see the label alone, and so may whoever is given a fallback.
        shown = "probabilities" in schemas["Prediction"].get("required", ())
        for name in properties["probabilities"]["properties"] if shown else ():
            part = name.replace("~", "~0").replace("/", "~1")
            fields[f"/predictions/*/probabilities/{part}"] = {"between": [0, 1]}
    return fields
