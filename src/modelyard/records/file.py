"""A file that a step made: an executed notebook, a picture, a report."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.records.base import Value

__all__ = ["File", "FileDraft"]


class File(Value, frozen=True, kw_only=True, tag="file"):
    """A file whose bytes are a blob.

    Attributes:
        name: What it is called, with its ending.
        digest: Digest of its bytes, under which the blob is stored.
        size: How many bytes it has.
        media: Its media type, e.g. `application/json`.
    """

    name: str
    digest: str
    size: int
    media: str = "application/octet-stream"

    @property
    def identity(self) -> str:
        """The digest of its bytes."""
        return self.digest


@dataclass(frozen=True, slots=True)
class FileDraft:
    """A file as a step returns it; the runner stores its bytes and records a `File`.

    Attributes:
        name: What it is called, with its ending.
        data: Its bytes.
        media: Its media type.
    """

    name: str
    data: bytes
    media: str = "application/octet-stream"
