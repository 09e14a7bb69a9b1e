"""Follow what was decided about the runtime of a version; what cannot be followed is said, and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from modelyard._kit.clock import as_text
from modelyard._kit.digest import short
from modelyard._kit.errors import ModelyardError
from modelyard._kit.text import plural
from modelyard.inference import Bundle
from modelyard.inference.runtimes import open_beside
from modelyard.records import Decision, Runtime
from modelyard.security.keys import trusted_keys
from modelyard.serving.told import say
from modelyard.store.base import Store
from modelyard.store.decisions import holds_here, newest_decision

__all__ = ["as_decided", "as_told"]


def as_decided(store: Store, bundle: Bundle, project: Path) -> Bundle:
    """Return a bundle answered for as the ledger says; as it was released where nothing holds.

    Args:
        store: Store with the ledger, and what the runtime reads beside the bundle.
        bundle: The version.
        project: Folder of the project: its keys.
    """
    event = newest_decision(store.ledger, bundle.version.digest)
    if event is None:
        return bundle
    try:
        decision = msgspec.convert(event.payload, Decision)
    except msgspec.ValidationError as error:
        return _not_followed(bundle, f"it cannot be read: {error}")
    if decision.runtime is None:
        # It was measured, and nothing met the limits.
        return bundle
    if not holds_here(event.payload):
        return _not_followed(bundle, f"it was measured on {_named(decision.machine)}; measure here: modelyard runtimes")
    return _by(bundle, decision.runtime, store, project, f"decided {as_text(event.time)} by {event.actor}")


def as_told(bundle: Bundle, told: str, folder: Path | None, project: Path) -> Bundle:
    """Return a bundle answered for as the command line says; as it was released where it says nothing.

    Args:
        bundle: The version.
        told: The runtime as JSON; empty: nothing.
        folder: Folder of what it reads beside the bundle.
        project: Folder of the project: its keys.
    """
    if not told:
        return bundle
    try:
        runtime = msgspec.json.decode(told, type=Runtime)
    except msgspec.DecodeError as error:
        return _not_followed(bundle, f"it cannot be read: {error}")
    return _by(bundle, runtime, folder, project, "as it was told")


def _by(bundle: Bundle, runtime: Runtime, source: Store | Path | None, project: Path, why: str) -> Bundle:
    digest = bundle.version.digest
    try:
        beside = None
        if runtime.address:
            folder = source if isinstance(source, Path) or source is None else source.blobs.folder(runtime.address)
            beside = open_beside(folder or Path(), runtime, digest, trusted_keys(project))
        found = bundle.by(runtime, beside)
        # What cannot be read here, or lacks its library, is seen now and not by a caller.
        found.predictor()
    except ModelyardError as error:
        return _not_followed(bundle, f"[{error.code}] {error.problem.message}")
    threads = plural(runtime.threads, "thread")
    say(f"runtime model={short(digest)} runtime={runtime.name} on {threads}, {why}")
    return found


def _not_followed(bundle: Bundle, why: str) -> Bundle:
    digest, name = short(bundle.version.digest), bundle.runtime.name
    # A warning: an error that is said keeps a version from going live.
    say(f"warning: the decision on the runtime of {digest} is not followed, {name} answers: {why}", level="warning")
    return bundle


def _named(machine: dict[str, Any]) -> str:
    return f"{plural(machine.get('cores', 0), 'core')} of {machine.get('processor') or 'another processor'}"
