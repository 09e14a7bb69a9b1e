"""Take secrets out of a text before it is logged or shown."""

from __future__ import annotations

import os
import re
from functools import cache
from itertools import pairwise

__all__ = ["redact"]

_MASK = "[redacted]"
# Words before the name, as in `AWS_SECRET_ACCESS_KEY` and `x-api-key`, and the value after it, in quotes or bare.
_BEFORE = r"(?<![A-Za-z0-9])(?:[A-Za-z0-9]{1,40}[_-]){0,4}"
_VALUE = r"(?!\[redacted\])(\"(?:[^\"\\\n]|\\.)*\"?|'(?:[^'\\\n]|\\.)*'?|[^\s\"',;&)}\]]+)"
_NAMES = (
    r"(?:pass(?:word|wd|phrase)?|pwd|secret"
    r"|(?:api|access|account|auth|client|private|secret|shared|signing|storage)[_-]?(?:key|secret|token))"
)
# These stand in plain sentences too (`key=lambda row`, `unexpected token: x`), so the value has to look random.
_RANDOM = r"(?=[\"']?[^\s\"']{8})(?=\S{0,100}\d)"
_VAGUE = r"(?:token|key|sig|signature|credentials?)"
_SECRETS = (
    re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.S),
    re.compile(r"\byard_[0-9a-f]{8}_[A-Za-z0-9_-]+"),
    re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}\b"),  # AWS
    re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk-)[A-Za-z0-9_-]{16,}"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"),  # JSON web tokens
    re.compile(r"(?i)(?<=\bbearer )[A-Za-z0-9._~+/=-]{6,}"),
    re.compile(r"(?<=\b(?i:basic) )(?=[a-z]*[A-Z0-9+/=])[A-Za-z0-9+/=]{8,}"),
    # User and password of a URL. A password may hold a slash or an @ that nobody escaped; a port is none.
    re.compile(r"(?<=://)[^/\s:@]{0,100}:(?!\d{1,5}/)[^\s'\"<>]{0,200}(?=@)"),
    re.compile(rf"(?i){_BEFORE}{_NAMES}[\"']?\s*(?:=(?!=)|:(?!:))\s*{_VALUE}"),
    re.compile(rf"(?i){_BEFORE}{_VAGUE}(?:[\"']?\s*=(?!=)|[\"']\s*:)\s*{_RANDOM}{_VALUE}"),
)
# One of these stands in everything that the patterns find; looking for them costs a tenth of the patterns.
_SIGNS: tuple[str, ...] = (
    "key",
    "token",
    "secret",
    "pass",
    "pwd",
    "://",
    "bearer",
    "basic",
    "sig",
    "credential",
    "yard_",
    "eyj",
    "sk-",
)
_SIGNS += ("akia", "asia", "aroa", "aida", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox")

# Variables of the environment whose values are secrets, by the words of their names.
_HIDDEN = {"PASSWORD", "PASSWD", "PASSPHRASE", "PASS", "SECRET", "SECRETS", "TOKEN", "CREDENTIAL", "CREDENTIALS"}
_HIDDEN |= {"APIKEY", "PGPASSWORD"}
_HIDDEN_KEYS = {"API", "ACCESS", "ACCOUNT", "AUTH", "CLIENT", "PRIVATE", "SECRET", "SHARED", "SIGNING", "STORAGE"}
# Shorter values would be found in harmless words.
_FEWEST = 6


def redact(text: str) -> str:
    """Return the text with tokens, keys and passwords masked, and the values of variables that hold such.

    >>> redact("Authorization: Bearer abc.def, password=hunter2 for postgresql://me:pw@db/x")
    'Authorization: Bearer [redacted], password=[redacted] for postgresql://[redacted]@db/x'
    """
    for value in _values():
        if value in text:
            text = text.replace(value, _MASK)
    lower = text.lower()
    for sign in _SIGNS:
        if sign in lower:
            break
    else:
        return text
    for secret in _SECRETS:
        text = secret.sub(_mask, text)
    return text


class _Seen:
    """The environment as it was when its secrets were last looked for."""

    raw: object = None
    values: tuple[str, ...] = ()


def _values() -> tuple[str, ...]:
    """Return the secret values of the environment, longest first, as they are and as they stand in a URL."""
    raw = getattr(os.environ, "_data", None)
    # Comparing what lies under `os.environ` costs a fiftieth of reading it.
    if raw is None or raw != _Seen.raw:
        found = {value for name, value in os.environ.items() if len(value) >= _FEWEST and _hides(name)}
        if found:
            from urllib.parse import quote

            found |= {quote(value, safe="") for value in found}
        _Seen.values = tuple(sorted(found, key=len, reverse=True))
        _Seen.raw = None if raw is None else dict(raw)
    return _Seen.values


@cache
def _hides(name: str) -> bool:
    words = name.upper().replace("-", "_").split("_")
    pairs = pairwise(words)
    return not _HIDDEN.isdisjoint(words) or any(a in _HIDDEN_KEYS and b == "KEY" for a, b in pairs)


def _mask(found: re.Match[str]) -> str:
    if found.re.groups:
        # The name stays, its value goes.
        return found[0][: found.start(1) - found.start()] + _MASK
    return _MASK
