"""What a page was asked for: path and query words, read with care because anybody may type them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from modelyard._kit.errors import UserError, near

__all__ = ["Query"]

_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Query:
    """Words of the address by name, those of the path and those after the `?` together.

    Attributes:
        words: Name -> text as it was typed.
    """

    words: Mapping[str, str] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """Return the word without spaces around it, at most 200 characters; empty if it is not given."""
        return self.words.get(name, "").strip()[:_LONGEST]

    def choice(self, name: str, known: Iterable[str]) -> str:
        """Return the word if it is one of `known`, empty if it is not given.

        Raises:
            UserError: It is another word.
        """
        word, known = self.text(name), list(known)
        if word and word not in known:
            close = near(word, known) or known
            raise UserError(
                "page-query",
                f"`{word}` is no value of `{name}`",
                hint="use " + " or ".join(f"`{one}`" for one in close),
            )
        return word
