"""Fire when objects of an object store come, change or go, told by their listing."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import MissingExtra, UserError
from modelyard.automation.triggers.globs import Part, fits, parts_of
from modelyard.automation.triggers.watched import Watched
from modelyard.records import TriggerKind
from modelyard.security.redact import redact
from modelyard.spec.sections.triggers import OwnTrigger
from modelyard.store import Store

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["BlobsTrigger"]

_MAGIC = re.compile(r"[*?\[]")
_SECONDS = "15s"
# The same trouble is told in the same words each time.
_TOOK = re.compile(r" in [0-9.]+(ns|µs|ms|s)\b")
_ALLOW_HTTP = ("AWS_ALLOW_HTTP", "AZURE_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP")


class BlobsTrigger(Watched):
    """Watches objects by their tag, size and time, as the listing tells them; none is read.

    Args:
        name: Its name in the file.
        section: What the file says of it.
        store: Where its fires are written down.
    """

    kind: TriggerKind = "blobs"
    default_every = 60.0

    def __init__(self, name: str, section: OwnTrigger, store: Store) -> None:
        address = str(section.blobs)
        super().__init__(name, section, store, address)
        self._base, self._wants = _split(address)
        self._objects: ObjectStore | None = None

    def _snapshot(self) -> dict[str, str]:
        found = {}
        try:
            if self._objects is None:
                self._objects = _open(self._base)
            for page in _obstore().list(self._objects, chunk_size=1000):
                for meta in page:
                    path = meta["path"]
                    if path and _fits(self._wants, path):
                        found[self._base + path] = _state(meta)
        except MissingExtra:
            raise
        except Exception as error:
            if not type(error).__module__.startswith("obstore"):
                raise
            # The rest of its text is for those who build it, and may hold what was sent.
            why = _TOOK.sub("", redact(str(error).partition("\n")[0]))
            raise UserError(
                "trigger-blobs-unreachable",
                f"`{self.about}` cannot be listed: {why}",
                hint="look at the address and at the credentials in the environment; nothing counts as deleted",
            ) from error
        return found

    def _meant(self, mark: str, name: str) -> bool:
        base, wants = _split(mark.removeprefix("blobs "))
        return name.startswith(base) and _fits(wants, name[len(base) :])


def _split(address: str) -> tuple[str, tuple[Part, ...]]:
    """Return what is asked for, up to the last slash before the first sign of a pattern, and the pattern."""
    found = _MAGIC.search(address)
    cut = address.rindex("/", 0, found.start()) + 1 if found else len(address)
    return address[:cut].rstrip("/") + "/", parts_of(address[cut:].split("/")) if cut < len(address) else ()


def _fits(wants: tuple[Part, ...], path: str) -> bool:
    return not wants or fits(wants, path.split("/"))


def _state(meta: Any) -> str:
    when = meta["last_modified"].timestamp()
    return f"{meta['e_tag'] or meta['version'] or ''} {meta['size']} {when:.6f}"


def _obstore() -> Any:
    try:
        import obstore
    except ImportError as error:
        raise MissingExtra("watching objects needs obstore", extra="objects") from error
    return obstore


def _open(address: str) -> ObjectStore:
    _obstore()
    from datetime import timedelta

    from obstore.store import from_url

    retry: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=30)}
    if address.startswith("file:"):
        return from_url(address)
    client: Any = {"timeout": _SECONDS, "connect_timeout": "5s"}
    if any(os.environ.get(name, "").lower() in ("1", "true") for name in _ALLOW_HTTP):
        # Our options stand in the place of those that the environment gives.
        client["allow_http"] = True
    return from_url(address, client_options=client, retry_config=retry)
