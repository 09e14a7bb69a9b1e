"""What all values share: frozen, plain, JSON both ways, and an identity by content."""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard._kit.digest import digest_of

__all__ = ["Value", "plain"]


class Value(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Base of the values that flow between steps.

    A value knows nothing of where it is stored. Its JSON carries `kind`, so that any value can be read
    back without being told what it is.
    """

    @property
    def identity(self) -> str:
        """Digest that stands for this value in the keys of later steps.

        Values that point at content (tables, models) override it with the digest of that content, so that
        equal content made twice is the same input.
        """
        return digest_of(self)


def plain(value: Any) -> Any:
    """Return a value as plain dicts, lists, strings and numbers."""
    return msgspec.to_builtins(value)
