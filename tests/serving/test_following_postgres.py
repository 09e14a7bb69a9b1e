"""A server whose ledger is in Postgres follows an alias that is moved there."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("psycopg", reason="no psycopg: pip install 'modelyard[postgres]'")

from modelyard.deploy.aliases import rollback

from .versions import ENDPOINT, Yard, times, until  # noqa: TID252 - the suite is not installed, so no absolute name

pytestmark = pytest.mark.cluster


def test_alias_that_is_moved_in_postgres_is_followed(tmp_path: Path, postgres_address: str) -> None:
    address = f"{postgres_address}?schema=following&files={tmp_path}/team"
    (tmp_path / "box").mkdir()
    yard = Yard(tmp_path / "box", address)
    try:
        first, second, broken = (yard.keep(times(factor)) for factor in (1.0, 5.0, 7.0))
        yard.promote(first)
        server = yard.serve(first, "--store", address)
        with server.client() as client:

            def answered() -> float:
                answer = client.post("/predict", json={"a": 2.0})
                assert answer.status_code == 200, answer.text
                return float(answer.json()["predictions"][0]["value"])

            assert answered() == 2.0
            yard.promote(second)
            until(lambda: answered() == 10.0)
            rollback(yard.store, ENDPOINT, actor="user:ana")
            until(lambda: answered() == 2.0)
            # And what it writes itself arrives there.
            yard.spoil(broken)
            yard.point(broken)
            back = until(lambda: (now := yard.now("champion")).model.digest == first.digest and now)
            assert "[bundle-tampered]" in back.reason
            assert answered() == 2.0
        assert server.stop() == 0, server.said
    finally:
        yard.store.close()
