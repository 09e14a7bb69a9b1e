"""The workflow for Azure Logic Apps: held against the form of its definition language, and against what we send."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from modelyard.automation.alerts.logicapp import SCHEMA, hook_schema, workflow
from modelyard.automation.alerts.sender import Sender
from modelyard.cli.main import main
from modelyard.spec import Spec
from modelyard.store import LocalStore

# The form of a definition, by Microsoft's reference of the workflow definition language, of the parts that we use:
# https://learn.microsoft.com/azure/logic-apps/logic-apps-workflow-definition-language
NAME = {"pattern": "^[A-Za-z0-9_ ()-]{1,80}$"}
STATUS = {"enum": ["Succeeded", "Failed", "Skipped", "TimedOut"]}
ACTION = {
    "type": "object",
    "required": ["type", "inputs", "runAfter"],
    "properties": {
        "type": {"enum": ["ApiConnection", "Response"]},
        "kind": {"enum": ["Http"]},
        "runAfter": {"type": "object", "additionalProperties": {"type": "array", "items": STATUS, "minItems": 1}},
    },
    "additionalProperties": False,
    "allOf": [
        {
            "if": {"properties": {"type": {"const": "ApiConnection"}}},
            "then": {
                "properties": {
                    "inputs": {
                        "required": ["host", "method", "path"],
                        "properties": {
                            "host": {"required": ["connection"]},
                            "method": {"enum": ["get", "post", "put", "patch", "delete"]},
                            "path": {"pattern": "^/"},
                        },
                    }
                }
            },
            "else": {
                "properties": {
                    "inputs": {
                        "required": ["statusCode"],
                        "properties": {"statusCode": {"type": "integer", "minimum": 200, "maximum": 599}},
                    }
                }
            },
        }
    ],
}
ACTION["properties"]["inputs"] = {"type": "object"}  # type: ignore[index]
DEFINITION = {
    "type": "object",
    "required": ["$schema", "contentVersion", "triggers", "actions"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"const": SCHEMA},
        "contentVersion": {"pattern": r"^\d+\.\d+\.\d+\.\d+$"},
        "parameters": {
            "type": "object",
            "additionalProperties": {
                "required": ["type"],
                "properties": {"type": {"enum": ["String", "Object", "Int", "Bool", "Array", "SecureString"]}},
            },
        },
        "triggers": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 10,
            "propertyNames": NAME,
            "additionalProperties": {
                "required": ["type", "kind", "inputs"],
                "properties": {
                    "type": {"const": "Request"},
                    "kind": {"const": "Http"},
                    "inputs": {
                        "required": ["schema"],
                        "properties": {"method": {"enum": ["GET", "POST", "PUT", "PATCH", "DELETE"]}},
                    },
                },
            },
        },
        "actions": {"type": "object", "propertyNames": NAME, "additionalProperties": ACTION},
        "outputs": {"type": "object"},
    },
}


def test_the_workflow_has_the_form_of_a_definition() -> None:
    made = workflow()
    jsonschema.Draft202012Validator(DEFINITION).validate(made)
    (trigger,) = made["triggers"].values()
    jsonschema.Draft7Validator.check_schema(trigger["inputs"]["schema"])
    # Every action runs after one that is there, and one begins.
    names = set(made["actions"])
    after = [set(action["runAfter"]) for action in made["actions"].values()]
    assert all(one <= names for one in after)
    assert set() in after


def test_what_the_workflow_reads_is_what_it_is_sent() -> None:
    text = json.dumps(workflow())
    read = set(re.findall(r"triggerBody\(\)\?\['(\w+)'\]", text))
    assert read
    assert read <= set(hook_schema()["required"])
    assert set(re.findall(r"parameters\('([$\w]+)'\)", text)) <= set(workflow()["parameters"])


@pytest.mark.parametrize("digest", ["", "digest: 1h, "])
def test_a_workflow_takes_what_we_send(
    project: Callable[..., Spec], store: LocalStore, story: Any, web: Any, clock: Any, digest: str
) -> None:
    spec = project(f"alerts: [{{to: '{web.address}', {digest}on: [start, stage, success]}}]")
    there = Sender(spec, store, clock=clock)
    story.succeed()
    clock.pass_(3700)
    there.drain()
    clock.pass_(3700)
    there.drain()
    bodies = web.bodies()
    assert [len(body["alerts"]) for body in bodies] == ([3] if digest else [0, 0, 0])
    closed = hook_schema() | {"additionalProperties": False}
    for body in bodies:
        jsonschema.Draft7Validator(closed).validate(body)


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["alerts", "logicapp"]) == 0
    assert json.loads(capsys.readouterr().out) == workflow()
