"""An Azure Logic Apps workflow that takes our requests and sends mails of them.

Written by Microsoft's reference of the workflow definition language; held by tests against that form, not run live.
"""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.automation.alerts.hook import Hook

__all__ = ["SCHEMA", "hook_schema", "workflow"]

SCHEMA = "https://schema.management.azure.com/providers/Microsoft.Logic/schemas/2016-06-01/workflowdefinition.json#"
# The text comes from errors of all kinds: it is shown as text, whatever it looks like.
_TEXT = "replace(replace(coalesce(triggerBody()?['text'], ''), '&', '&amp;'), '<', '&lt;')"


def hook_schema() -> dict[str, Any]:
    """Return the JSON Schema of the requests that alerts are sent as."""
    made = msgspec.json.schema(Hook)
    inside = made.pop("$defs")
    told = inside["Told"]
    whole = inside["Hook"]
    # Logic Apps knows no references between parts of a schema.
    whole["properties"]["alerts"]["items"] = told
    return dict(_plain(whole))


def workflow() -> dict[str, Any]:
    """Return the definition of the workflow: a request begins it, a mail is sent, and the request is answered.

    The mail goes through the connection `office365` of the resource group; its readers are a parameter.
    """
    mail = {
        "type": "ApiConnection",
        "runAfter": {},
        "inputs": {
            "host": {"connection": {"name": "@parameters('$connections')['office365']['connectionId']"}},
            "method": "post",
            "path": "/v2/Mail",
            "body": {
                "To": "@parameters('readers')",
                "Subject": "@triggerBody()?['title']",
                "Body": f"<pre>@{{{_TEXT}}}</pre>",
                "Importance": "@if(equals(triggerBody()?['urgency'], 'high'), 'High', 'Normal')",
            },
        },
    }
    taken = {"type": "Response", "kind": "Http", "runAfter": {"Send_a_mail": ["Succeeded"]}}
    failed = {"type": "Response", "kind": "Http", "runAfter": {"Send_a_mail": ["Failed", "Skipped", "TimedOut"]}}
    return {
        "$schema": SCHEMA,
        "contentVersion": "1.0.0.0",
        "parameters": {
            "$connections": {"type": "Object", "defaultValue": {}},
            "readers": {"type": "String", "defaultValue": "ml@example.org"},
        },
        "triggers": {
            "When_an_alert_comes": {
                "type": "Request",
                "kind": "Http",
                "inputs": {"method": "POST", "schema": hook_schema()},
            }
        },
        "actions": {
            "Send_a_mail": mail,
            "Say_that_it_was_sent": {**taken, "inputs": {"statusCode": 202}},
            # Anything but 2xx, and we try again.
            "Say_that_it_was_not": {**failed, "inputs": {"statusCode": 502}},
        },
        "outputs": {},
    }


def _plain(node: Any) -> Any:
    """Leave out what editors show and Logic Apps does not need."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: value for key, value in node.items() if key not in ("title", "description", "default")}
    # What stands under `properties` are names of fields, one of which is `title`.
    fields = {name: _plain(field) for name, field in kept.pop("properties", {}).items()}
    return {key: _plain(value) for key, value in kept.items()} | ({"properties": fields} if fields else {})
