"""Who else gets the lines: addresses that take lines of JSON, and the system's log."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from modelyard.logs.line import Level
from modelyard.logs.section import Logs, is_safe
from modelyard.security.redact import redact

__all__ = ["NotTaken", "Shipped", "Sink", "sink_of", "sinks_of"]

_SECONDS = 10.0
# Bytes of a line that a datagram of the system's log holds in any case.
_DATAGRAM = 8_000
_SEVERITY: dict[Level, int] = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_USER = 1 << 3  # the facility `user`
_encode = msgspec.json.Encoder().encode


class NotTaken(Exception):
    """A sink did not take the lines; they are offered again.

    Args:
        why: The reason, without a secret.
        smaller: It would take fewer lines at once.
    """

    def __init__(self, why: str, *, smaller: bool = False) -> None:
        super().__init__(why)
        self.smaller = smaller


class Shipped(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line as a sink gets it.

    Attributes:
        id: The same each time it is offered, so that a sink can leave out what it has.
        project: Name of the project.
        host: The machine.
        time: Seconds since 1970 UTC.
        level: How bad it is.
        logger: Who says it.
        message: What it says.
        trace: See `About`, as those that follow.
        run: Id of the run.
        step: Name of the step.
        attempt: Which attempt.
        fire: Id of the fire.
        endpoint: Name of the endpoint.
        request: Id of the request.
        event: Kind of the event, for what the ledger tells.
    """

    id: str
    project: str
    host: str
    time: float
    level: Level = "info"
    logger: str
    message: str
    trace: str = ""
    run: str = ""
    step: str = ""
    attempt: int = 0
    fire: str = ""
    endpoint: str = ""
    request: str = ""
    event: str = ""


class Sink(Protocol):
    """Takes lines."""

    def send(self, lines: Sequence[Shipped]) -> None:
        """Hand over lines; returning means that they are taken.

        Raises:
            NotTaken: They are not, or it is not known.
        """
        ...


def sinks_of(settings: Logs, root: Path) -> dict[str, Sink]:
    """Return the sinks of a declaration by their names, which tell no secret."""
    found: dict[str, Sink] = {}
    for address in settings.to:
        name = made = _name(address)
        number = 1
        while name in found:
            number += 1
            name = f"{made}-{number}"
        found[name] = sink_of(address, settings.token, root)
    return found


def sink_of(address: str, token: str | None, root: Path) -> Sink:
    """Return what stands behind an address."""
    if address == "syslog" or address.startswith("syslog:"):
        return SystemLog(Path(address.partition(":")[2] or "/dev/log"))
    return Web(address, token, root)


def _name(address: str) -> str:
    scheme, _, rest = address.partition(":")
    if scheme in ("env", "file"):
        return rest.rpartition("/")[2].lower().replace("_", "-")
    return "syslog" if scheme == "syslog" else (urlsplit(address).hostname or "sink")


class Web:
    """An address that takes lines of JSON by POST (`application/x-ndjson`).

    Args:
        address: The address, or `env:NAME` or `file:PATH`, where it is.
        token: Where the bearer token is; none: none is sent.
        root: Folder of the project.
    """

    def __init__(self, address: str, token: str | None, root: Path) -> None:
        self._address = address
        self._token = token
        self._root = root

    def send(self, lines: Sequence[Shipped]) -> None:
        """See `Sink.send`."""
        # Only where lines are handed over: loading these costs more than a short run.
        import http.client
        import urllib.error
        import urllib.request

        class Stay(urllib.request.HTTPRedirectHandler):
            """Follows nothing: the token is for the address that was named."""

            def redirect_request(self, *_: Any, **__: Any) -> None:
                return None

        address = _read(self._address, self._root) if self._address.startswith(("env:", "file:")) else self._address
        if not is_safe(address):
            raise NotTaken("the address is neither `https://` nor on this machine")
        request = urllib.request.Request(  # noqa: S310 - the scheme was looked at
            address, b"".join(_encode(line) + b"\n" for line in lines), {"Content-Type": "application/x-ndjson"}
        )
        if self._token is not None:
            request.add_unredirected_header("Authorization", f"Bearer {_read(self._token, self._root)}")
        try:
            with urllib.request.build_opener(Stay()).open(request, timeout=_SECONDS) as answer:
                answer.read(1 << 16)
        except urllib.error.HTTPError as error:
            with error:
                raise NotTaken(f"it answered {error.code}", smaller=error.code == 413) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise NotTaken(redact(f"it cannot be reached: {reason}")) from None


def _read(place: str, root: Path) -> str:
    """Return what a variable or a file holds."""
    kind, _, where = place.partition(":")
    if kind == "env":
        found = os.environ.get(where, "").strip()
    else:
        try:
            found = (root / Path(where).expanduser()).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise NotTaken(f"`{place}` cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from None
    if not found:
        raise NotTaken(f"`{place}` is empty or not set")
    return found


class SystemLog:
    """The log of the system, as RFC 5424 over its socket on this machine; the message is the line as JSON.

    Args:
        socket_path: The socket.
    """

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path

    def send(self, lines: Sequence[Shipped]) -> None:
        """See `Sink.send`."""
        from datetime import UTC, datetime

        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.settimeout(_SECONDS)
                out.connect(str(self._path))
                for line in lines:
                    when = datetime.fromtimestamp(line.time, UTC).isoformat(timespec="milliseconds")
                    priority = _USER | _SEVERITY[line.level]
                    head = f"<{priority}>1 {when} {line.host or '-'} modelyard {os.getpid()} {line.event or '-'} - "
                    out.send(head.encode() + _fitting(line))
        except OSError as error:
            raise NotTaken(f"`{self._path}` takes nothing: {error.strerror or error}") from None


def _fitting(line: Shipped) -> bytes:
    data = _encode(line)
    over = len(data) - _DATAGRAM
    if over <= 0:
        return data
    kept = line.message.encode()[: max(0, len(line.message.encode()) - over - 64)].decode("utf-8", "ignore")
    return _encode(msgspec.structs.replace(line, message=f"{kept}… (cut)"))
