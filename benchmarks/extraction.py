"""How well a model can be copied through its endpoint, and how surely those who try are told from others.

A model of the Adult census is served; attackers ask it and train LightGBM on what they are told: on the logit of the
probability where they see one, else on the label. Its fidelity is how often it says the same label as the model on
rows that neither has seen. Attackers ask about random rows within the ranges (F. Tramer et al., USENIX Security 2016),
real people, or rows along the boundary: halfway between rows of different labels, and a little beside that. Users ask
about people at random, or about people of one kind each.

How often a user is suspected is also told for one who asks 10,000 rows: each window of 256 is one more chance.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from _adult import NUMBERS, TEXTS, People, folder, people, project, share
from _bench import emit
from _serving import free_port, running
from modelyard.checks.usual import WINDOW
from modelyard.inference import open_bundle
from modelyard.security.keys import trusted_keys
from modelyard.security.tokens import add_token
from modelyard.serving.guards.extraction import Likeness

SIZES = (100, 300, 1000, 3000, 10_000)
SHOWN = {"whole": "operator", "rounded2": "analyst", "label": "admin"}
ROLES = {"analyst": "rounded(2)", "admin": "label"}
# Rows that an attacker begins with, and rows of one round along the boundary.
_SEED, _ROUND = 100, 50
_DEFAULT = 0.3

Ask = Callable[[People], list[Any]]


class Limited(Exception):
    """The endpoint gives this caller no answers any more."""


class Caller:
    """One caller of the endpoint.

    Args:
        port: Where it listens.
        token: Who asks.
        each: Rows of one request.
        pace: Rows a second; 0: as fast as they are answered.
    """

    def __init__(self, port: int, token: str, each: int = 500, pace: float = 0.0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self._each, self._pace = each, pace
        self._due = time.monotonic()

    def __call__(self, asked: People) -> list[Any]:
        """Return what is answered to each row.

        Raises:
            Limited: That is all; what came before is lost with this call.
        """
        rows, found = asked.rows(), []
        for at in range(0, len(rows), self._each):
            some = rows[at : at + self._each]
            if self._pace:
                time.sleep(max(0.0, self._due - time.monotonic()))
                self._due += len(some) / self._pace
            self._connection.request("POST", "/predict", json.dumps({"rows": some}), self._headers)
            answer = self._connection.getresponse()
            said = json.loads(answer.read())
            if answer.status == 429:
                raise Limited
            if answer.status != 200:
                raise SystemExit(f"the endpoint answered {answer.status}: {said}")
            found += said["predictions"]
        # The server closes what is idle for long, and training a copy takes its time.
        self._connection.close()
        return found


# --- attackers: each yields rows, and is sent the labels of those


def anywhere(seed: People, rng: Any) -> Iterator[People]:
    """Random rows within the ranges that the attacker knows of."""
    low, high = seed.numbers.min(axis=0), seed.numbers.max(axis=0)
    while True:
        numbers = rng.uniform(low, high, (_ROUND, len(NUMBERS))).round()
        texts = np.column_stack([rng.choice(np.unique(column.astype(str)), _ROUND) for column in seed.texts.T])
        yield People(numbers, texts.astype(object))


def real(seed: People, rng: Any) -> Iterator[People]:
    """Real people, each once."""
    order = rng.permutation(len(seed))
    for at in range(0, len(order), _ROUND):
        yield seed[order[at : at + _ROUND]]


def boundary(seed: People, rng: Any) -> Iterator[People]:
    """Rows halfway between two of different labels, a little beside; what is learned leads on."""
    known = seed[rng.permutation(len(seed))[:_SEED]]
    labels = yield known
    spread = known.numbers.std(axis=0)
    low, high = known.numbers.min(axis=0), known.numbers.max(axis=0)
    while True:
        yes, no = np.flatnonzero(labels), np.flatnonzero(~labels)
        # The newest are the nearest to the boundary.
        one, other = (some[-min(len(some), 500) :] for some in (yes, no))
        one, other = rng.choice(one, _ROUND), rng.choice(other, _ROUND)
        numbers = (known.numbers[one] + known.numbers[other]) / 2 + 0.05 * spread * rng.normal(
            size=(_ROUND, len(spread))
        )
        texts = np.where(rng.random((_ROUND, len(TEXTS))) < 0.5, known.texts[one], known.texts[other])
        asked = People(numbers.clip(low, high).round(), texts)
        told = yield asked
        known, labels = known + asked, np.concatenate([labels, told])


ATTACKERS = {"anywhere": anywhere, "real": real, "boundary": boundary}


def ask(attacker: Iterator[People], caller: Ask, most: int) -> tuple[People, list[Any]]:
    """Let an attacker ask so many rows, or until it is limited; return what it asked and was answered."""
    asked, answers = next(attacker), []
    rows = asked[:0]
    while True:
        asked = asked[: most - len(rows)]
        try:
            told = caller(asked)
        except Limited:
            return rows, answers
        rows, answers = rows + asked, answers + told
        if len(rows) >= most:
            return rows, answers
        asked = attacker.send(np.array([one["label"] == ">50K" for one in told]))


# --- copies


def matrix(rows: People, codes: list[dict[str, int]]) -> Any:
    """Return rows as LightGBM takes them."""
    texts = [[code.get(text, -1) for text in column] for code, column in zip(codes, rows.texts.T, strict=True)]
    return np.column_stack([rows.numbers, *texts])


def copied(rows: People, answers: list[Any], held: People) -> Any:
    """Train a model on answers, and return which of other rows it says yes to."""
    from lightgbm import LGBMClassifier, LGBMRegressor

    codes = [{text: at for at, text in enumerate(sorted(set(column)))} for column in rows.texts.T]
    given, asked = matrix(rows, codes), matrix(held, codes)
    how = {"n_estimators": 200, "learning_rate": 0.05, "min_child_samples": 5, "verbose": -1, "n_jobs": 1, "seed": 0}
    texts = list(range(len(NUMBERS), len(NUMBERS) + len(TEXTS)))
    if "probabilities" in answers[0]:
        p = np.clip([one["probabilities"][">50K"] for one in answers], 1e-3, 1 - 1e-3)
        learned = LGBMRegressor(**how).fit(given, np.log(p / (1 - p)), categorical_feature=texts)
        return learned.predict(asked) > 0
    labels = np.array([one["label"] == ">50K" for one in answers])
    if labels.all() or not labels.any():
        return np.full(len(held), labels[0])
    return LGBMClassifier(**how).fit(given, labels, categorical_feature=texts).predict(asked).astype(bool)


def fidelity(name: str, rows: People, answers: list[Any], held: People, truth: Any, text: str = "") -> None:
    """Print how often a copy says what the model says."""
    share(name, int((copied(rows, answers, held) == truth).sum()), len(held), None, text)


# --- the parts


def curves(port: int, tokens: dict[str, str], seed: People, held: People, most: int) -> tuple[Any, dict[str, People]]:
    """Print the fidelity by attacker, by what is shown and by rows; return the model's labels, and what was asked."""
    whole = Caller(port, tokens["operator"])
    truth = np.array([one["label"] == ">50K" for one in whole(held)])
    share(
        "majority", int(max(truth.sum(), (~truth).sum())), len(held), None, "what says the more frequent label always"
    )
    asked = {}
    for name, attacker in ATTACKERS.items():
        rows, _ = ask(attacker(seed, np.random.default_rng(1)), whole, most)
        asked[name] = rows
        for shown, role in SHOWN.items():
            answers = Caller(port, tokens[role])(rows)
            for size in (size for size in SIZES if size <= len(rows)):
                fidelity(f"fidelity_{name}_{shown}_{size}", rows[:size], answers[:size], held, truth)
    return truth, asked


