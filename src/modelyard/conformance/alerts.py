"""What every ledger must do with alerts, as tests; `modelyard.conformance.store` says how to use them."""

# Tests say by their names what they promise, and assert.
# ruff: noqa: D102, S101

from __future__ import annotations

from typing import Any

import pytest

from modelyard._kit.errors import Taken
from modelyard.conformance.opened import OpenStore
from modelyard.records import Alert, Draft
from modelyard.store.base import Store

__all__ = ["AlertSuite", "alert_queued"]


def alert_queued(
    alert: str, *, target: str = "team", key: str = "run/failure/fit", at: float = 1.0, **more: Any
) -> Draft:
    """Return an alert that is to be sent."""
    payload = {
        "id": alert,
        "target": target,
        "on": "failure",
        "urgency": "high",
        "key": key,
        "open": True,
        "cause": 1,
        "at": at,
        "due": at,
        "title": "income: run failed",
        "text": "why",
        **more,
    }
    return Draft(kind="alert.queued", run="run-1", step="fit", actor="alerts", payload=payload)


def _sent(*alerts: str) -> Draft:
    return Draft(kind="alert.sent", payload={"ids": list(alerts), "target": "team"})


def _failed(alert: str, attempt: int, following: float) -> Draft:
    body = {"ids": [alert], "target": "team", "attempt": attempt, "error": "refused", "next": following}
    return Draft(kind="alert.failed", payload=body)


class AlertSuite(OpenStore):
    """The tests of the alerts of `store.ledger`."""

    def test_an_alert_is_written_down_once(self, store: Store) -> None:
        (event,) = store.ledger.append(alert_queued("a", facts=[["code", "step-failed"]], trace="t"))
        with pytest.raises(Taken):
            store.ledger.append(Draft(kind="watch.finished"), alert_queued("a"))
        assert store.ledger.head()[0] == 1
        told = store.ledger.alert("a")
        assert told is not None
        assert (told.id, told.run, told.step, told.seq, told.queued) == ("a", "run-1", "fit", 1, event.time)
        assert (told.facts, told.trace) == ((("code", "step-failed"),), "t")
        assert (told.state, told.attempt, told.open, told.acked) == ("waiting", 0, True, "")
        assert store.ledger.alert("b") is None

    def test_an_alert_waits_until_it_is_sent_or_given_up(self, store: Store) -> None:
        ledger = store.ledger
        ledger.append(*(alert_queued(name, key=name) for name in "abc"))
        ledger.append(_failed("a", 1, 50.0), _sent("b"), _failed("c", 7, 0.0))

        def standing(alert: str) -> tuple[Any, ...]:
            found = ledger.alert(alert)
            assert found is not None
            return found.state, found.attempt, found.next, found.error, bool(found.ended)

        assert standing("a") == ("waiting", 1, 50.0, "refused", False)
        assert standing("b") == ("sent", 0, 0.0, "", True)
        assert standing("c") == ("failed", 7, 0.0, "refused", True)
        ledger.append(_sent("a", "c"), _failed("b", 1, 60.0))
        # What was sent or given up stays so.
        assert [standing(name)[0] for name in "abc"] == ["sent", "sent", "failed"]

    def test_alerts_are_listed_in_order(self, store: Store) -> None:
        ledger = store.ledger
        for number in range(4):
            ledger.append(alert_queued(f"a{number}", key=f"k{number}", target="team" if number % 2 else "boss"))
        ledger.append(_sent("a1"))

        def names(alerts: list[Alert]) -> list[str]:
            return [alert.id for alert in alerts]

        assert names(ledger.alerts()) == ["a0", "a1", "a2", "a3"]
        assert names(ledger.alerts(newest=True, limit=2)) == ["a3", "a2"]
        assert names(ledger.alerts(target="boss")) == ["a0", "a2"]
        assert names(ledger.alerts(states=("waiting",), target="team")) == ["a3"]
        assert names(ledger.alerts(states=("sent", "failed"))) == ["a1"]

    def test_a_trouble_is_open_until_it_is_over(self, store: Store) -> None:
        ledger = store.ledger
        ledger.append(alert_queued("a", key="fit", at=1.0), alert_queued("b", key="fit", at=5.0))
        ledger.append(alert_queued("c", key="stale", at=2.0), alert_queued("d", key="start", open=False))
        # What is told of it again stands for what was told before.
        assert [a.id for a in ledger.alerts(open_only=True)] == ["b", "c"]
        ledger.append(Draft(kind="alert.closed", payload={"keys": ["fit", "stale"], "at": 3.0}))
        assert [a.id for a in ledger.alerts(open_only=True)] == ["b"]
        ledger.append(Draft(kind="alert.closed", payload={"keys": ["fit"], "at": 5.0}))
        assert ledger.alerts(open_only=True) == []

    def test_a_person_acknowledges_an_alert(self, store: Store) -> None:
        store.ledger.append(alert_queued("a"))
        store.ledger.append(Draft(kind="alert.acked", actor="user:ann", payload={"id": "a", "reason": ""}))
        told = store.ledger.alert("a")
        assert told is not None
        assert (told.acked, told.open) == ("user:ann", True)

    def test_how_far_was_read_is_kept_by_target(self, store: Store) -> None:
        from modelyard.store.folds import ALERTS

        for upto in ({"team": 3}, {"team": 9, "boss": 9}):
            store.ledger.append(Draft(kind="alert.read", payload={"upto": upto}))
        assert store.ledger.seen(ALERTS) == {"team": "9", "boss": "9"}

    def test_rebuilt_alerts_equal_the_live_ones(self, store: Store) -> None:
        ledger = store.ledger
        ledger.append(*(alert_queued(name, key=name) for name in "abcd"))
        ledger.append(_failed("a", 1, 50.0), _sent("b"), _failed("c", 7, 0.0))
        ledger.append(Draft(kind="alert.closed", payload={"keys": ["a"], "at": 3.0}))
        ledger.append(Draft(kind="alert.acked", actor="user:ann", payload={"id": "d", "reason": ""}))
        live = ledger.alerts()
        assert ledger.verify() == []
        ledger.rebuild()
        assert ledger.alerts() == live
        assert ledger.verify() == []
