"""Output keys: the digest of everything a step's result depends on."""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard._kit.digest import digest_of
from modelyard.records import Step, identity, read_value

__all__ = ["Key", "output_key"]


class Key(msgspec.Struct, frozen=True):
    """An output key and what it was made of, so that a change can be explained.

    Attributes:
        digest: The key.
        made_of: Ingredient -> digest: `code`, `params`, `environment`, `state`, `fire` where it counts, and one
            `input.NAME` an input.
    """

    digest: str
    made_of: dict[str, str]

    def explain(self, before: dict[str, str]) -> str:
        """Say which ingredients differ from those of an earlier key, e.g. `parameters changed`."""
        words = {
            "code": "code",
            "params": "parameters",
            "environment": "environment",
            "state": "the outside world",
            "fire": "what fired it",
        }
        changed = [
            words.get(name, f"input `{name.removeprefix('input.')}`")
            for name in {**before, **self.made_of}
            if before.get(name) != self.made_of.get(name)
        ]
        return f"{' and '.join(changed)} changed" if changed else "never finished"


def output_key(step: Step, *, code: str, inputs: dict[str, Any], state: Any, environment: str, fire: str = "") -> Key:
    """Return the key of a step.

    Args:
        step: The step. Its name is part of the key: what it stores is kept under that name.
        code: Digest of the code, see `code_version`.
        inputs: Parameter -> plain JSON of the value.
        state: What the probe saw, without its `unkeyed` part.
        environment: Digest of the environment.
        fire: Id of the fire, for a function that asks for it: it runs once a fire, however often that is resumed.
    """
    made_of = {
        "code": digest_of([step.name, step.verb, code]),
        "params": digest_of([step.params, step.outputs]),
        "environment": environment,
        "state": digest_of(state),
    }
    if fire:
        made_of["fire"] = digest_of(fire)
    for name in sorted(inputs):
        made_of[f"input.{name}"] = identity(read_value(inputs[name]))
    return Key(digest_of(made_of), made_of)