def guarded(bundle: Path, root: Path, seed: People, held: People, truth: Any, most: int) -> None:
    """Print how far attackers get where callers are limited that ask as if to copy the model."""
    for name, attacker in ATTACKERS.items():
        for how, each, pace, rows in (("fast", _ROUND, 0.0, most), ("paced", 10, 100.0, min(most, 3000))):
            token = add_token(root, f"{name}-{how}", "operator")
            with serving(bundle, root, {"guards": {"extraction": {"do": "limit"}}}) as port:
                got, answers = ask(attacker(seed, np.random.default_rng(2)), Caller(port, token, each, pace), rows)
            said = "as fast as it is answered" if how == "fast" else "100 rows a second"
            end = "never limited" if len(got) >= rows else "limited"
            emit(f"guarded_{name}_{how}_rows", len(got), "", None, f"answered of {rows}, {end}; {said}")
            if answers:
                fidelity(f"guarded_{name}_{how}_fidelity", got, answers, held, truth)


def serving(bundle: Path, root: Path, policy: dict[str, Any]) -> Any:
    """Serve the bundle with a policy; yields the port."""
    from contextlib import contextmanager

    @contextmanager
    def served() -> Iterator[int]:
        port = free_port()
        line = [sys.executable, "-m", "modelyard.serving", "--bundle", str(bundle), "--project", str(root)]
        line += ["--endpoint", "income", "--port", str(port), "--policy", json.dumps(policy)]
        with running(line, port, "/v2/health/ready"):
            yield port

    return served()


