"""TLS of a server: a certificate, and where a CA of clients is given, theirs; both are read again when they change."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelyard._kit.errors import ServeError
from modelyard.serving.told import say

__all__ = ["Tls", "farewell", "subject_of"]

# Seconds that a caller has to answer the end of TLS before it is cut.
_FAREWELL = 1.0
_SHORT = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "localityName": "L",
    "stateOrProvinceName": "ST",
}


class Tls:
    """The certificates of a server; TLS 1.2 or newer.

    Args:
        cert: Certificate and what leads to its CA, in PEM.
        key: Its private key, in PEM.
        client_ca: CAs whose clients may connect, in PEM; none: a client needs no certificate.
        protocols: Names of the protocols that are spoken over it, for clients that ask (ALPN).

    Attributes:
        context: What the listening socket is given.

    Raises:
        ServeError: A file cannot be used (`tls-unusable`).
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None, protocols: Sequence[str] = ()) -> None:
        self._cert, self._key, self._ca = cert, key, client_ca
        self._protocols = list(protocols)
        self._stamp = self._look()
        for path in (cert, key, client_ca):
            if path is not None and not os.access(path, os.R_OK):
                hint = "give a PEM file that the server may read"
                raise ServeError(
                    "tls-unusable", f"`{path}` is not there, or cannot be read", where=str(path), hint=hint
                )
        try:
            self.context = self._now = self._made()
        except (OSError, ssl.SSLError) as error:
            raise ServeError(
                "tls-unusable",
                "the certificate, its key or the CA is no PEM, or the key is not that of the certificate",
                where=", ".join(str(path) for path in (cert, key, client_ca) if path is not None),
                hint="`openssl x509 -in CERT -noout` and `openssl pkey -in KEY -noout` say which cannot be read",
            ) from error

        def chosen(sock: Any, name: str | None, context: ssl.SSLContext) -> None:
            # The listening socket keeps its first context; each new connection is given the newest.
            sock.context = self._now

        self.context.sni_callback = chosen

    def look(self) -> None:
        """Read the files again if they have changed; if they cannot be used the old ones stay."""
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._now = self._made()
        except (OSError, ssl.SSLError) as error:
            say(f"the changed certificate cannot be used, the old one stays: {error}", level="error")
        else:
            say("certificates are read again")

    def _look(self) -> list[tuple[int, int, int]]:
        stamps = []
        for path in (self._cert, self._key, self._ca):
            try:
                found = path.stat() if path is not None else None
            except OSError:
                found = None
            stamps.append((found.st_mtime_ns, found.st_size, found.st_ino) if found else (0, 0, 0))
        return stamps

    def _made(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._cert, self._key)
        if self._protocols:
            context.set_alpn_protocols(self._protocols)
        if self._ca is not None:
            context.load_verify_locations(self._ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def farewell(transport: Any) -> None:
    """Close a connection that has no room: over TLS the other side may leave the end unanswered, and is cut then."""
    transport.close()
    if transport.get_extra_info("ssl_object") is not None:
        asyncio.get_running_loop().call_later(_FAREWELL, transport.abort)


def subject_of(certificate: dict[str, Any] | None) -> str:
    """Return the subject of a certificate that TLS has checked, as `CN=name,O=team`; empty without one."""
    parts: Sequence[Any] = (certificate or {}).get("subject", ())
    named = [(_SHORT.get(kind, kind), value) for part in parts for kind, value in part]
    # A comma in a value must not make two parts of it.
    return ",".join(f"{kind}={value.replace(',', chr(92) + ',')}" for kind, value in named)
