"""This machine as a target: the process that serves a deployment, `python -m modelyard.serving`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from modelyard._kit.errors import NotFound
from modelyard.deploy.aliases import bundle_folder, trace_of
from modelyard.deploy.rollout import Rollout
from modelyard.deploy.section import Access, Deploy, Requests
from modelyard.records import Deployment
from modelyard.store.base import Store
from modelyard.store.decisions import holds_here, newest_decision
from modelyard.store.local import LOCAL

__all__ = ["answering", "command", "policy_of", "telling"]

# Stands between what is told of one endpoint and of the next.
_AND = "--and"
# Fields that have a flag of their own.
_FLAGS = ("roles", "per_minute")


def command(
    *served: list[str],
    host: str = "127.0.0.1",
    port: int = 8080,
    processes: int = 1,
    more: Sequence[str] = (),
) -> list[str]:
    """Return the command line of a server.

    Args:
        served: What it is told of each endpoint, as `telling` returns it; the first answers where none is named.
        host: Address to listen on.
        port: Port.
        processes: Processes that share the port.
        more: Other words about the server.
    """
    # -P: a file called like a library in the folder of the project is not imported.
    line = [sys.executable, "-P", "-m", "modelyard.serving", "--host", host, "--port", str(port)]
    if processes > 1:
        line += ["--processes", str(processes)]
    first, *others = served
    return [*line, *more, *first, *(word for words in others for word in (_AND, *words))]


def telling(
    store: Store, deployment: Deployment, *, declared: Deploy | None = None, apart: Path | None = None
) -> list[str]:
    """Return what a server is told of a deployment that it shall serve, whose alias it follows from then on.

    Args:
        store: Store that holds the bundle.
        deployment: What to serve.
        declared: The section of the file; none: whoever has a token may ask.
        apart: Folder with keys, tokens and the request log of a server that is only tried: it follows no alias, no
            caller has a budget or comes from a provider, and nothing is concluded from what it is asked.

    Raises:
        NotFound: The store does not hold the bundle.
    """
    folder = bundle_folder(store, deployment)
    line = ["--bundle", str(folder), "--project", str(apart or store.root), "--endpoint", deployment.endpoint]
    if apart is None:
        line += ["--follow", deployment.alias, "--since", str(store.ledger.head()[0])]
        if store.address != LOCAL:
            line += ["--store", store.address]
    else:
        line += _decided(store, deployment)
        if declared is not None:
            declared = _tried_alone(declared)
            line += ["--code", str(store.root)]
    if trace := trace_of(store, deployment):
        line += ["--trace", trace]
    return [*line, *_declared(declared)] if declared is not None else line


def _decided(store: Store, deployment: Deployment) -> list[str]:
    """Return what was decided to answer for a model: a server that follows no alias cannot look."""
    event = newest_decision(store.ledger, deployment.model.digest)
    found = event.payload.get("runtime") if event is not None else None
    if event is None or not found or not holds_here(event.payload):
        return []
    line = ["--runtime", msgspec.json.encode(found).decode()]
    if address := found.get("address"):
        with suppress(NotFound):  # then the server says that it is not there
            line += ["--beside", str(store.blobs.folder(address))]
    return line


def _declared(declared: Deploy) -> list[str]:
    """Return what the section says on the line."""
    line = [word for role in declared.access.roles for word in ("--role", role)]
    if declared.access.per_minute:
        line += ["--per-minute", str(declared.access.per_minute)]
    line += _tried(declared.rollout)
    policy = policy_of(declared)
    return [*line, "--policy", policy] if policy else line


def _tried_alone(declared: Deploy) -> Deploy:
    """Return the section for rows that are made up and one caller: guards stay, what draws conclusions does not."""
    access = msgspec.structs.replace(declared.access, per_minute=None, per_day=None, oidc=None, certificates={})
    guards = declared.guards and msgspec.structs.replace(declared.guards, alarm=None, extraction=None)
    return msgspec.structs.replace(declared, access=access, guards=guards, traces=None, rollout=Rollout())


def _tried(rollout: Rollout) -> list[str]:
    """Return what a server is told of how a challenger is tried."""
    line = ["--p99", str(rollout.p99)] if rollout.p99 else []
    if rollout.canary:
        line += ["--canary", str(rollout.canary)]
    if rollout.watch:
        line += ["--watch", str(rollout.watch)]
    if rollout.probation != Rollout().probation:
        line += ["--probation", str(rollout.probation)]
    if rollout.ab is not None:
        line += ["--ab", msgspec.json.encode(rollout.ab).decode()]
    return [*line, "--shadow"] if rollout.shadow else line


def answering(declared: Deploy) -> Deploy:
    """Return what of the section decides how a request is answered, whoever asks and however often."""
    access = Access(roles=declared.access.roles, show=declared.access.show)
    return Deploy(access=access, guards=_tried_alone(declared).guards)


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
