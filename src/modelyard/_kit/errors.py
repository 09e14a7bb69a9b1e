"""The family of errors, each with a stable code, a place and a next step.

    ModelyardError            exit 3   something in a step or in Modelyard itself went wrong
    |-- UserError             exit 2   what the user gave cannot be used
    |   |-- SpecError                  modelyard.yaml: carries one or many `Problem`s
    |   |-- DataError                  sources, columns, rows
    |   |-- ModelError                 families, search, export
    |   |-- ServeError                 the server cannot start
    |   |-- NotFound                   a run, model, table, alias or file that is not there
    |   `-- MissingExtra               an optional library is not installed
    |-- Refused               exit 1   a claim did not hold: evidence says no
    |   |-- CheckFailed                a blocking check failed
    |   |-- Stale                      the data are too old: the run is skipped, not failed
    |   |-- Spent                      the budget is used up: the run is stopped, not failed
    |   `-- Tampered                   a stored byte, number or event was changed
    |-- Busy                  exit 4   somebody else holds what is needed
    |   |-- Taken                      it was done already, by whoever came first
    |   `-- Unreachable                what is needed does not answer; it may again
    |-- Denied                exit 5   the caller may not do this
    `-- StepFailed            exit 3   a step raised an error that is not the user's input

Each code has a section in `docs/errors.md`; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

__all__ = [
    "Busy",
    "CheckFailed",
    "DataError",
    "Denied",
    "MissingExtra",
    "ModelError",
    "ModelyardError",
    "NotFound",
    "Problem",
    "Refused",
    "ServeError",
    "SpecError",
    "Spent",
    "Stale",
    "StepFailed",
    "Taken",
    "Tampered",
    "Unreachable",
    "UserError",
    "near",
]


def near(name: str, known: Iterable[str], *, most: int = 3) -> list[str]:
    """Return the known names closest to `name`, best first, at most `most` of them."""
    return get_close_matches(name, list(known), n=most, cutoff=0.6)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: what is wrong, where it stands and what to do next.

    Attributes:
        code: Stable kebab-case code with a section in `docs/errors.md`, e.g. `spec-unknown-field`.
        message: One sentence with the offending value in backticks.
        where: File and line, a column, a URL path; empty where there is none.
        hint: The next step, as an imperative sentence.
    """

    code: str
    message: str
    where: str = ""
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        tail = f"\n  hint: {self.hint}" if self.hint else ""
        return f"[{self.code}] {place}{self.message}{tail}"


class ModelyardError(Exception):
    """Base of every error that Modelyard raises on purpose.

    Args:
        code: Stable code, see `Problem`.
        message: One sentence for the user.
        where: Place of the mistake.
        hint: Next step.
    """

    exit_code = 3
    http_status = 500

    def __init__(self, code: str, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(code, message, where, hint)
        self.problem = Problem(code, message, where, hint)

    def __reduce__(self) -> tuple[object, ...]:
        # Steps run in other processes; their errors travel back with every field.
        p = self.problem
        return _revive, (type(self), p.code, p.message, p.where, p.hint)

    @property
    def code(self) -> str:
        """The stable code of the (first) problem."""
        return self.problem.code

    @property
    def problems(self) -> Sequence[Problem]:
        """Every mistake that this error carries; most carry one."""
        return (self.problem,)

    def __str__(self) -> str:
        return "\n".join(str(p) for p in self.problems)


def _revive(cls: type[ModelyardError], code: str, message: str, where: str, hint: str) -> ModelyardError:
    error = cls.__new__(cls)
    ModelyardError.__init__(error, code, message, where=where, hint=hint)
    return error


class UserError(ModelyardError):
    """What the user gave cannot be used; nothing was written."""

    exit_code = 2
    http_status = 400


class SpecError(UserError):
    """The declaration has one or more mistakes; all of them are listed at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0]
        super().__init__(first.code, first.message, where=first.where, hint=first.hint)
        self._problems = tuple(problems)

    def __reduce__(self) -> tuple[object, ...]:
        return SpecError, (self._problems,)

    @property
    def problems(self) -> Sequence[Problem]:
        """All mistakes found, in the order of the file."""
        return self._problems


class DataError(UserError):
    """A source, a column or the rows cannot be used."""


class ModelError(UserError):
    """A model cannot be trained, exported or read with what was given."""


class ServeError(UserError):
    """The server cannot start, or a request cannot be answered."""


class NotFound(UserError):
    """The thing named does not exist; the near names are in the hint."""

    http_status = 404

    @classmethod
    def of(cls, noun: str, name: str, known: Iterable[str]) -> NotFound:
        """Say that there is no `noun` called `name`, and name the near ones."""
        names = sorted(known)
        close = near(name, names)
        if close:
            hint = "did you mean " + " or ".join(f"`{c}`" for c in close) + "?"
        elif names:
            hint = f"there is: {', '.join(names[:8])}"
        else:
            hint = f"there is no {noun} yet"
        return cls(f"{noun.replace(' ', '-')}-not-found", f"no {noun} `{name}`", hint=hint)


class MissingExtra(UserError):
    """An optional library is needed and not installed."""

    def __init__(self, message: str, *, extra: str) -> None:
        super().__init__("missing-extra", message, hint=f"pip install 'modelyard[{extra}]'")
        self.extra = extra

    def __reduce__(self) -> tuple[object, ...]:
        return _revive_extra, (self.problem.message, self.extra)


def _revive_extra(message: str, extra: str) -> MissingExtra:
    return MissingExtra(message, extra=extra)


class Refused(ModelyardError):
    """A claim did not hold, so the thing asked for was not done."""

    exit_code = 1
    http_status = 409


class CheckFailed(Refused):
    """A blocking check failed; the alias does not move."""


class Stale(Refused):
    """The sources have nothing new enough, so that nothing after them is worth its cost."""


class Spent(Refused):
    """A budget is used up."""


class Tampered(Refused):
    """A stored byte, number or event differs from what was recorded."""


class Busy(ModelyardError):
    """Somebody else holds the project, the port or the lock."""

    exit_code = 4
    http_status = 503


class Taken(Busy):
    """What may be done once was done already; whoever comes second leaves it alone."""


class Unreachable(Busy):
    """A server that is needed does not answer now; the same may work when it is tried again."""


class Denied(ModelyardError):
    """The caller has no right to do this."""

    exit_code = 5
    http_status = 403


class StepFailed(ModelyardError):
    """A step raised an error that is not a mistake in the user's input."""
