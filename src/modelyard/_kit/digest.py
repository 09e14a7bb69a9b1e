"""Digests: one algorithm and one canonical form for everything that is compared by content."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["canonical", "digest_bytes", "digest_file", "digest_of", "short"]

# Sorted keys make the bytes, and so the digest, independent of the order of insertion.
_encoder = msgspec.json.Encoder(order="deterministic")
_CHUNK = 1 << 20


def canonical(value: Any) -> bytes:
    """Return the canonical JSON of a value: sorted keys, no spaces, UTF-8."""
    return _encoder.encode(value)


def digest_bytes(data: bytes | memoryview) -> str:
    """Return the SHA-256 of the bytes as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """Return the digest of any JSON-encodable value (structs included)."""
    return digest_bytes(canonical(value))


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in chunks of 1 MiB."""
    h = hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(_CHUNK):
            h.update(chunk)
    return h.hexdigest()


def short(digest: str) -> str:
    """Return the first 12 digits, enough to tell things apart on a screen."""
    return digest[:12]
