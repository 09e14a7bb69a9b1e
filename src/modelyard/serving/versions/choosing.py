"""Which version an operator asks for by name, in the header `x-model`."""

from __future__ import annotations

from modelyard.security.roles import allowed
from modelyard.serving.errors import HttpError, bad, named
from modelyard.serving.http.exchange import Exchange

__all__ = ["HEADER", "check_alone", "chosen"]

HEADER = b"x-model"
_NAMES = ("champion", "challenger")


def chosen(exchange: Exchange) -> str:
    """Return `champion` or `challenger` where an operator asks for one; empty where nobody does.

    Raises:
        HttpError: The header names neither (`rollout-model`), or who asks may not choose (`role-denied`): an answer of
            another version than was asked for would be taken for its own.
    """
    asked = exchange.headers.get(HEADER, b"")
    if not asked:
        return ""
    name = asked.decode("latin-1").lower()
    if name not in _NAMES:
        raise named("rollout-model", f"`x-model` is `champion` or `challenger`, not `{name[:60]}`", name, _NAMES)
    # The same whether one is on trial or not: who may not choose learns nothing of it.
    if not allowed(exchange.role, "operate"):
        message = f"the role `{exchange.role}` may not choose a version by `x-model`; leave the header out"
        raise HttpError(403, "role-denied", message)
    return name


def check_alone(exchange: Exchange) -> None:
    """Refuse a request for the challenger where none takes part: it would be answered by another than was asked for.

    Raises:
        HttpError: It asks for it, or for what is neither of the two (`rollout-model`), or who asks may not choose
            (`role-denied`).
    """
    if chosen(exchange) == "challenger" and not exchange.version:
        raise bad("rollout-model", "`x-model` asks for the challenger, and none answers requests at the moment")
