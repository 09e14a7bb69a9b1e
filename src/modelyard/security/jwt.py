"""Callers who show a token of an identity provider: JWT by OIDC discovery.

The keys of the issuer are fetched by a thread and kept; nobody who asks waits for the network. A token must be signed
by one of them with an asymmetric algorithm of our own list, never `none` and never an HMAC; it must name the issuer and
the audience, and not have ended. A key that is not known has the keys fetched once more, at most every half minute;
until they are here the token is refused.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from modelyard._kit.clock import Clock, system_clock
from modelyard._kit.digest import digest_bytes
from modelyard._kit.errors import UserError
from modelyard.security.roles import ROLES
from modelyard.security.tokens import Caller

__all__ = ["ALGORITHMS", "Issuer", "check_issuer", "fetch"]

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
# Between two looks at the keys: usually, and after a key that is not known.
_EVERY, _AGAIN = 600.0, 30.0
_SKEW = 60
_KEPT = 4096
_LONGEST = 16_384
_BYTES = 1_000_000
_SECONDS = 5.0
# Characters of 2048 bits in base64.
_RSA = 341


class _Head(msgspec.Struct):
    alg: str
    kid: str = ""


_decode_head = msgspec.json.Decoder(_Head).decode


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Follow nobody to another address."""


def fetch(url: str) -> Any:
    """Return the JSON at an address: https, or http on this machine; no redirects.

    Raises:
        OSError: It cannot be had.
        ValueError: The address may not be used, or what is there is no JSON of at most a megabyte.
    """
    if not _asked(url):
        raise ValueError("the address is not https")
    opener = urllib.request.build_opener(_NoRedirect)
    with opener.open(url, timeout=_SECONDS) as answer:
        data = answer.read(_BYTES + 1)
    if len(data) > _BYTES:
        raise ValueError("the answer is larger than a megabyte")
    return msgspec.json.decode(data)


def check_issuer(issuer: str) -> None:
    """Refuse an address of an issuer that would never be asked.

    Raises:
        UserError: It is neither https nor of this machine (`oidc-issuer`).
    """
    if not _asked(issuer):
        message = f"`{issuer}` is no issuer that may be asked"
        raise UserError("oidc-issuer", message, hint="write its address, https://HOST/PATH; http only of this machine")


class Issuer:
    """Knows the callers of one identity provider.

    Args:
        issuer: Its address, as it stands in `iss`.
        audience: What must stand in `aud`.
        role_claim: Claim that holds a role or a list of them; dots lead into objects.
        roles: Value of the claim -> role; empty: values are the names of roles.
        get: Fetches JSON.
        clock: Source of the time.

    Attributes:
        trouble: Why the keys cannot be had at the moment; those that are known go on counting.

    Raises:
        UserError: The issuer's address may not be used (`oidc-issuer`).
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        role_claim: str = "roles",
        roles: Mapping[str, str] | None = None,
        *,
        get: Callable[[str], Any] = fetch,
        clock: Clock = system_clock,
    ) -> None:
        check_issuer(issuer)
        self._issuer = issuer
        self._audience = audience
        self._claim = role_claim.split(".")
        self._roles = roles or {role: role for role in ROLES}
        self._get = get
        self._clock = clock
        self._keys: dict[str, Any] = {}
        self._known: dict[str, tuple[Caller, float]] = {}
        self._wake = threading.Event()
        self._asked = 0.0
        self._stop = False
        self.trouble = "the keys of the issuer have not been read yet"
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Fetch the keys, then go on doing so in a thread."""
        self.refresh()
        self._thread = threading.Thread(target=self._go_on, name="oidc-keys", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let the thread end."""
        self._stop = True
        self._wake.set()

    def find(self, text: str) -> Caller | None:
        """Return whose token this is, or none; never waits for the network."""
        if len(text) > _LONGEST or text.count(".") != 2:
            return None
        digest = digest_bytes(text.encode("utf-8", "surrogatepass"))
        kept = self._known.get(digest)
        if kept is not None and self._clock() < kept[1]:
            return kept[0]
        claims = self._claims(text)
        if claims is None:
            self._known.pop(digest, None)
            return None
        role, name = self._role(claims), claims.get("sub")
        if not role or not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= 200:
            return None
        caller = Caller(f"oidc:{name}", role)
        if len(self._known) >= _KEPT:
            self._known.clear()
        # A key that is withdrawn ends what it signed with the next look at the keys.
        self._known[digest] = (caller, min(float(claims["exp"]) + _SKEW, self._clock() + _EVERY))
        return caller

    def refresh(self) -> None:
        """Fetch the keys now; if that fails the old ones stay, and `trouble` says why."""
        from joserfc.errors import JoseError
        from joserfc.jwk import import_key

        try:
            told = self._get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
            if told["issuer"] != self._issuer:
                raise ValueError("the discovery document names another issuer")
            listed = self._get(told["jwks_uri"])["keys"]
            keys = {str(one.get("kid", "")): import_key(one) for one in listed if _usable(one)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, JoseError, msgspec.DecodeError) as error:
            self.trouble = f"the keys of the issuer cannot be read: {type(error).__name__}"
            return
        self._keys, self._known, self.trouble = keys, {}, ""

    def _go_on(self) -> None:
        while not self._stop:
            self._wake.wait(_AGAIN if self.trouble else _EVERY)
            self._wake.clear()
            if not self._stop:
                self.refresh()

    def _claims(self, text: str) -> dict[str, Any] | None:
        from joserfc import jwt
        from joserfc.errors import JoseError

        try:
            head = _decode_head(_unpadded(text.partition(".")[0]))
        except (msgspec.DecodeError, binascii.Error, ValueError):
            return None
        if head.alg not in ALGORITHMS:
            return None
        key = self._keys.get(head.kid)
        if key is None:
            self._ask_again()
            return None
        try:
            claims = jwt.decode(text, key, algorithms=list(ALGORITHMS)).claims
            jwt.JWTClaimsRegistry(
                now=int(self._clock()),
                leeway=_SKEW,
                iss={"essential": True, "value": self._issuer},
                aud={"essential": True, "value": self._audience},
                exp={"essential": True},
            ).validate(claims)
        except (JoseError, ValueError, TypeError):
            return None
        return dict(claims)

    def _ask_again(self) -> None:
        now = time.monotonic()
        if not self._asked or now - self._asked > _AGAIN:
            self._asked = now
            self._wake.set()

    def _role(self, claims: Mapping[str, Any]) -> str:
        """Return the highest role that the claim names; empty if it names none."""
        found: Any = claims
        for part in self._claim:
            found = found.get(part) if isinstance(found, dict) else None
        given = found if isinstance(found, list) else [found]
        named = {self._roles.get(one) for one in given if isinstance(one, str)}
        return next((role for role in reversed(ROLES) if role in named), "")


def _usable(key: Mapping[str, Any]) -> bool:
    """Whether a key may sign tokens: asymmetric, for signatures, and RSA with 2048 bits at least."""
    strong = key.get("kty") == "EC" or (key.get("kty") == "RSA" and len(key.get("n", "")) >= _RSA)
    return strong and key.get("use", "sig") == "sig"


def _unpadded(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _asked(url: str) -> bool:
    """Whether an address may be asked: over https, or on this machine."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and _local(host)))


def _local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
