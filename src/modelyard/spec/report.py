"""Collect every mistake of a file, with its line, and hand them out in the order of the file."""

from __future__ import annotations

from dataclasses import dataclass, field

from modelyard._kit.errors import Problem, SpecError

__all__ = ["Finding", "Report", "shown"]


def shown(path: str) -> str:
    """Return a path as people say it: without the numbers of list items.

    Examples:
        >>> shown("checks.0.gap.across")
        'checks.gap.across'
    """
    return ".".join(part for part in path.split(".") if not part.isdigit())


@dataclass(frozen=True, slots=True)
class Finding:
    """One contradiction: the path where it stands, what it is, and the other paths it was judged by.

    It is dropped when one of these paths could not be read, so that one mistake is not told twice.
    """

    at: str
    message: str
    hint: str = ""
    needs: tuple[str, ...] = ()
    code: str = "spec-contradiction"


@dataclass(slots=True)
class Report:
    """The mistakes found so far.

    Attributes:
        name: Name of the file as it is shown.
        bad: Paths whose value could not be used; what depends on them is not judged.
    """

    name: str
    bad: set[str] = field(default_factory=set)
    _found: list[tuple[int, int, Problem]] = field(default_factory=list)

    def add(self, code: str, message: str, line: int, column: int = 1, *, hint: str = "") -> None:
        """Note one mistake at a line (from 1; 0 means the file as a whole)."""
        where = f"{self.name}:{line}" if line else self.name
        problem = Problem(code, message, where, hint)
        if all(problem != other for _, _, other in self._found):
            self._found.append((line, column, problem))

    def spoil(self, path: str) -> None:
        """Note that the value at a path could not be used."""
        self.bad.add(path)

    def judges(self, *paths: str) -> bool:
        """Whether the values at all these paths could be read, with what holds them and the items of a list.

        `path.*` asks for everything below the path too.
        """
        return not any(_touches(bad, path) for path in paths for bad in self.bad)

    def stop_if_any(self) -> None:
        """Raise everything found so far.

        Raises:
            SpecError: Something was found.
        """
        if self._found:
            raise SpecError([p for _, _, p in sorted(self._found, key=lambda f: (f[0], f[1]))])


def _touches(bad: str, path: str) -> bool:
    below = path.removesuffix(".*")
    if bad == below or below.startswith(f"{bad}."):
        return True
    return bad.startswith(f"{below}.") and (below != path or bad[len(below) + 1 :].isdigit())
