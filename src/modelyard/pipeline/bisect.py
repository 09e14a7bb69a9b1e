"""Find the first bad run after the last good one, and say what changed there.

Runs carry their verdicts and evidence already, so that nothing has to be run again: a run is looked up, judged, and the
next one is chosen. A run without a verdict (its step did not come to run) is passed over.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from modelyard._kit.errors import NotFound, UserError
from modelyard._kit.text import plural
from modelyard.pipeline.changes import Change, ChangeKind, TableChange, between, table_changes, upstream
from modelyard.pipeline.question import Question, Verdict, asked, unknown
from modelyard.pipeline.recompute import plan_of
from modelyard.records import Run
from modelyard.store import Store

__all__ = ["Bisected", "Judged", "Question", "asked", "bisect"]

# As many runs are all judged: then it can also be said whether it went to and fro.
_ALL = 300
# More runs than these are not looked through.
_MOST = 100_000


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One run that was looked at.

    Attributes:
        run: Its id.
        time: When it began, seconds since 1970 UTC.
        verdict: `good`, `bad` or `none`.
        value: What was measured, if anything was.
    """

    run: str
    time: float
    verdict: str
    value: float | None = None


class Bisected(msgspec.Struct, frozen=True, kw_only=True):
    """What a bisection found.

    Attributes:
        question: What makes a run bad.
        first_bad: The first bad run after the last good one.
        last_good: The last good run before it.
        kinds: What changed there: `data`, `code`, `parameters`, `environment`, `world`; none if nothing did.
        step: The step where the first change enters; empty if nothing changed.
        changes: Every change, in the order of the plan.
        tables: Tables on the way that have another content.
        judged: The runs that were looked at, oldest first.
        between: Runs between the two that have no verdict: the change may have come with any of them.
        steady: Whether every run before was good and every run after bad, as far as it was looked at.
        target: The step that the question is about.
    """

    question: str
    first_bad: str
    last_good: str
    kinds: tuple[ChangeKind, ...]
    step: str
    changes: tuple[Change, ...]
    tables: tuple[TableChange, ...]
    judged: tuple[Judged, ...]
    between: tuple[str, ...] = ()
    steady: bool = True
    target: str = ""


def bisect(store: Store, question: Question, *, good: str = "", bad: str = "") -> Bisected:
    """Find the first bad run.

    Backfills are passed over unless they are named: they run other partitions than the runs before and after them.

    Args:
        store: Where the runs are.
        question: What makes a run bad.
        good: A run that is good; the newest good one before the bad one by default.
        bad: A run that is bad; the newest bad one by default.

    Raises:
        NotFound: There is no such run.
        UserError: No run is bad, or none before it is good (`bisect-nothing`), or one that was named is not what it was
            called (`bisect-verdict`).
    """
    search = _Search(store, question, good, bad)
    first, last = search.find()
    runs = search.run(last), search.run(first)
    target = search.verdict(first).step
    plan = plan_of(runs[1], store)
    names = upstream(plan, target) if target else [s.name for s in plan.steps]
    changes = between(*runs, store, *([target] if target else []))
    kinds = tuple(dict.fromkeys(change.kind for change in changes))
    return Bisected(
        question=question.says,
        first_bad=runs[1].id,
        last_good=runs[0].id,
        kinds=kinds,
        step=changes[0].step if changes else "",
        changes=tuple(changes),
        tables=tuple(table_changes(*runs, names)),
        judged=search.judged(),
        between=search.between(last, first),
        steady=search.steady(first),
        target=target,
    )


