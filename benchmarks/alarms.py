"""How often `modelyard watch` raises an alarm although nothing has changed, and after how many rows once something has.

Traffic is people of the Adult census whom the model has never seen, answered by the model itself; a window is what
`modelyard watch` looks at. Nothing has changed: windows drawn anew. Something has: from a moment on ages are too high,
or occupations are lost; the newest rows are looked at every 50, those before the change among them, until the first
alarm that names what was changed. An alarm at the first look, before the change, is false.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from _adult import TEXTS, People, folder, people, project, share
from _bench import emit
from modelyard.inference import Bundle, open_bundle
from modelyard.monitoring.section import Monitor
from modelyard.monitoring.watch import watch
from modelyard.monitoring.window import Window
from modelyard.security.keys import trusted_keys

# What `docs/guides/monitoring.md` promises of one watch.
BOUND = 0.01
SIZES = (50, 100, 200, 1000, 5000)
_EVERY = 50
_OCCUPATION = TEXTS.index("occupation")


class Traffic:
    """People, and what the model answers to them.

    Args:
        bundle: The model.
        some: The people.
    """

    def __init__(self, bundle: Bundle, some: People) -> None:
        self._bundle = bundle
        self._people = some
        numbers, texts = some.of(bundle.signature)
        found = np.asarray(bundle.predictor().predict({"numeric": numbers.astype(np.float32), "categorical": texts}))
        names = bundle.signature.problem.classes
        self._outputs = [
            {"prediction": names[int(np.argmax(row))], "probabilities": dict(zip(names, row, strict=True))}
            for row in found.tolist()
        ]

    def __len__(self) -> int:
        """How many there are."""
        return len(self._people)

    def window(self, some: Any) -> Window:
        """Return some of them as a window."""
        count = len(some)
        outputs = [self._outputs[at] for at in some]
        none = [None] * count
        return Window(
            "income",
            "",
            [str(at) for at in some],
            [0.0] * count,
            self._people[some].columns(),
            outputs,
            none,
            [0.0] * count,
        )

    def alarms(self, some: Any) -> list[str]:
        """Return the names of what has moved too far in a window."""
        found = watch(self.window(some), self._bundle.profile, self._bundle.signature, Monitor())
        return [result.check.name for result in found if result.status == "failed"]


def older(years: int) -> Callable[[People, Any], None]:
    """Return what makes everybody so many years older."""

    def change(some: People, rng: Any) -> None:
        some.numbers[:, 0] += years

    return change


def lost(part: float) -> Callable[[People, Any], None]:
    """Return what loses the occupation of a part of the rows."""

    def change(some: People, rng: Any) -> None:
        some.texts[rng.random(len(some)) < part, _OCCUPATION] = ""

    return change


PLANTED = {
    "age_5": (older(5), "age"),
    "age_10": (older(10), "age"),
    "age_20": (older(20), "age"),
    "occupation_10": (lost(0.1), "occupation"),
    "occupation_30": (lost(0.3), "occupation"),
    "occupation_100": (lost(1.0), "occupation"),
}


def quiet(traffic: Traffic, windows: int) -> None:
    """Print the share of windows with an alarm where nothing has changed."""
    for size in SIZES:
        rng = np.random.default_rng(size)
        # Windows of half of all people say the same again and again.
        count = windows if size <= 1000 else windows // 10
        found = [traffic.alarms(rng.permutation(len(traffic))[:size]) for _ in range(count)]
        names = sorted({name for one in found for name in one})
        share(f"false_alarms_{size}", sum(map(bool, found)), count, BOUND, ", ".join(names[:6]))


def planted(bundle: Bundle, every: People, sizes: tuple[int, ...], repeats: int) -> None:
    """Print after how many rows a change is noticed."""
    before = Traffic(bundle, every)
    for name, (change, column) in PLANTED.items():
        rng = np.random.default_rng(len(name))
        changed = every[np.arange(len(every))]
        change(changed, rng)
        both = Traffic(bundle, every + changed)
        for size in sizes:
            rows, false = [], 0
            for _ in range(repeats):
                order = rng.permutation(len(before))
                stream = np.concatenate([order[:size], len(before) + order[size : 3 * size]])
                noticed = float("inf")
                for at in range(0, 2 * size + 1, _EVERY):
                    alarms = both.alarms(stream[at : at + size])
                    if alarms and not at:
                        false += 1
                    elif any(column in alarm or alarm in ("missing", "unseen") for alarm in alarms):
                        noticed = at
                        break
                rows.append(noticed)
            middle, late = (float(np.quantile(rows, q, method="higher")) for q in (0.5, 0.95))
            there = sum(np.isfinite(rows))
            text = f"rows, median of {repeats}; {there} noticed within two windows of {size}, {false} false before"
            emit(f"noticed_{name}_{size}", middle if np.isfinite(middle) else -1, "", None, text)
            emit(
                f"noticed_{name}_{size}_p95", late if np.isfinite(late) else -1, "", None, "-1: not within two windows"
            )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=2000, help="windows in which nothing has changed, of each size")
    parser.add_argument("--repeats", type=int, default=40, help="of each change")
    given = parser.parse_args()
    data = folder()
    if data is None:
        return 0
    every = people(data / "adult.test")
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        bundle = open_bundle(project(data, root), trusted=trusted_keys(root))
        quiet(Traffic(bundle, every), given.windows)
        planted(bundle, every, (200, 1000), given.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
