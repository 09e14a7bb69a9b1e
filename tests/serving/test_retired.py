"""What versions counted that are gone is told on: no swap takes a counter back, and labels stay bounded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.inference import open_bundle
from modelyard.security.keys import trusted_keys
from modelyard.serving.observability.metrics import stats, tell
from modelyard.serving.service import Service

from .conftest import lay  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .inprocess import Endpoint  # noqa: TID252
from .versions import times, until  # noqa: TID252


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    with Endpoint(tmp_path, times(1.0), None) as made:
        yield made


def swap(endpoint: Endpoint, factor: float) -> Service:
    """Have another version answer, and forget the one before it."""
    root = endpoint.log.path.parent
    bundle = open_bundle(lay(root / f"{factor}", times(factor)), trusted=trusted_keys(root / f"{factor}"))
    made = Service(bundle, endpoint.service.endpoint, endpoint.log, endpoint.app.limits)
    before, endpoint.service = endpoint.service, made
    endpoint.models.put(made)
    endpoint.models.drop(before)
    before.close()
    return made


def totals(endpoint: Endpoint) -> dict[str, float]:
    """Return the counters, summed over versions."""
    found: dict[str, float] = {}
    for family in tell(endpoint.models).families:
        if family.kind != "gauge":
            for name, value in family.samples.items():
                one = re.sub(r'version="\w*"', "", name)
                found[one] = found.get(one, 0) + value
    return found


def asked(endpoint: Endpoint) -> None:
    answers = endpoint.ask({"a": 1.0}, {"rows": [{"a": 1.0}, {"a": 2.0}]}, {"b": 1.0})
    assert [status for status, _ in answers] == [200, 200, 400]


def test_a_swap_takes_no_counter_back(endpoint: Endpoint) -> None:
    asked(endpoint)
    before, said = totals(endpoint), stats([endpoint.models])
    assert (said["answered"], said["rows"]) == (2, 3)
    swap(endpoint, 2.0)
    after, then = totals(endpoint), stats([endpoint.models])
    assert {name: value for name, value in before.items() if after.get(name, 0) < value} == {}
    assert (then["answered"], then["rows"], then["runs"]) == (2, 3, said["runs"])
    asked(endpoint)
    then = stats([endpoint.models])
    assert (then["answered"], then["rows"]) == (4, 6)
    assert endpoint.models.answered == 4
    # Nothing of what is gone is at work.
    gauges = [one.samples for one in tell(endpoint.models).families if one.name in ("in_flight", "ready")]
    assert [len(samples) for samples in gauges] == [1, 1]


def test_a_version_that_comes_back_counts_on(endpoint: Endpoint) -> None:
    asked(endpoint)
    rows = {name: value for name, value in samples(endpoint).items() if "rows_total" in name and value == 3}
    swap(endpoint, 2.0)
    swap(endpoint, 1.0)
    asked(endpoint)
    # What was logged counts once it is written, a moment after the answer.
    until(lambda: {name: samples(endpoint)[name] for name in rows} == dict.fromkeys(rows, 6.0))


def samples(endpoint: Endpoint) -> dict[str, Any]:
    return {name: value for family in tell(endpoint.models).families for name, value in family.samples.items()}


def test_the_oldest_versions_are_told_of_together(endpoint: Endpoint) -> None:
    sizes = []
    for factor in range(2, 16):
        asked(endpoint)
        before = totals(endpoint)
        swap(endpoint, float(factor))
        after = totals(endpoint)
        assert {name: value for name, value in before.items() if after.get(name, 0) < value} == {}
        sizes.append(len(samples(endpoint)))
    assert sizes[-1] == sizes[-2] == sizes[-3]
    assert stats([endpoint.models])["rows"] == 14 * 3
    versions = {found for name in samples(endpoint) for found in re.findall(r'version="(\w+)"', name)}
    assert "older" in versions
    assert len(versions) == 10
