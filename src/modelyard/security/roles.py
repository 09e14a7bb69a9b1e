"""What each role may do: one small table, and whatever does not stand in it is refused."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["MATRIX", "ROLES", "Action", "Role", "allowed"]

Role = Literal["viewer", "analyst", "operator", "admin"]
Action = Literal["read", "infer", "operate"]

ROLES: tuple[Role, ...] = get_args(Role)

# Action -> the roles that may do it.
MATRIX: dict[Action, frozenset[Role]] = {
    "read": frozenset({"viewer", "analyst", "operator", "admin"}),  # metadata of the server and its models
    "infer": frozenset({"analyst", "operator", "admin"}),  # ask the model
    "operate": frozenset({"operator", "admin"}),  # see the server's own counters, unload and load models
}


def allowed(role: str, action: str) -> bool:
    """Say whether a role may do an action; an unknown role or action may nothing.

    >>> allowed("viewer", "read"), allowed("viewer", "infer"), allowed("admin", "fly")
    (True, False, False)
    """
    return role in MATRIX.get(action, ())  # type: ignore[call-overload]
