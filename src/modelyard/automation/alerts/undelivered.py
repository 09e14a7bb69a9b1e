"""What went wrong when a message was handed over, without the address and the secrets in it."""

from __future__ import annotations

import re
from urllib.parse import unquote

from modelyard.automation.alerts.text import one_line
from modelyard.security.redact import redact

__all__ = ["Undelivered", "masked"]

_MOST = 300
# Shorter pieces of an address stand in harmless words.
_FEWEST = 5
# Pieces of an address that say nothing of it.
_HARMLESS = {"https", "http", "mailto", "services", "webhook", "webhooks", "hooks", "invoke", "false", "true"}


class Undelivered(Exception):
    """A message was not taken.

    Args:
        why: One sentence without addresses and secrets.
        wait: Seconds for which the target asked to be left alone.
    """

    def __init__(self, why: str, *, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


def masked(text: str, *secrets: str) -> str:
    """Return what a server or a library said, on one line, without secrets and without any piece of an address.

    >>> masked("no such hook: /services/T0AB1C2D3/xyzzy123", "https://hooks.example.org/services/T0AB1C2D3/xyzzy123")
    'no such hook: /services/[redacted]/[redacted]'
    """
    pieces = {piece for secret in secrets for form in (secret, unquote(secret)) for piece in _pieces(form)}
    for piece in sorted(pieces, key=len, reverse=True):
        text = text.replace(piece, "[redacted]")
    return one_line(redact(text), _MOST)


def _pieces(secret: str) -> set[str]:
    found = {secret, *re.split(r"[/:@?&=#,;\s]+", secret)}
    return {piece for piece in found if len(piece) >= _FEWEST and piece.lower() not in _HARMLESS}