def detector(bundle: Path, root: Path, asked: dict[str, People], users: People, windows: int) -> None:
    """Print how well the score tells attackers from users, and how often users are suspected."""
    from sklearn.metrics import roc_auc_score

    opened = open_bundle(bundle, trusted=trusted_keys(root))
    likeness = Likeness(opened.profile, opened.signature)

    def score(rows: People) -> float:
        return max(likeness.score(*rows.of(opened.signature)).values())

    rng = np.random.default_rng(3)
    kinds = [users] * (windows // 2) + [users.alike(rng, WINDOW) for _ in range(windows // 2)]
    benign = np.array([score(some[rng.permutation(len(some))[:WINDOW]]) for some in kinds])
    for name, found, limit in (
        ("at_random", benign[: windows // 2], 0.01),
        ("of_one_kind", benign[windows // 2 :], None),
    ):
        text = f"windows of {WINDOW} rows above {_DEFAULT}; the highest score is {found.max():.3f}"
        share(f"suspected_{name}", int((found > _DEFAULT).sum()), len(found), limit, text)
    for name, rows in asked.items():
        parts = [rows[at : at + WINDOW] for at in range(0, len(rows) - WINDOW + 1, WINDOW)]
        found = np.array([score(part) for part in parts])
        aucs = []
        for _ in range(1000):
            some = [rng.choice(values, len(values)) for values in (benign, found)]
            aucs.append(roc_auc_score(np.repeat([0, 1], [len(s) for s in some]), np.concatenate(some)))
        low, high = np.quantile(aucs, [0.025, 0.975])
        value = roc_auc_score(np.repeat([0, 1], [len(benign), len(found)]), np.concatenate([benign, found]))
        text = f"{low:.3f} to {high:.3f} (bootstrap, 95 %), {len(found)} windows against {len(benign)} of users"
        emit(f"auc_{name}", float(value), "", None, text)
        share(f"found_{name}", int((found > _DEFAULT).sum()), len(found), None, f"windows above {_DEFAULT}")
    callers = max(20, windows // 8)
    long = 0
    for _ in range(callers):
        rows = users[rng.integers(0, len(users), 10_000)]
        long += any(score(rows[begin : begin + WINDOW]) > _DEFAULT for begin in range(0, 10_000 - WINDOW, WINDOW))
    share("suspected_long_users", long, callers, 0.05, "of those who ask about 10,000 people at random")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=max(SIZES), help="rows that an attacker asks at most")
    parser.add_argument("--windows", type=int, default=400, help="windows of users")
    given = parser.parse_args()
    data = folder()
    if data is None:
        return 0
    every = people(data / "adult.test")
    order = np.random.default_rng(0).permutation(len(every))
    seed, held = every[order[:11_000]], every[order[11_000:]]
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        bundle = project(data, root)
        tokens = {role: add_token(root, role, role) for role in SHOWN.values()}
        with serving(bundle, root, {"access": {"show": ROLES}}) as port:
            truth, asked = curves(port, tokens, seed, held, given.rows)
        guarded(bundle, root, seed, held, truth, given.rows)
        detector(bundle, root, asked, every, given.windows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
