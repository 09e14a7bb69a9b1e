"""Sign a webhook, and see whether one was signed by who knows the secret.

`standard` is Standard Webhooks (https://www.standardwebhooks.com): HMAC-SHA256 over `ID.TIMESTAMP.BODY`, so that
neither id nor time can be exchanged. `github` is GitHub's `X-Hub-Signature-256`: over the body alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence

__all__ = ["TOLERANCE", "Unsigned", "key_of", "sender_id", "sign"]

# Seconds that the clock of the sender may differ, and that a delivery may be under way.
TOLERANCE = 300.0
_PREFIX = "whsec_"
_ID = re.compile(r"[!-~]{1,200}")
_TIME = re.compile(r"[0-9]{1,12}")
_HEX = re.compile(r"sha256=([0-9a-f]{64})")
# A sender that exchanges its secret signs twice; more than this is not meant well.
_MOST_SIGNATURES = 8


class Unsigned(Exception):
    """A delivery that is not to be taken; the text is for the operator and never sent back."""


def key_of(secret: str) -> bytes:
    """Return the bytes that are signed with: `whsec_` means base64, anything else is taken as it is.

    Raises:
        ValueError: What follows `whsec_` is not base64.
    """
    if secret.startswith(_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error as error:
            raise ValueError("not base64") from error
    return secret.encode()


def sign(secret: str, *, id: str, timestamp: int, body: bytes) -> dict[str, str]:  # noqa: A002 - as the header is called
    """Return the headers that a sender adds to a delivery.

    Args:
        secret: What both sides know.
        id: Names the delivery; the same when it is sent again.
        timestamp: When it is sent, seconds since 1970 UTC.
        body: What is sent.

    Examples:
        >>> sign("a secret of my own", id="msg_1", timestamp=1_700_000_000, body=b"{}")["webhook-signature"]
        'v1,BVjeAMiV9kASYm5PvUlPHtTIP2tPH8pvrlpMfgFsCqA='
    """
    digest = hmac.digest(key_of(secret), f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"webhook-id": id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


def sender_id(style: str, headers: Mapping[str, str], body: bytes, keys: Sequence[bytes], now: float) -> str:
    """Return what names a delivery, after seeing that it was signed with one of the keys.

    Args:
        style: `standard` or `github`.
        headers: By name, in lower case.
        body: What was sent, byte for byte.
        keys: Each of them is accepted.
        now: The time, seconds since 1970 UTC.

    Raises:
        Unsigned: It was not, or it is older or newer than `TOLERANCE`.
    """
    if style == "github":
        found = _HEX.fullmatch(headers.get("x-hub-signature-256", ""))
        if found is None:
            raise Unsigned("no signature")
        _held([bytes.fromhex(found[1])], body, keys)
        # The id of a delivery is not signed there: whoever caught one could send it again under another.
        return f"sha256-{hashlib.sha256(body).hexdigest()}"
    given, when = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not _ID.fullmatch(given) or not _TIME.fullmatch(when):
        raise Unsigned("no id or no time")
    _held(_signatures(headers.get("webhook-signature", "")), f"{given}.{when}.".encode() + body, keys)
    if abs(now - int(when)) > TOLERANCE:
        raise Unsigned(f"its time is {now - int(when):+.0f} s off")
    return given


def _signatures(given: str) -> list[bytes]:
    found = []
    for part in given.split(" ")[:_MOST_SIGNATURES]:
        version, _, text = part.partition(",")
        if version == "v1":
            try:
                found.append(base64.b64decode(text, validate=True))
            except (binascii.Error, ValueError):
                continue
    return found


def _held(signatures: Sequence[bytes], content: bytes, keys: Sequence[bytes]) -> None:
    held = False
    for key in keys:
        right = hmac.digest(key, content, hashlib.sha256)
        for signature in signatures:
            # Every pair is compared, and each in the same time, so that the answer's time tells nothing.
            held |= hmac.compare_digest(right, signature)
    if not held:
        raise Unsigned("the signature does not fit" if signatures else "no signature")
