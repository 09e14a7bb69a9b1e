"""An endpoint without a socket: bytes go into the server's own connection, and answers come out of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from modelyard._kit.ids import new_id
from modelyard.inference import BundleDraft, open_bundle
from modelyard.security.keys import trusted_keys
from modelyard.security.tokens import TokenBook, add_token
from modelyard.serving import endpoint as serving
from modelyard.serving.app import App
from modelyard.serving.guards.policy import read_policy
from modelyard.serving.http.connection import Connection
from modelyard.serving.limits import Limits
from modelyard.serving.models import Models
from modelyard.serving.observability.log import RequestLog
from modelyard.serving.service import Service

from .conftest import lay  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .echo import Wire  # noqa: TID252

__all__ = ["Endpoint"]

Answer = tuple[int, Any]


class Endpoint:
    """A model behind its guards, with one caller.

    Args:
        root: Folder of the project.
        made: The bundle.
        guards: `deploy.guards`.
        folder: Where the bundle lies, if it was laid before.
        declared: What else is declared of `deploy`.
        limits: Limits of the server; what is not said of requests at a time is no limit.
    """

    def __init__(
        self,
        root: Path,
        made: BundleDraft,
        guards: Any,
        *,
        folder: Path | None = None,
        declared: dict[str, Any] | None = None,
        **limits: Any,
    ) -> None:
        self.log = RequestLog(root / "requests.db")
        policy = read_policy(json.dumps({"guards": guards, **(declared or {})}), root)
        bundle = open_bundle(folder or lay(root, made), trusted=trusted_keys(root))
        whole = Limits(policy=policy, **{"in_flight": 100_000, **limits})
        self.service = Service(bundle, made.version.name, self.log, whole)
        self.models = Models(self.service)
        self.token = add_token(root, new_id("caller"), "analyst")
        self.app = App([serving.Endpoint(self.models, whole, TokenBook(root, every=0.5))], whole)

    def request(self, body: Any, path: str = "/predict") -> bytes:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {self.token}\r\n"
        return head.encode() + b"content-length: %d\r\n\r\n" % len(data) + data

    def ask(self, *bodies: Any, path: str = "/predict") -> list[Answer]:
        """Ask for several things on one connection, each after the answer to the one before it, until it is closed."""
        return asyncio.run(self._ask([self.request(body, path) for body in bodies]))

    async def _ask(self, requests: Sequence[bytes]) -> list[Answer]:
        wire, connection = Wire(), Connection(self.app)
        connection.connection_made(wire)  # type: ignore[arg-type]
        found: list[Answer] = []
        at = 0
        for request in requests:
            connection.data_received(request)
            while (answer := _first(wire.sent, at)) is None:
                if wire.closed:
                    return found
                await asyncio.sleep(0)
            status, body, at = answer
            found.append((status, body))
        connection.connection_lost(None)
        return found

    def close(self) -> None:
        self.service.close()
        self.app.first.close()
        assert self.log.close() == 0

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _first(sent: bytes, at: int) -> tuple[int, Any, int] | None:
    """Return status, body and end of the answer that begins at a place; none while it is not whole."""
    head, _, _ = sent[at:].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    length = next((int(line[16:]) for line in lines if line.lower().startswith(b"content-length: ")), None)
    begins = at + len(head) + 4
    if length is None or len(sent) < begins + length:
        return None
    return int(lines[0].split()[1]), json.loads(sent[begins : begins + length]), begins + length


def logged(endpoint: Endpoint) -> list[Any]:
    """Return the outputs that an endpoint has logged, the oldest first; it is closed for that."""
    import sqlite3

    from modelyard.store.requests import newest

    endpoint.close()
    with closing(sqlite3.connect(endpoint.log.path)) as db:
        return [output for one in reversed(list(newest(db))) for output in one.outputs]