class _Search:
    """The runs in question, oldest first, and what was found out about them."""

    def __init__(self, store: Store, question: Question, good: str, bad: str) -> None:
        self._store = store
        self._question = question
        self._runs: dict[int, Run] = {}
        self._verdicts: dict[int, Verdict] = {}
        self._backfills: set[str] = set()
        listed = store.ledger.runs(limit=_MOST)[::-1]
        known = [run.id for run in listed]
        for named in (good, bad):
            if named and named not in known:
                raise NotFound.of("run", named, known[-50:])
        project = next((r.project for r in listed if r.id == bad), listed[-1].project if listed else "")
        listed = [r for r in listed if r.project == project]
        self.ids = [run.id for run in listed]
        if bad:
            self.ids = self.ids[: self.ids.index(bad) + 1]
        if good:
            if good not in self.ids:
                raise UserError(
                    "bisect-verdict",
                    f"{good} is not before {bad or 'the newest run'} of the same project",
                    hint="name the good run first, then the bad one",
                )
            self.ids = self.ids[self.ids.index(good) :]
        self._good, self._bad = good, bad

    def run(self, at: int) -> Run:
        """Return a run with its steps."""
        if at not in self._runs:
            found = self._store.ledger.run(self.ids[at])
            assert found is not None  # noqa: S101 - the ledger listed it
            self._runs[at] = found
        return self._runs[at]

    def verdict(self, at: int) -> Verdict:
        """Return what a run says."""
        if at not in self._verdicts:
            run = self.run(at)
            self._verdicts[at] = Verdict(None) if self._passed_over(run) else self._question.judge(run)
        return self._verdicts[at]

    def _passed_over(self, run: Run) -> bool:
        """Say whether a run is left out: one that filled older partitions says nothing of the newest, unless named."""
        if run.id in (self._good, self._bad):
            return False
        begun = next(self._store.ledger.events(run=run.id, kinds=("run.started",), limit=1))
        self._backfills |= {run.id} if "backfill" in begun.payload else set()
        return run.id in self._backfills

    def find(self) -> tuple[int, int]:
        """Return the places of the first bad run and of the last good one before it."""
        bad = self._newest_bad()
        if self._good:
            good = 0
            if self.verdict(0).bad is not False:
                raise self._other(self._good, "good", self.verdict(0))
        else:
            good = self._good_before(bad)
        if len(self.ids) <= _ALL:
            # All of them, so that it is seen whether it went to and fro.
            for at in range(len(self.ids)):
                self.verdict(at)
        if bad - good <= _ALL:
            good = next(at for at in range(bad - 1, good - 1, -1) if self.verdict(at).bad is False)
            return next(at for at in range(good + 1, bad + 1) if self.verdict(at).bad), good
        return self._halve(good, bad)

    def _newest_bad(self) -> int:
        newest = len(self.ids) - 1
        if self._bad:
            if self.verdict(newest).bad is not True:
                raise self._other(self._bad, "bad", self.verdict(newest))
            return newest
        for at in range(newest, -1, -1):
            if self.verdict(at).bad:
                return at
            if newest - at >= _ALL:
                break
        question = self._question
        if question.name and all(v.bad is None for v in self._verdicts.values()):
            names = {name for run in self._runs.values() for name in question.known(run)}
            if question.name not in names:
                raise unknown(question, names)
        raise UserError(
            "bisect-nothing",
            f"no run is bad: in none of {plural(len(self._verdicts), 'run')} is it so that {self._question.says}",
            hint="ask for something else: --step, --check, or --metric with --worse-than",
        )

    def _good_before(self, bad: int) -> int:
        """Look back in growing steps, one by one at first."""
        at, step = bad - 1, 1
        while at >= 0:
            if self.verdict(at).bad is False:
                return at
            if bad - at > _ALL:
                step *= 2
            at -= step
        raise UserError(
            "bisect-nothing",
            f"no run before {self.ids[bad]} is good: it was so from the first run on that {self._question.says}",
            hint="ask for something else, or see what the step needs with `modelyard show`",
        )

    def _other(self, run: str, called: str, verdict: Verdict) -> UserError:
        is_ = {True: "bad", False: "good", None: "neither: it has no verdict"}[verdict.bad]
        return UserError(
            "bisect-verdict",
            f"{run} was called {called} and is {is_} ({self._question.says})",
            hint="leave the runs out to have them found",
        )

    def _halve(self, good: int, bad: int) -> tuple[int, int]:
        while True:
            middle = self._with_verdict(good, bad)
            if middle is None:
                return bad, good
            if self.verdict(middle).bad:
                bad = middle
            else:
                good = middle

    def _with_verdict(self, good: int, bad: int) -> int | None:
        """Return the place nearest to the middle whose run has a verdict."""
        places = sorted(range(good + 1, bad), key=lambda at: abs(at - (good + bad) // 2))
        return next((at for at in places if self.verdict(at).bad is not None), None)

    def judged(self) -> tuple[Judged, ...]:
        """Return every run that was looked at."""
        words = {True: "bad", False: "good", None: "none"}
        return tuple(
            Judged(run=self.ids[at], time=self.run(at).started, verdict=words[v.bad], value=v.value)
            for at, v in sorted(self._verdicts.items())
            if self.ids[at] not in self._backfills
        )

    def between(self, last: int, first: int) -> tuple[str, ...]:
        """Return the runs between two places that have no verdict and might have."""
        return tuple(run for run in self.ids[last + 1 : first] if run not in self._backfills)

    def steady(self, first: int) -> bool:
        """Say whether what was looked at was good before the first bad run and bad from it on."""
        return all(v.bad is None or v.bad is (at >= first) for at, v in self._verdicts.items())


def verdicts(judged: Sequence[Judged]) -> str:
    """Return the verdicts as one word, oldest first: `....?xx`."""
    return "".join({"good": ".", "bad": "x"}.get(one.verdict, "?") for one in judged)
