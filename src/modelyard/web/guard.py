"""What stands before every page: who may ask, and what every answer says to the browser.

The pages have no login: they listen on this machine alone. So the one stranger who could reach them is a web site
open in the same browser, by a name that it makes point here (DNS rebinding), by a frame, or by loading a page as a
script. The check of the `Host` header and the headers below shut these three doors.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["LOOPBACK", "Guard", "policy"]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)


def policy(nonce: str) -> str:
    """Return the Content-Security-Policy of one answer: our own files, and only the scripts that carry its nonce."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def _name(host: str) -> str:
    """Return a `Host` header without its port, in lower case."""
    host = host.strip().lower()
    return host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]


class Guard:
    """Middleware that refuses strange hosts and anything but reading, and adds the headers.

    Args:
        app: The site.
        hosts: Names by which the site may be asked.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] = LOOPBACK) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(16)
        scope.setdefault("state", {})["nonce"] = nonce
        extra = [*_HEADERS, (b"content-security-policy", policy(nonce).encode())]

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                # An answer that has a policy of its own (a sealed card) keeps it.
                given = {key for key, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in extra if pair[0] not in given)]
            await send(message)

        host = next((value.decode("latin-1") for key, value in scope["headers"] if key == b"host"), "")
        if _name(host) not in self._hosts:
            text = "[strange-host] these pages answer only to their own names\n  hint: open the printed address\n"
            await _refuse(with_headers, 421, text)
        elif scope["method"] not in ("GET", "HEAD"):
            await _refuse(with_headers, 405, "[read-only] these pages can only be read\n")
        else:
            await self._app(scope, receive, with_headers)


async def _refuse(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    if status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
