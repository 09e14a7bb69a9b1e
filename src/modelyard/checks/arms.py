"""What champion and challenger have answered, read out of the request log: each look goes on where the last one ended.

What is drawn by chance is a key, so a key counts once, as the mean over the rows of its requests: those of one person
hang together, and taken one by one they would make a difference look far surer than it is. Requests that were not drawn
count nowhere. A request that came without a key was drawn by its id and is a key of its own: of it nothing is kept but
sums. Of each other key a sum is kept, some 150 bytes.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Collection, Iterator
from typing import Any

from modelyard.checks.ab import Arm, Question
from modelyard.checks.sequential import Sample
from modelyard.inference.encode import as_text
from modelyard.store.packed import Packed
from modelyard.store.requests import LOAD_TEST, Turn, is_held
from modelyard.store.tail import Joined, joined_after, turns_after, turns_with

__all__ = ["Arms"]

# Outcomes that are looked for together: each search goes back in the log as far as the oldest of them.
_BATCH = 100_000


class _Means:
    """A sum for each of many keys, and of how many values."""

    def __init__(self) -> None:
        self._at: dict[str, int] = {}
        self._totals = array("d")
        self._counts = array("q")

    def __len__(self) -> int:
        return len(self._at)

    def add(self, key: str, total: float, count: int) -> None:
        at = self._at.setdefault(key, len(self._at))
        if at == len(self._totals):
            self._totals.append(total)
            self._counts.append(count)
        else:
            self._totals[at] += total
            self._counts[at] += count

    def sample(self) -> Sample:
        """Return the means of those that have a value."""
        if not self._at:
            return Sample()
        import numpy as np

        counts, totals = np.array(self._counts), np.array(self._totals)
        means = totals[counts > 0] / counts[counts > 0]
        if not len(means):
            return Sample()
        mean = float(means.mean())
        return Sample(len(means), mean, float(np.square(means - mean).sum()))


class _Arm:
    """What one version answered so far."""

    def __init__(self) -> None:
        self.requests = self.alone = self.rows = self.held = 0
        # Outcomes of requests that are keys of their own; of those with several rows, whose outcomes come one by one.
        self.single = Sample()
        self.several = _Means()
        self.keys = _Means()

    def arm(self) -> Arm:
        return Arm(
            requests=self.requests,
            keys=self.alone + len(self.keys),
            held=self.held / self.rows if self.rows else None,
            outcomes=self.single + self.several.sample() + self.keys.sample(),
        )


class Arms:
    """Reads what two versions answered.

    Args:
        models: Digests of champion and challenger.
        since: Time from which on requests count, in seconds since 1970 UTC.
        question: What is compared.
        classes: Labels that they answer, as text; empty: numbers. An outcome that is none of them does not count.
    """

    def __init__(self, models: tuple[str, str], since: float, question: Question, *, classes: Collection[str]) -> None:
        self._models = models
        self._arms = {model: _Arm() for model in models}
        self._since = since
        self._question = question
        self._classes = classes
        # Number of the last block, and of the last outcome, that was read.
        self._block = self._joined = 0

    def read(self, db: sqlite3.Connection) -> tuple[Arm, Arm]:
        """Read what has come, and return what champion and challenger have answered by now.

        Raises:
            sqlite3.Error: The log cannot be read; what was read before stands, and the next call goes on from there.
            msgspec.DecodeError: It holds what is no block.
        """
        if self._question.metric == "error":
            # Before the blocks: an outcome is written after its request, so there is none without its request.
            while batch := joined_after(db, self._joined, _BATCH):
                self._join(db, batch)
                self._joined = batch[-1].seq
        for seq, turns in turns_after(db, self._block, self._since):
            for turn in turns:
                self._take(turn)
            self._block = seq
        first, second = self._models
        return self._arms[first].arm(), self._arms[second].arm()

    def _take(self, turn: Turn) -> None:
        """Count a turn; and its outcomes, unless they become known later."""
        arm = self._arms.get(turn.model)
        if arm is None or not turn.keys:
            return
        metric, values = self._question.metric, []
        for name, key, ms, outputs in zip(turn.ids, turn.keys, turn.ms, _answers(turn), strict=True):
            if key is None or name.startswith(LOAD_TEST):
                continue
            # Of an empty one the content could not be logged: it is not known to have been held back.
            given = [output for output in outputs if output]
            known = [output for output in given if not is_held(output)]
            arm.requests += 1
            arm.rows += len(given)
            arm.held += len(given) - len(known)
            if metric == "ms":
                total, count = ms, 1
            elif metric == "label":
                total = sum(as_text(output["prediction"]) == self._question.label for output in known)
                count = len(known)
            else:
                total = count = 0
            if key:
                arm.keys.add(key, total, count)
            else:
                arm.alone += 1
                if count:
                    values.append(total / count)
        arm.single += Sample.of(values)

    def _join(self, db: sqlite3.Connection, batch: list[Joined]) -> None:
        """Count outcomes that became known, and those that became other ones."""
        changes: dict[str, Joined] = {}
        for one in batch:
            changes[one.id] = one._replace(was=changes[one.id].was) if one.id in changes else one
        # Nothing is counted before all are found: a search that fails is made again.
        found = [one for turn in turns_with(db, changes, self._since) for one in self._found(turn, changes)]
        for arm, key, values in found:
            for value, count in values:
                if key is None:
                    arm.single += Sample(count, value, 0.0)
                elif key.startswith("/"):
                    arm.several.add(key, count * value, count)
                else:
                    arm.keys.add(key, count * value, count)

    def _found(
        self, turn: Turn, changes: dict[str, Joined]
    ) -> Iterator[tuple[_Arm, str | None, list[tuple[float, int]]]]:
        """Yield what changes with the outcomes of a turn: values that come (1) and go (-1), by their key.

        A request that is its own key has none if it has one row, else its id behind a slash.
        """
        arm = self._arms.get(turn.model)
        if arm is None or not turn.keys:
            return
        for name, key, outputs in zip(turn.ids, turn.keys, _answers(turn), strict=True):
            if key is None or name.startswith(LOAD_TEST):
                continue
            one_row = len(outputs) == 1
            for at, output in enumerate(outputs):
                # An id that was sent twice counts once.
                change = changes.pop(name if one_row else f"{name}/{at}", None)
                if change is None or is_held(output):
                    continue
                pairs = ((self._distance(output, change.truth), 1), (self._distance(output, change.was), -1))
                values = [(value, count) for value, count in pairs if value is not None]
                yield arm, key or (None if one_row else f"/{name}"), values

    def _distance(self, output: dict[str, Any], truth: str | None) -> float | None:
        """Return how far an answer lies from its outcome; none where that cannot be said."""
        if truth is None:
            return None
        answer = output["prediction"]
        if self._classes:
            return float(as_text(answer) != truth) if truth in self._classes else None
        try:
            found = abs(answer - float(truth))
        except ValueError:
            return None
        return found if found - found == 0 else None


def _answers(turn: Turn) -> Iterator[list[dict[str, Any]]]:
    """Yield the outputs of each request; without probabilities where those would have to be unpacked."""
    outputs = turn.outputs
    if isinstance(outputs, Packed) and "prediction" in outputs.texts:
        predictions = iter(outputs.texts["prediction"])
        for count in turn.counts:
            yield [{"prediction": next(predictions)} for _ in range(count)]
    else:
        yield from turn.answers()
