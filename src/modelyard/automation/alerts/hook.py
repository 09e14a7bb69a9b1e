"""Hand a message to a web address: a JSON request, signed as Standard Webhooks says.

Redirects are not followed, and a name that leads to a private address is refused unless the file says so: whoever can
change a name must not send our requests to a neighbour.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from modelyard import __version__
from modelyard._kit.clock import Clock, as_text
from modelyard.automation.alerts.text import Message
from modelyard.automation.alerts.undelivered import Undelivered, masked
from modelyard.automation.triggers.signature import sign
from modelyard.records import Alert

__all__ = ["Hook", "Told", "body_of", "post"]

_FORMAT = 1
_SECONDS = 10.0
_MOST_ANSWER = 2000
_LONGEST_WAIT = 3600.0


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One alert, as a web address gets it.

    Attributes:
        id: Equal when the same is sent again.
        on: What it is about: `start`, `stage`, `success`, `failure`, `stuck`, `stale`, `budget`, `drift`, `anomaly`,
            `recovered`; `digest` where several are in one message, `test` where a person tries the target.
        urgency: `low`, `normal` or `high`.
        project: Name of the project.
        title: One line.
        text: Plain text of several lines.
        time: When it happened, `2026-11-21 14:03:05Z`.
        run: Id of the run; empty if it belongs to none.
        step: Name of the step; empty if it belongs to none.
        trace: 32 hex digits that tie it to its fire, run and log lines.
        link: Address of the run's page; empty if it is not known.
        facts: Label -> text: `likely cause`, `next step`, `replay`, ...
    """

    id: str
    on: str
    urgency: str
    project: str
    title: str
    text: str
    time: str
    run: str = ""
    step: str = ""
    trace: str = ""
    link: str = ""
    facts: dict[str, str] = msgspec.field(default_factory=dict)


class Hook(Told, frozen=True, kw_only=True):
    """The body of a request.

    Attributes:
        format: Number of this form; it grows when a field changes its meaning.
        alerts: The alerts of a digest; empty where there is one only.
    """

    format: int = _FORMAT
    alerts: tuple[Told, ...] = ()


def body_of(message: Message, project: str) -> Hook:
    """Return what is sent for a message."""
    told = tuple(_told(a, link, project) for a, link in zip(message.alerts, message.links, strict=True))
    if len(told) == 1:
        return Hook(**{**msgspec.structs.asdict(told[0]), "id": message.id})
    return Hook(
        id=message.id,
        on="digest",
        urgency=message.urgency,
        project=project,
        title=message.title,
        text=message.text,
        time=told[-1].time,
        alerts=told,
    )


def post(
    address: str,
    message: Message,
    *,
    project: str,
    secret: str = "",
    private: bool = False,
    clock: Clock = time.time,
) -> str:
    """Send a message as a request.

    Args:
        address: `http(s)://...`.
        message: What is sent.
        project: Name of the project.
        secret: What it is signed with; not at all if empty.
        private: Whether the name of the host may lead to a private address.
        clock: Source of the time of the signature.

    Returns:
        What was answered, e.g. `200 OK`.

    Raises:
        Undelivered: It was not answered with a status of 2xx.
    """
    body = msgspec.json.encode(body_of(message, project))
    at = int(clock())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"modelyard/{__version__}",
        "Idempotency-Key": message.id,
        "webhook-id": message.id,
        "webhook-timestamp": str(at),
    }
    if secret:
        try:
            headers |= sign(secret, id=message.id, timestamp=at, body=body)
        except ValueError:
            raise Undelivered("the secret begins with `whsec_`, and what follows is not base64") from None
    request = urllib.request.Request(address, data=body, headers=headers, method="POST")  # noqa: S310 - http(s) only
    try:
        with _opener(address, private=private).open(request, timeout=_SECONDS) as answer:
            return f"{answer.status} {answer.reason}".strip()
    except urllib.error.HTTPError as error:
        with error:
            raise _answered(error, address, secret) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, Undelivered):
            raise error.reason from None
        raise Undelivered(masked(f"{type(error.reason).__name__}: {error.reason}", address, secret)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Undelivered(masked(f"{type(error).__name__}: {error}", address, secret)) from None


def _told(alert: Alert, link: str, project: str) -> Told:
    return Told(
        id=alert.id,
        on=alert.on,
        urgency=alert.urgency,
        project=project,
        title=alert.title,
        text=alert.text,
        time=as_text(alert.at),
        run=alert.run,
        step=alert.step,
        trace=alert.trace,
        link=link,
        facts=dict(alert.facts),
    )


def _answered(error: urllib.error.HTTPError, address: str, secret: str) -> Undelivered:
    if 300 <= error.code < 400:
        return Undelivered(f"answered {error.code}, a redirect, which is not followed: give the address it leads to")
    try:
        said = error.read(_MOST_ANSWER).decode("utf-8", "replace")
    except OSError:
        said = ""
    wait = error.headers.get("Retry-After", "") if error.headers else ""
    seconds = min(float(wait), _LONGEST_WAIT) if wait.isdigit() else 0.0
    return Undelivered(masked(f"answered {error.code} {error.reason} {said}", address, secret), wait=seconds)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow nothing: the answer itself becomes the error."""


def _opener(address: str, *, private: bool) -> urllib.request.OpenerDirector:
    """Return what opens an address, through the proxy of the environment where there is one."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    proxied = parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)
    # Through a proxy it is the proxy that looks the name up.
    connect = socket.create_connection if private or proxied or _written(host) else _public_only
    return urllib.request.build_opener(_NoRedirect, _Http(connect), _Https(connect))


Connect = Callable[..., socket.socket]


class _Http(urllib.request.HTTPHandler):
    def __init__(self, connect: Connect) -> None:
        super().__init__()
        self._connect = connect

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_joined(http.client.HTTPConnection, self._connect), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, connect: Connect) -> None:
        super().__init__()
        self._connect = connect

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(
            _joined(http.client.HTTPSConnection, self._connect), req, context=ssl.create_default_context()
        )


def _joined(kind: Any, connect: Connect) -> Any:
    def make(host: str, **settings: Any) -> Any:
        connection = kind(host, **settings)
        # How `http.client` itself lets a connection be made in another way.
        connection._create_connection = connect
        return connection

    return make


def _written(host: str) -> bool:
    """Say whether an address stands there as a number, or as this machine: then it is meant."""
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _public_only(address: tuple[str, int], timeout: float | None = None, source: Any = None) -> socket.socket:
    """Connect to the first public address of a name; what is looked at is what is connected to."""
    host, port = address
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    numbers = [str(one[4][0]).partition("%")[0] for one in found]
    if any(not ipaddress.ip_address(number).is_global for number in numbers):
        raise Undelivered("the host's name leads to a private address: if that is meant, write `private: true`")
    failure: OSError | None = None
    for number in dict.fromkeys(numbers):
        try:
            return socket.create_connection((number, port), timeout, source)
        except OSError as error:
            failure = error
    raise failure or OSError("the name leads nowhere")
