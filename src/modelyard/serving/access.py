"""Who asks: the owner of a token, of a token of the identity provider, or of a client certificate; and how much a day.

A token that is given decides alone: one that is not known is refused, whatever certificate comes with it.

A browser adds a password that it was once given, and a certificate that it holds, to whatever a page of anybody sends
here, and asks nobody before. It says whose page that is, though: where it does, neither of the two says who asks.
"""

from __future__ import annotations

import binascii
import ipaddress
from typing import TYPE_CHECKING, Any

from modelyard.security.tokens import Caller, TokenBook
from modelyard.serving.errors import HttpError
from modelyard.serving.guards.policy import Access
from modelyard.serving.http.tls import subject_of
from modelyard.serving.told import Voice, say, speaking

if TYPE_CHECKING:
    from modelyard.security.jwt import Issuer
    from modelyard.serving.http.exchange import Exchange

__all__ = ["Callers"]

_CHALLENGE = ((b"www-authenticate", b"Bearer"),)
# Who is let in because the request comes from this machine.
_HERE = Caller("loopback", "operator")
# A proxy on this machine asks for somebody else.
_PROXIED = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via")


class Callers:
    """Says who asks.

    Args:
        tokens: The tokens of the project.
        access: What is declared.
        endpoint: Name of what they ask.
        voice: For whom it speaks; that of the process by default.

    Raises:
        UserError: The issuer's address may not be used (`oidc-issuer`).
    """

    def __init__(self, tokens: TokenBook, access: Access, endpoint: str, voice: Voice | None = None) -> None:
        self._tokens = tokens
        self._voice = voice
        self._endpoint = endpoint
        self._certificates = access.certificates
        self._open_here = access.metrics == "loopback"
        self._told = self._told_of_issuer = ""
        self._issuer: Issuer | None = None
        if access.oidc is not None:
            from modelyard.security.jwt import Issuer

            oidc = access.oidc
            self._issuer = Issuer(oidc.issuer, oidc.audience, oidc.role_claim, oidc.roles)
            self._issuer.start()

    def find(self, exchange: Exchange, path: str) -> Caller:
        """Return who asks; without a role, if they have none at this endpoint.

        Args:
            exchange: The request.
            path: Path of the route, if there is one.

        Raises:
            HttpError: Nobody that is known (401).
        """
        given = exchange.headers.get(b"authorization", b"")
        if not given:
            page = b"origin" in exchange.headers
            if self._certificates and not page and (caller := self._certified(exchange)) is not None:
                return caller
            if self._open_here and path == "/metrics" and _here(exchange):
                return _HERE
        text = _token(exchange, given)
        if text is None:
            raise HttpError(401, "token-missing", "send `Authorization: Bearer TOKEN`", headers=_CHALLENGE)
        found = self._tokens.find(text, self._endpoint)
        if found is None and self._issuer is not None and not text.startswith("yard_"):
            found = self._issuer.find(text)
        if found is None:
            with speaking(self._voice):
                self._tell()
            raise HttpError(401, "token-unknown", "this token is not known here", headers=_CHALLENGE)
        return found

    def close(self) -> None:
        """Fetch no more keys."""
        if self._issuer is not None:
            self._issuer.close()

    def _certified(self, exchange: Exchange) -> Caller | None:
        """Return the caller that TLS has checked the certificate of."""
        subject = subject_of(exchange.told("peercert"))
        role = self._certificates.get(subject, "")
        return Caller(f"cert:{subject}"[:200], role) if role else None

    def _tell(self) -> None:
        """Tell the operator, once, why nobody is known."""
        if self._tokens.trouble != self._told:
            self._told = self._tokens.trouble
            wrong = f"tokens cannot be read, so nobody is let in: {self._told}"
            say(wrong if self._told else "tokens are read again")
        if self._issuer is not None and self._issuer.trouble != self._told_of_issuer:
            self._told_of_issuer = self._issuer.trouble
            say(self._told_of_issuer or "the keys of the issuer are read again")


def _token(exchange: Exchange, given: bytes) -> str | None:
    """Return the token of an `Authorization`: as such, or as the password of a client that knows no other way."""
    scheme, _, text = given.partition(b" ")
    kind = scheme.lower()
    if kind == b"bearer":
        return text.strip().decode("latin-1")
    if kind != b"basic" or b"origin" in exchange.headers:
        return None
    try:
        _, colon, password = binascii.a2b_base64(text.strip(), strict_mode=True).partition(b":")
    except binascii.Error:
        return None
    return password.decode("latin-1") if colon else None


def _here(exchange: Exchange) -> bool:
    """Whether a request comes from this machine, and for nobody else."""
    peer: Any = exchange.told("peername")
    if not peer or any(name in exchange.headers for name in _PROXIED):
        return False
    try:
        return ipaddress.ip_address(peer[0]).is_loopback
    except (ValueError, TypeError, IndexError):
        return False
