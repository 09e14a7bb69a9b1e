"""Take secrets out of a text before it is logged or shown."""

from __future__ import annotations

import re

__all__ = ["redact"]

_MASK = "[redacted]"
_SECRETS = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S),
    re.compile(r"\byard_[0-9a-f]{8}_[A-Za-z0-9_-]+"),
    re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]+"),
    re.compile(r"(?i)(?<=basic )[A-Za-z0-9+/=]{8,}"),
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),  # user:password of a URL
    re.compile(
        r"(?i)(?:password|passwd|secret|api[_-]?key|access[_-]?key|sig)(?:[\"']?\s*[=:]\s*[\"']?)([^\s\"'&,;}]+)"
    ),
)


def redact(text: str) -> str:
    """Return the text with tokens, keys and passwords masked.

    >>> redact("Authorization: Bearer abc.def, password=hunter2 for postgresql://me:pw@db/x")
    'Authorization: Bearer [redacted], password=[redacted] for postgresql://[redacted]@db/x'
    """
    for secret in _SECRETS:
        text = secret.sub(_mask, text)
    return text


def _mask(found: re.Match[str]) -> str:
    if found.re.groups:
        # The name stays, its value goes.
        return found[0][: found.start(1) - found.start()] + _MASK
    return _MASK
