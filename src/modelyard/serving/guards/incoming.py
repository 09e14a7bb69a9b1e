"""On the way to the model: what is unusual is told, refused, clipped or held back, for all rows of a group at once."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import ServeError, near
from modelyard.checks.strange import Strange
from modelyard.inference import Bundle, Feeds
from modelyard.serving.errors import HttpError
from modelyard.serving.guards.policy import Guarded
from modelyard.serving.observability.metrics import Tally
from modelyard.serving.parsed import WHOLE, Parsed, warning
from modelyard.serving.validate import Validator

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Incoming"]


class Incoming:
    """Makes feeds of rows as the validator does, and does with what is unusual as is declared.

    Args:
        bundle: The bundle; outliers are measured from its profile.
        validator: What the rows are held against first.
        policy: What to do.
        tally: Counts rows by guard and by what was done.

    Attributes:
        held: Rows that are held back, by their request; taken out by whoever answers it.
    """

    def __init__(self, bundle: Bundle, validator: Validator, policy: Guarded, tally: Tally) -> None:
        import numpy as np

        self._np = np
        self._validator = validator
        self._policy = policy
        self._decide, self._take = tally.decide, tally.take
        self._numbers = [f.name for f in validator.numbers]
        self._categories = [f.name for f in validator.categories]
        low, high = -np.inf, np.inf
        self._low = np.array([low if f.low is None else f.low for f in validator.numbers], np.float32)
        self._high = np.array([high if f.high is None else f.high for f in validator.numbers], np.float32)
        self._seen = [frozenset((*f.categories, "")) if f.categories else None for f in validator.categories]
        # A missing category is as in training where it was missing there too.
        self._wanted = policy.missing != "accept" and any(f.nullable for f in validator.categories)
        self._strange: Strange | None = None
        if policy.outlier is not None:
            if not bundle.profile.get("features"):
                raise ServeError(
                    "guard-unusable",
                    "`outlier` needs a profile of the training data, and the bundle has none",
                    hint="train again: `modelyard run` adds it",
                )
            self._strange = Strange(bundle.profile, self._numbers, self._categories, policy.outlier.score)
        self.held: dict[int, list[int]] = {}
        columns = validator.columns
        for name in policy.coerce:
            if name not in columns.features:
                close = near(name, columns.names)
                raise ServeError(
                    "guard-unusable",
                    f"`coerce` names `{name}`, and the model takes no such column",
                    hint=f"did you mean `{close[0]}`?" if close else f"columns: {', '.join(columns.names)}",
                )
        columns.coerce = frozenset(policy.coerce)

    def fit(self, group: list[Parsed]) -> Feeds:
        """Return the feeds of a group, see `Validator.fit`."""
        feeds, whole = self._validator.held(group)
        fitting = group if whole else [parsed for parsed in group if parsed.error is None]
        if not fitting:
            return feeds
        numeric, categorical = feeds.get("numeric"), feeds.get("categorical")
        harmless = self._strange is None or self._strange.harmless(numeric, categorical)
        if whole and harmless and not self._lacks(categorical):
            return feeds
        job = _Job(fitting)
        if numeric is not None and not whole:
            feeds["numeric"] = numeric = self._ranges(numeric, job)
        if categorical is not None and not whole:
            self._unseen(categorical, job)
        if self._policy.missing != "accept":
            self._missing(numeric, categorical, job)
        if self._strange is not None and not harmless:
            # Of what the model is given: nothing is rarer than a value outside, so none that is clipped would pass.
            strange = self._strange.outliers(numeric, categorical)
            if strange.any():
                self._outliers(strange, job)
        return self._left(feeds, group, job)

    def harmless(self, feeds: Feeds) -> bool:
        """Say that `fit` would tell, refuse, hold back and count nothing of rows that the validator calls whole."""
        strange, numeric, categorical = self._strange, feeds.get("numeric"), feeds.get("categorical")
        return not self._lacks(categorical) and (strange is None or strange.harmless(numeric, categorical))

    def _lacks(self, categorical: Array | None) -> bool:
        """Say that a category is missing of rows that the validator calls whole, and that something is to be done."""
        return self._wanted and categorical is not None and "" in chain.from_iterable(categorical.tolist())

    def attempt(self, group: list[Parsed]) -> Feeds:
        """Return the feeds of rows that nobody asked for, as the model would be given them."""
        feeds = self._validator.fit(group)
        if "numeric" in feeds and self._policy.out_of_range == "clip":
            feeds["numeric"] = self._np.clip(feeds["numeric"], self._low, self._high)
        return feeds

    def _ranges(self, numeric: Array, job: _Job) -> Array:
        np, do = self._np, self._policy.out_of_range
        outside: Array = (numeric < self._low) | (numeric > self._high)
        if not outside.any():
            return numeric
        self._decide("out_of_range", do, int(outside.any(axis=1).sum()))
        if do == "warn":
            return numeric  # the validator has told of it
        if do == "reject":
            what = "is outside the range seen in training"
            job.refuse("value-out-of-range", outside, self._numbers, what)
            return numeric
        for at in job.touched(outside):
            parsed = job.fitting[at]
            parsed.warnings = [
                {
                    **told,
                    "kind": "clipped",
                    "message": f"{told['message']}; the model was given the nearest value inside",
                }
                if told["column"] in self._numbers
                else told
                for told in parsed.warnings
            ]
        clipped: Array = np.clip(numeric, self._low, self._high)
        return clipped

    def _unseen(self, categorical: Array, job: _Job) -> None:
        unseen = self._np.zeros(categorical.shape, bool)
        for at, seen in enumerate(self._seen):
            column = categorical[:, at].tolist()
            if seen is not None and not seen.issuperset(column):
                unseen[:, at] = [text not in seen for text in column]
        if not unseen.any():
            return
        self._decide("unseen", self._policy.unseen, int(unseen.any(axis=1).sum()))
        if self._policy.unseen == "reject":
            job.refuse("value-unseen", unseen, self._categories, "holds a value that was not seen in training")

    def _missing(self, numeric: Array | None, categorical: Array | None, job: _Job) -> None:
        np, do = self._np, self._policy.missing
        for values, names in ((numeric, self._numbers), (categorical, self._categories)):
            if values is None:
                continue
            absent = np.isnan(values) if values is numeric else np.asarray(values == "", bool)
            if not absent.any():
                continue
            self._decide("missing", do, int(absent.any(axis=1).sum()))
            if do == "reject":
                job.refuse("value-missing", absent, names, "is missing, and this endpoint wants it given")
                continue
            for at, some in job.parts(absent):
                for name, count in zip(names, some.sum(axis=0).tolist(), strict=True):
                    if count:
                        job.warn(at, "missing", name, count, f"`{name}` is missing")

    def _outliers(self, strange: Array, job: _Job) -> None:
        assert self._policy.outlier is not None  # noqa: S101 - outliers are only looked for where it is declared
        do = self._policy.outlier.do
        self._decide("outlier", do, int(strange.sum()))
        for at, some in job.parts(strange):
            rows = self._np.flatnonzero(some).tolist()
            if not rows:
                continue
            if do == "reject":
                job.refuse_one(at, "row-outlier", f"row {rows[0]} is unlike the rows that the model was made from")
            elif do == "warn":
                what = "a row is" if len(rows) == 1 else "rows are"
                job.warn(at, "outlier", WHOLE, len(rows), f"{what} unlike those that the model was made from")
            else:
                self.held[id(job.fitting[at])] = rows

    def _left(self, feeds: Feeds, group: list[Parsed], job: _Job) -> Feeds:
        """Return the feeds of those that are not refused."""
        if not job.refused:
            return feeds
        self._take(sum(job.fitting[at].count for at in job.refused), refused=True)
        if len(job.refused) == len(job.fitting):
            return {}
        keep = self._np.ones(job.starts[-1], bool)
        for at in job.refused:
            keep[job.starts[at] : job.starts[at + 1]] = False
        return {name: values[keep] for name, values in feeds.items()}


class _Job:
    """One group: which rows belong to whom, and who is refused."""

    def __init__(self, fitting: list[Parsed]) -> None:
        self.fitting = fitting
        self.starts = [0, *accumulate(parsed.count for parsed in fitting)]
        self.refused: set[int] = set()

    def parts(self, rows: Array) -> Iterable[tuple[int, Array]]:
        """Yield the part of each request that is not refused."""
        for at in range(len(self.fitting)):
            if at not in self.refused:
                yield at, rows[self.starts[at] : self.starts[at + 1]]

    def touched(self, rows: Array) -> list[int]:
        """Return the requests of which a row is marked."""
        return [at for at, some in self.parts(rows) if some.any()]

    def refuse(self, code: str, wrong: Array, names: list[str], what: str) -> None:
        """Refuse the requests of which a value is marked, and name the first."""
        for at, some in list(self.parts(wrong)):
            if some.any():
                row, column = (int(i) for i in zip(*some.nonzero(), strict=True).__next__())
                self.refuse_one(at, code, f"row {row}: `{names[column]}` {what}")

    def refuse_one(self, at: int, code: str, message: str) -> None:
        """Refuse a request."""
        self.refused.add(at)
        self.fitting[at].error = HttpError(422, code, message)

    def warn(self, at: int, kind: str, column: str, rows: int, message: str) -> None:
        """Add a warning to a request."""
        parsed = self.fitting[at]
        parsed.warnings = [*parsed.warnings, warning(kind, column, rows, message)]
