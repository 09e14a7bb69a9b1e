"""Checks of the answers that need no code: forbidden words, allowed answers, answers unlike those at training time.

All take time in proportion to the text and nothing more: words are found by `str.find`, patterns by polars' engine for
regular expressions, which knows no backtracking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.errors import ServeError
from modelyard.checks.strange import Strange
from modelyard.inference import Bundle
from modelyard.inference.decode import picked, scores
from modelyard.inference.encode import as_text
from modelyard.inference.kernels import compiled
from modelyard.records import Problem
from modelyard.serving.guards.base import Batch, Verdict
from modelyard.serving.guards.glance import Ruled, answers_of, glance_at_classes, is_no_number
from modelyard.serving.parsed import Parsed

if TYPE_CHECKING:
    import numpy as np

    from modelyard.serving.guards.glance import Glance

    Array = np.ndarray[Any, Any]

__all__ = ["BUILT_IN", "Blocklist", "Labels", "Unusual", "built_in"]

# Texts whose verdict is remembered: classes are few and come again.
_REMEMBERED = 10_000


class _Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of a check."""

    def made(self, bundle: Bundle) -> Ruled:
        """Return the check for one model.

        Raises:
            ServeError: It does not suit the model (`guard-unusable`).
        """
        raise NotImplementedError


class Blocklist(_Rule, frozen=True, kw_only=True):
    """Marks rows in which something forbidden stands.

    Attributes:
        terms: Words, in upper or lower case; a part of a word is none.
        patterns: Regular expressions, without looking around or back.
        columns: Text columns that are looked at besides the answer.
    """

    terms: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def made(self, bundle: Bundle) -> Ruled:
        """Return the check for one model."""
        taken = [feature.name for feature in bundle.signature.features if feature.type == "category"]
        for name in self.columns:
            if name not in taken:
                raise _unusable(f"`blocklist` looks at `{name}`, which is no text column of the model", taken)
        find = _finder(self.terms, self.patterns)
        known: dict[str, str] = {}

        def look_up(texts: set[str]) -> None:
            new = texts - known.keys()
            if len(known) + len(new) > _REMEMBERED:
                known.clear()
                new = texts
            if new:
                known.update(zip(ordered := sorted(new), find(ordered), strict=True))

        def blocklist(batch: Batch) -> list[Verdict]:
            texts = [[as_text(answer) for answer in batch.answers]]
            texts += [[as_text(value) for value in batch.inputs[name]] for name in self.columns]
            look_up({text for column in texts for text in column})
            return [next((known[text] for text in row if known[text]), None) for row in zip(*texts, strict=True)]

        answers = self._glance_at_answers(bundle, find)
        if not self.columns:
            return Ruled(blocklist, answers)
        named = [feature.name for feature in bundle.signature.categories]
        places = [named.index(name) for name in self.columns]

        def glance(output: Array, group: Sequence[Parsed]) -> bool:
            if answers is not None and not answers(output, group):
                return False
            texts: set[str] = set()
            for parsed in group:
                columns = parsed.categories.T  # type: ignore[union-attr] # there is a text column
                for at in places:
                    texts.update(columns[at].tolist())
            look_up(texts)
            return not any(map(known.__getitem__, texts))

        return Ruled(blocklist, glance)

    def _glance_at_answers(self, bundle: Bundle, find: Callable[[list[str]], list[str]]) -> Glance | None:
        """Return what says that nothing forbidden stands in the answers; none: it never does."""
        problem = bundle.signature.problem
        if problem.task != "regression":
            return glance_at_classes(problem, [bool(reason) for reason in find(answers_of(bundle))])
        if not self.patterns and all(is_no_number(term) for term in self.terms if term):
            return None
        # Numbers hardly come again: there is nothing to remember.
        return lambda output, _: not any(find([as_text(value) for value in output[:, 0].tolist()]))


