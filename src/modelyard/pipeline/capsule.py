"""What a failed attempt leaves behind, so that it can be looked at and run again as it was."""

from __future__ import annotations

import platform
import time

import msgspec

from modelyard.pipeline.execute import Failure, Task
from modelyard.store import Store

__all__ = ["Capsule", "keep", "opened"]


class Capsule(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an attempt had and how it ended, as one blob.

    Attributes:
        task: The task: step, arguments, inputs with their digests, what the probe saw, the fire.
        failure: Code, message, place and trace.
        environment: Digest of interpreter and libraries, which is a blob.
        made_of: Ingredient of the key -> its digest.
        source: Digest of the blob that tells of the user's files that the function is made of; empty for built-in ones.
        log: The last lines that the step logged or printed, secrets redacted.
        host: Name of the machine.
        time: When it failed, seconds since 1970 UTC.
    """

    task: Task
    failure: Failure
    environment: str
    made_of: dict[str, str] = {}
    source: str = ""
    log: tuple[str, ...] = ()
    host: str = ""
    time: float = 0.0


def keep(
    store: Store,
    task: Task,
    failure: Failure,
    *,
    environment: str,
    made_of: dict[str, str],
    source: str = "",
    log: tuple[str, ...] = (),
) -> str:
    """Store a capsule and return its digest."""
    capsule = Capsule(
        task=task,
        failure=failure,
        environment=environment,
        made_of=made_of,
        source=source,
        log=log,
        host=platform.node(),
        time=time.time(),
    )
    return store.blobs.put(msgspec.json.encode(capsule))


def opened(store: Store, digest: str) -> Capsule:
    """Return the capsule under a digest.

    Raises:
        NotFound: There is none.
    """
    return msgspec.json.decode(store.blobs.get(digest), type=Capsule)
