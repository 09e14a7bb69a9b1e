"""What is watched by `triggers` of the file, one module a kind.

`files`, `blobs` and `sql` compare states (`watched`); `upstream` and `drift` follow events (`followed`); `webhook` is
told by `automation.hooks`. What a trigger has fired for is in the ledger (`Ledger.seen`, and a key a fire), so that it
may be killed at any time: the next look finds what the last one has not written down, and nothing twice.
"""

from __future__ import annotations

from typing import assert_never

from modelyard._kit.clock import Clock, system_clock
from modelyard.automation.triggers.blobs import BlobsTrigger
from modelyard.automation.triggers.common import Common
from modelyard.automation.triggers.drift import DriftTrigger
from modelyard.automation.triggers.files import FilesTrigger
from modelyard.automation.triggers.folders import file_path
from modelyard.automation.triggers.sql import SqlTrigger
from modelyard.automation.triggers.upstream import UpstreamTrigger
from modelyard.automation.triggers.webhook import WebhookTrigger
from modelyard.spec import Spec
from modelyard.spec.sections.triggers import KINDS, kinds_of
from modelyard.store import Store

__all__ = [
    "BlobsTrigger",
    "Common",
    "DriftTrigger",
    "FilesTrigger",
    "SqlTrigger",
    "UpstreamTrigger",
    "WebhookTrigger",
    "file_path",
    "triggers_of",
]


def triggers_of(spec: Spec, store: Store, clock: Clock = system_clock) -> list[Common]:
    """Return the triggers that a declaration names, in its order; none of them listens yet.

    Args:
        spec: The declaration.
        store: Where fires are written down.
        clock: Source of the time that the deliveries of webhooks are held against.
    """
    made: list[Common] = []
    for name, section in spec.triggers.items():
        kind = KINDS[kinds_of(section)[0]]
        match kind:
            case "files":
                made.append(FilesTrigger(name, section, spec.root, store))
            case "blobs":
                made.append(BlobsTrigger(name, section, store))
            case "sql":
                made.append(SqlTrigger(name, section, spec.root, store))
            case "webhook":
                made.append(WebhookTrigger(name, section, spec.root, store, clock=clock))
            case "upstream":
                made.append(UpstreamTrigger(name, section, spec.root, store))
            case "drift":
                made.append(DriftTrigger(name, section, spec.endpoint, store, stages=spec.stages.values()))
            case _:
                assert_never(kind)
    return made