class Labels(_Rule, frozen=True, kw_only=True):
    """Marks answers that are none of those allowed.

    Attributes:
        allowed: The answers that may be given.
    """

    allowed: tuple[str | int | float | bool, ...]

    def made(self, bundle: Bundle) -> Ruled:
        """Return the check for one model."""
        problem = bundle.signature.problem
        if problem.task == "regression":
            raise ServeError(
                "guard-unusable", "`labels` is about classes, and the model answers numbers", hint="use `within`"
            )
        allowed = frozenset(map(as_text, self.allowed))
        if strange := sorted(allowed.difference(problem.classes)):
            raise _unusable(f"`labels` allows `{strange[0]}`, which is none of the model's classes", problem.classes)

        def labels(batch: Batch) -> list[Verdict]:
            return [as_text(answer) not in allowed for answer in batch.answers]

        return Ruled(labels, glance_at_classes(problem, [answer not in allowed for answer in answers_of(bundle)]))


class Unusual(_Rule, frozen=True, kw_only=True):
    """Marks answers unlike those that the model gave when it was made, by the profile in its bundle.

    Attributes:
        score: A row is marked above it; at 0.99 at most about one answer in a hundred of those at training time is.
    """

    score: float = 0.999

    def made(self, bundle: Bundle) -> Ruled:
        """Return the check for one model."""
        if not 0 < self.score < 1:
            raise ServeError("guard-unusable", f"the score {self.score:g} of `unusual` is not between 0 and 1")
        answers = bundle.profile.get("predictions", {})
        if not answers:
            raise ServeError(
                "guard-unusable",
                "`unusual` needs a profile of the model's answers, and the bundle has none",
                hint="train again: `modelyard run` adds it",
            )
        problem = bundle.signature.problem
        named = ["label"] if problem.classes else []
        strange = Strange({"features": answers}, ["score"], named, self.score)

        def unusual(batch: Batch) -> list[Verdict]:
            import numpy as np

            if problem.classes:
                given = np.array([[row[name] for name in problem.classes] for row in batch.probabilities])
                texts = np.array([[as_text(answer)] for answer in batch.answers], object)
            else:
                given, texts = np.array([batch.answers], np.float64).T, None
            with np.errstate(over="ignore"):
                numbers = scores(given, problem).astype(np.float32).reshape(-1, 1)
            marked: list[Verdict] = strange.outliers(numbers, texts).tolist()
            return marked

        return Ruled(unusual, _glance_at_unusual(bundle, strange))


def _span(problem: Problem) -> Callable[[Array], tuple[float, float]]:
    """Return what takes a model's output and returns its least and its largest score: compiled, where that is there."""
    import numpy as np

    least, most, kernels = np.minimum.reduce, np.maximum.reduce, compiled()

    def span(output: Array) -> tuple[float, float]:
        numbers = scores(output, problem)
        return least(numbers), most(numbers)

    if kernels is None or problem.task not in ("binary", "regression"):
        return span
    # Of these a score is a column of the output.
    column = problem.classes.index(problem.positive) if problem.classes else 0
    return lambda output: kernels.span(output, column) if output.dtype.char == "f" else span(output)


def _glance_at_unusual(bundle: Bundle, strange: Strange) -> Glance:
    import numpy as np

    problem = bundle.signature.problem
    named = np.array(answers_of(bundle), object).reshape(-1, 1)
    low, high = _usual_scores(bundle, strange, named)
    span = _span(problem)

    def glance(output: Array, _: Sequence[Parsed]) -> bool:
        # What is no number is within nothing; what is rounded to 32 bits stays within.
        least, most = span(output)
        if low <= least and most <= high:
            return True
        numbers = scores(output, problem)
        some = np.flatnonzero(~((numbers >= low) & (numbers <= high)))
        with np.errstate(over="ignore"):
            numbers = numbers[some].astype(np.float32).reshape(-1, 1)
        return strange.harmless(numbers, named[picked(output[some], problem)] if problem.classes else None)

    return glance


