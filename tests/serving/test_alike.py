"""Whatever could tell one request from another is asked for before a turn is answered together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelyard.inference.kernels import compiled
from modelyard.serving.together import alike

from .conftest import regression_bundle  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .inprocess import Endpoint  # noqa: TID252

pytestmark = pytest.mark.skipif(compiled() is None, reason="there was no compiler when this was installed")

# What a version has that is the same for all requests it answers, or that `answer_together` and `Lane` ask themselves.
SAME = {
    "endpoint version signature problem trace digest _named _json labels usual limits runtime",  # of the model
    "clock answered rows erred last tally _began",  # counts, and by which time
    "gate batcher _bounds",  # asked by `answer_together` and `Lane`, of all rows at once
}


class Asked:
    """Notes which attributes of something are looked at."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.names: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.names.add(name)
        return getattr(self._real, name)


def test_a_version_has_nothing_that_nobody_has_decided_on(tmp_path: Path) -> None:
    """Who gives `Service` an attribute asks for it in `alike`, or says here why nobody has to."""
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        asked: Any = Asked(endpoint.service)
        assert alike(asked)
        same = {name for line in SAME for name in line.split()}
        assert vars(endpoint.service).keys() == asked.names | same
        assert not asked.names & same


@pytest.mark.parametrize("name", ["killed", "draining", "closed", "rollout", "watch", "days", "access"])
def test_each_of_them_keeps_requests_apart(tmp_path: Path, name: str) -> None:
    with Endpoint(tmp_path, regression_bundle(), None) as endpoint:
        before = getattr(endpoint.service, name)
        setattr(endpoint.service, name, object())
        assert not alike(endpoint.service)
        setattr(endpoint.service, name, before)
        assert alike(endpoint.service)
