"""Try a challenger beside the champion: on a share of the requests, or on copies of them.

As a canary it answers the requests whose key falls into its share. What both answer is counted, and a challenger that
errs, is slow or answers too differently loses its share at once. As a shadow it gets copies of what the champion has
answered, in a thread of its own and through a bounded queue: its answers are compared and go nowhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from modelyard._kit.digest import short
from modelyard._kit.errors import ServeError
from modelyard.checks.ab import Question
from modelyard.records import Signature
from modelyard.serving.asked import Asked
from modelyard.serving.errors import errs
from modelyard.serving.http.exchange import Exchange
from modelyard.serving.parsed import Parsed
from modelyard.serving.service import Service
from modelyard.serving.told import keep_voice, say, speaking, voice_here
from modelyard.serving.versions.choosing import chosen

__all__ = ["PROBATION", "Plan", "Rollout", "Tally", "alike", "distance", "read_plan", "verdict"]

# Seconds in which a new champion that errs gives its place back, where nothing is declared.
PROBATION = 300.0
# Requests that failed before a challenger is said to err, and the share beyond the champion's.
_ERRORS, _ERROR_SHARE = 3, 0.01
# Answers of each before times and distributions are compared, and answers that are looked back on.
_ENOUGH, _LOOK_BACK = 200, 2000
# A challenger is slow if it takes so many times as long as the champion, and so many milliseconds more.
_SLOWER, _SLOWER_MS = 3.0, 5.0
# Share of the answers that may differ in distribution, beyond what chance does.
_DIFFERENT = 0.25
_BINS = 10
# Answers of a canary before it may become the champion.
_HELD = 100
# Rows of one request that are looked at; copies that wait for the shadow.
_ROWS, _COPIES = 32, 256


@dataclass(frozen=True, slots=True)
class Plan:
    """How a challenger is tried, and a champion that has just taken over.

    Attributes:
        share: Share of the requests that it answers, 0 to 1.
        watch: Seconds after which a canary that held becomes the champion; 0: never by itself.
        shadow: It gets copies of the requests.
        ab: What is to be found out by both answering their share; none: nothing.
        probation: Seconds in which a new champion that errs gives its place back; 0: it never does.
    """

    share: float = 0.0
    watch: float = 0.0
    shadow: bool = False
    ab: Question | None = None
    probation: float = PROBATION

    def __bool__(self) -> bool:
        """Say whether a challenger is tried at all."""
        return bool(self.share or self.shadow)


def read_plan(canary: float, watch: float, shadow: bool, ab: str, probation: float = PROBATION) -> Plan:
    """Return what a server is told of how a challenger is tried.

    Args:
        canary: Share of the requests, 0 to 1.
        watch: Seconds until a canary that held is the champion.
        shadow: It gets copies of the requests.
        ab: An A/B test as JSON; empty: none.
        probation: Seconds in which a new champion that errs gives its place back.

    Raises:
        ServeError: The A/B test cannot be read (`ab-form`).
    """
    if not ab:
        return Plan(canary, watch, shadow, None, probation)
    try:
        question = msgspec.json.decode(ab, type=Question)
    except msgspec.DecodeError as error:
        hint = "give it as `modelyard serve` writes it, from `deploy.rollout.ab`"
        raise ServeError("ab-form", f"the A/B test cannot be read: {error}", hint=hint) from None
    return Plan(question.share, 0.0, shadow, question, probation)


@dataclass(slots=True)
class Tally:
    """What one version answered.

    Attributes:
        answers: Requests answered; those that a guard held back, too.
        errors: Requests that it could not answer, or not with finite numbers, see `Service.erred`.
        took: Milliseconds of the last ones.
        values: The last answers: position of the class, or the number itself.
    """

    answers: int = 0
    errors: int = 0
    took: deque[float] = field(default_factory=lambda: deque(maxlen=_LOOK_BACK))
    values: deque[float] = field(default_factory=lambda: deque(maxlen=_LOOK_BACK))

    def p99(self) -> float:
        """Return the milliseconds within which 99 of 100 of the last answers were given; 0 without any."""
        return sorted(self.took)[math.ceil(0.99 * len(self.took)) - 1] if self.took else 0.0

    def shown(self) -> dict[str, Any]:
        """Return the counts as plain data."""
        return {"answers": self.answers, "errors": self.errors, "p99_ms": round(self.p99(), 3)}


def alike(one: Signature, other: Signature) -> bool:
    """Say whether what was read for one model can be answered by another, and their answers compared."""
    columns = [[(f.name, f.type, f.nullable) for f in (*s.numbers, *s.categories)] for s in (one, other)]
    problems = [(s.problem.task, s.problem.classes, s.problem.positive) for s in (one, other)]
    return columns[0] == columns[1] and problems[0] == problems[1]


def distance(one: Sequence[float], other: Sequence[float], *, classes: bool) -> float:
    """Return the total variation distance of two samples, 0 to 1: of classes, or of tenths of the first sample."""
    if classes:
        first, second = Counter(one), Counter(other)
    else:
        ranked = sorted(one)
        edges = [ranked[len(ranked) * at // _BINS] for at in range(1, _BINS)]
        first = Counter(float(sum(value > edge for edge in edges)) for value in one)
        second = Counter(float(sum(value > edge for edge in edges)) for value in other)
    return sum(abs(first[k] / len(one) - second[k] / len(other)) for k in {*first, *second}) / 2


def verdict(champion: Tally, challenger: Tally, *, classes: bool, differ: bool = False) -> str:
    """Return why a challenger has to lose its share; empty if it may go on.

    Args:
        champion: What the champion answered.
        challenger: What the challenger answered.
        classes: They answer classes, not numbers.
        differ: Their answers may differ: that is what is compared.
    """
    asked = challenger.answers + challenger.errors
    usual = champion.errors / max(champion.answers + champion.errors, 1)
    if challenger.errors >= _ERRORS and challenger.errors / asked > 2 * usual + _ERROR_SHARE:
        return f"{challenger.errors} of {asked} requests were not answered as they should"
    few = min(len(champion.took), len(challenger.took))
    if few < _ENOUGH:
        return ""
    usual_ms, its_ms = champion.p99(), challenger.p99()
    if its_ms > _SLOWER * usual_ms + _SLOWER_MS:
        return f"99 of 100 answers take up to {its_ms:.1f} ms, the champion's {usual_ms:.1f} ms"
    if differ or min(len(champion.values), len(challenger.values)) < _ENOUGH:
        return ""
    apart = distance(champion.values, challenger.values, classes=classes)
    # Two samples of one distribution in k bins are about sqrt(k / (pi n)) apart by chance.
    chance = math.sqrt(_BINS / (math.pi * min(len(champion.values), len(challenger.values))))
    if apart > _DIFFERENT + chance:
        return f"{apart:.0%} of its answers fall elsewhere than the champion's"
    return ""


class Rollout:
    """One challenger on trial beside one champion; lives in the event loop.

    Args:
        champion: The version that answers.
        challenger: The version that is tried.
        plan: How.

    Attributes:
        compared: Answers of the shadow that were held against the champion's.
        agreed: How many of them were the same class, or within a thousandth.
        dropped: Copies that the shadow had no room for.
    """

    def __init__(self, champion: Service, challenger: Service, plan: Plan) -> None:
        self.champion = champion
        self.challenger = challenger
        self.plan = plan
        self.compared = self.agreed = self.dropped = 0
        self._below = int(plan.share * 2**32)
        self._classes = champion.problem.task != "regression"
        self._tallies = {id(champion): Tally(), id(challenger): Tally()}
        # What they had counted before, perhaps in another trial.
        self._before = {id(one): (one.answered, one.erred) for one in (champion, challenger)}
        self._shadow_erred = 0
        self._copies: queue.Queue[tuple[Parsed, list[list[float]]] | None] = queue.Queue(_COPIES)
        self._shadow: threading.Thread | None = None
        self._voice = voice_here()

    def begin(self) -> None:
        """Let the challenger take part from now on."""
        self.champion.watch = self.challenger.watch = self
        if self.plan.share:
            self.champion.rollout = self
        if self.plan.shadow:
            self._shadow = threading.Thread(target=keep_voice(self._follow), name="shadow", daemon=True)
            self._shadow.start()

    def end(self) -> None:
        """Let the champion answer everything again."""
        self.champion.rollout = None
        self.champion.watch = self.challenger.watch = None
        if self._shadow is not None:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._copies.get_nowait()
            self._copies.put_nowait(None)

    def close(self) -> None:
        """End, and wait for the shadow: a process must not end while a thread of it is in the model."""
        self.end()
        if self._shadow is not None:
            self._shadow.join(5.0)

    def pick(self, exchange: Exchange) -> Service:
        """Return the version that answers a request: by a header that an operator may send, else by its key.

        Raises:
            HttpError: The header names neither (`rollout-model`), or who asks may not choose (`role-denied`).
        """
        found = self._picked(exchange)
        if found is self.challenger:
            # What it cannot answer is its own, too.
            exchange.drawn = short(found.version.digest)
        return found

    def _picked(self, exchange: Exchange) -> Service:
        if name := chosen(exchange):
            return self.challenger if name == "challenger" else self.champion
        if exchange.version:
            return self.champion
        given = exchange.headers.get(b"x-canary-key")
        exchange.key = hashlib.blake2b(given, digest_size=8).hexdigest() if given else ""
        key = given or exchange.id.encode("latin-1")
        drawn = int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "big")
        return self.challenger if drawn < self._below else self.champion

    def verdict(self) -> str:
        """Return why the challenger has to lose its share; empty if it may go on."""
        if not self.plan.share:
            return ""
        both = self.tally(self.champion), self.tally(self.challenger)
        return verdict(*both, classes=self._classes, differ=self.plan.ab is not None)

    def held(self, since: float, *, released: bool) -> bool:
        """Say whether a canary has answered long enough to become the champion.

        Args:
            since: When it was named, in seconds since 1970.
            released: It has a card, without which it may not.
        """
        if not self.plan.watch or not self.plan.share or not released:
            return False
        return time.time() - since >= self.plan.watch and self.tally(self.challenger).answers >= _HELD

    def tally(self, service: Service) -> Tally:
        """Return what one of the two has answered, and what it could not, by its own count."""
        tally = self._tallies[id(service)]
        answered, erred = self._before[id(service)]
        tally.answers = service.answered - answered
        tally.errors = service.erred - erred + (self._shadow_erred if service is self.challenger else 0)
        return tally

    def stats(self) -> dict[str, Any]:
        """Return the counts of both as plain data."""
        return {
            "champion": {"model": self.champion.version.digest, **self.tally(self.champion).shown()},
            "challenger": {"model": self.challenger.version.digest, **self.tally(self.challenger).shown()},
            "share": self.plan.share,
            "shadow": {"compared": self.compared, "agreed": self.agreed, "dropped": self.dropped},
        }

    # -- what services say

    def answered(self, service: Service, group: list[Asked], took: list[float]) -> None:
        """Look at what was answered, and hand the shadow its copies; how many and how many not, the version counts."""
        tally = self._tallies[id(service)]
        tally.took.extend(took)
        for asked in group:
            if asked.parsed.error is not None:
                continue
            rows = _some(asked)
            values = self._values(rows)
            # Also of what a guard held back: what the models say is compared, not what is made of it.
            if all(map(math.isfinite, values)):
                tally.values.extend(values)
            if self._shadow is not None and service is self.champion:
                self._copy(asked.parsed, rows)

    def _values(self, rows: list[list[float]]) -> list[float]:
        if not self._classes:
            return [row[0] for row in rows]
        return [float(row.index(max(row))) if all(map(math.isfinite, row)) else math.nan for row in rows]

    # -- the shadow

    def _copy(self, parsed: Parsed, rows: list[list[float]]) -> None:
        try:
            self._copies.put_nowait((parsed, rows))
        except queue.Full:
            if not self.dropped:
                with speaking(self._voice):
                    say("the shadow does not keep up: requests are left out of the comparison", level="warning")
            self.dropped += 1

    def _follow(self) -> None:
        tally = self._tallies[id(self.challenger)]
        while (copy := self._copies.get()) is not None:
            parsed, rows = copy
            try:
                values = self._values(self.challenger.attempt(parsed)[:_ROWS])
            except Exception as error:  # noqa: BLE001 - nobody waits for it: it is counted
                self._shadow_erred += errs(error)
                continue
            if not all(map(math.isfinite, values)):
                self._shadow_erred += 1
                continue
            tally.values.extend(values)
            usual = self._values(rows)
            near = 0.0 if self._classes else 1e-3
            self.compared += len(values)
            self.agreed += sum(math.isclose(a, b, rel_tol=near) for a, b in zip(usual, values, strict=False))


def _some(asked: Asked) -> list[list[float]]:
    output = asked.output
    return output[:_ROWS] if isinstance(output, list) else output[:_ROWS].tolist()