def _usual_scores(bundle: Bundle, strange: Strange, named: Array) -> tuple[float, float]:
    """Return between which scores no answer is strange, whatever its class: the widest range from knot to knot."""
    import numpy as np

    knots: Array = np.asarray(bundle.profile["predictions"].get("score", {}).get("knots", []), np.float32)
    classes: list[Any] = named[:, 0].tolist() or [None]
    # All that lies between two knots is as strange; behind the last one the range ends.
    after = (knots.astype(np.float64) + np.append(knots[1:], knots[-1:])) / 2
    on, between = np.ones(len(knots), bool), np.ones(len(knots), bool)
    for usual, points in ((on, knots), (between, after.astype(np.float32))):
        for name in classes if len(knots) else ():
            texts = None if name is None else np.full((len(points), 1), name, object)
            usual &= ~strange.outliers(points.reshape(-1, 1), texts)
    found, begin = (np.inf, -np.inf), 0
    for at in range(len(knots)):
        if not on[at]:
            begin = at + 1
            continue
        if knots[at] - knots[begin] >= found[1] - found[0]:
            found = float(knots[begin]), float(knots[at])
        if not between[at]:
            begin = at + 1
    return found


BUILT_IN: Mapping[str, type[_Rule]] = {"blocklist": Blocklist, "labels": Labels, "unusual": Unusual}


def built_in(name: str, params: Mapping[str, Any]) -> _Rule:
    """Return a check of `BUILT_IN` with its parameters.

    Raises:
        ServeError: It takes no such parameters, or a pattern cannot be used (`guard-unusable`).
    """
    kind = BUILT_IN[name]
    try:
        made = msgspec.convert(dict(params), kind)
    except msgspec.ValidationError as error:
        takes = ", ".join(kind.__struct_fields__)
        raise ServeError(
            "guard-unusable", f"the parameters of `{name}` cannot be used: {error}", hint=f"it takes: {takes}"
        ) from None
    if isinstance(made, Blocklist):
        if not any((*made.terms, *made.patterns)):
            raise ServeError("guard-unusable", "`blocklist` has neither terms nor patterns", hint="add `terms: [...]`")
        _finder(made.terms, made.patterns)
    return made


def _finder(terms: Sequence[str], patterns: Sequence[str]) -> Callable[[list[str]], list[str]]:
    """Return what says of texts which term or pattern stands in each; empty where none does.

    Raises:
        ServeError: A pattern cannot be used (`guard-unusable`).
    """
    folded = [term.casefold() for term in terms if term]
    for pattern in patterns:
        _matches(pattern, [""])

    def find(texts: list[str]) -> list[str]:
        found = [_term(text.casefold(), folded) for text in texts]
        for pattern in patterns if texts else ():
            for at, hit in enumerate(_matches(pattern, texts)):
                if hit and not found[at]:
                    found[at] = f"it matches `{pattern}`"
        return found

    return find


def _term(text: str, terms: Sequence[str]) -> str:
    for term in terms:
        at = text.find(term)
        while at >= 0:
            end = at + len(term)
            if not (text[at - 1 : at].isalnum() or text[end : end + 1].isalnum()):
                return f"it holds `{term}`"
            at = text.find(term, end)
    return ""


def _matches(pattern: str, texts: list[str]) -> list[bool]:
    import polars as pl

    try:
        found: list[bool] = pl.Series(texts, dtype=pl.String).str.contains(pattern).to_list()
    except pl.exceptions.ComputeError as error:
        said = str(error).removeprefix("regex error: ").splitlines()
        reason = next((line.removeprefix("error: ") for line in said if line.startswith("error: ")), said[0])
        raise ServeError(
            "guard-unusable",
            f"`{pattern}` is no pattern that can be searched in one pass: {reason}",
            hint="write it without looking around or back, and a backslash before a sign that is meant as it is",
        ) from None
    return found


def _unusable(message: str, known: Sequence[str]) -> ServeError:
    return ServeError("guard-unusable", message, hint=f"there is: {', '.join(known)}" if known else "")
