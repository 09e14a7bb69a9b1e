"""This machine as a target: the process that serves a deployment, `python -m modelyard.serving`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from modelyard.deploy.aliases import trace_of
from modelyard.deploy.rollout import Rollout
from modelyard.deploy.section import Access, Deploy, Requests
from modelyard.records import Deployment
from modelyard.store.base import Store
from modelyard.store.local import LOCAL

__all__ = ["command", "policy_of"]

# Fields that have a flag of their own.
_FLAGS = ("roles", "per_minute")


def command(
    store: Store,
    deployment: Deployment,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    roles: Sequence[str] = (),
    per_minute: int = 0,
    processes: int = 1,
    declared: Deploy | None = None,
    apart: Path | None = None,
) -> list[str]:
    """Return the command line that serves a deployment, and follows its alias from then on.

    Args:
        store: Store that holds the bundle.
        deployment: What to serve.
        host: Address to listen on.
        port: Port.
        roles: Roles that may ask for predictions; none named means all that may.
        per_minute: Requests that one token may make in a minute; 0 means any number.
        processes: Processes that share the port.
        declared: The section of the file: its guards, and the rest of its access.
        apart: Folder with keys, tokens and the request log of a server that is only tried: it follows no alias, and
            no caller has a budget or comes from a provider.

    Raises:
        NotFound: The store does not hold the bundle.
    """
    folder = store.blobs.folder(deployment.model.address)
    # -P: a file called like a library in the folder of the project is not imported.
    line = [sys.executable, "-P", "-m", "modelyard.serving"]
    line += ["--bundle", str(folder), "--project", str(apart or store.root), "--endpoint", deployment.endpoint]
    if apart is None:
        line += ["--follow", deployment.alias]
        if store.address != LOCAL:
            line += ["--store", store.address]
    elif declared is not None:
        declared = _without_budget(declared)
    line += ["--host", host, "--port", str(port)]
    if trace := trace_of(store, deployment):
        line += ["--trace", trace]
    for role in roles:
        line += ["--role", role]
    if per_minute:
        line += ["--per-minute", str(per_minute)]
    if processes > 1:
        line += ["--processes", str(processes)]
    if declared is not None:
        line += _tried(declared.rollout)
    if declared is not None and (policy := policy_of(declared)):
        line += ["--policy", policy]
    return line


def _without_budget(declared: Deploy) -> Deploy:
    """Return the section without what holds for single callers, and without a challenger."""
    access = msgspec.structs.replace(declared.access, per_day=None, oidc=None, certificates={})
    return msgspec.structs.replace(declared, access=access, rollout=Rollout())


def _tried(rollout: Rollout) -> list[str]:
    """Return what a server is told of how a challenger is tried."""
    line = ["--p99", str(rollout.p99)] if rollout.p99 else []
    if rollout.canary:
        line += ["--canary", str(rollout.canary)]
    if rollout.watch:
        line += ["--watch", str(rollout.watch)]
    if rollout.ab is not None:
        line += ["--ab", msgspec.json.encode(rollout.ab).decode()]
    return [*line, "--shadow"] if rollout.shadow else line


def policy_of(declared: Deploy) -> str:
    """Return what a server is told of the section, as JSON: what differs from the defaults; empty if nothing does."""
    access, usual = msgspec.to_builtins(declared.access), msgspec.to_builtins(Access())
    given = {key: value for key, value in access.items() if value != usual[key] and key not in _FLAGS}
    told: dict[str, Any] = {"access": given} if given else {}
    if declared.requests != Requests():
        told["requests"] = msgspec.to_builtins(declared.requests)
    if declared.traces is not None:
        told["traces"] = msgspec.to_builtins(declared.traces)
    if declared.guards is not None:
        told["guards"] = msgspec.to_builtins(declared.guards)
    return msgspec.json.encode(told).decode() if told else ""
