"""The queue of messages, in the ledger: each is written down once, and stays until it is sent or given up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from modelyard._kit.clock import Clock, system_clock
from modelyard._kit.digest import digest_of
from modelyard._kit.errors import NotFound, Taken
from modelyard.automation.alerts.happening import Happening
from modelyard.automation.alerts.routes import Target
from modelyard.automation.alerts.rules import TROUBLES
from modelyard.automation.alerts.text import clean, plain_text, title
from modelyard.records import Alert, Draft
from modelyard.store import Store
from modelyard.store.folds import ALERTS

__all__ = ["ACTOR", "Outbox", "acknowledge", "alert_id", "begin"]

ACTOR = "alerts"

Facts = Sequence[tuple[str, str]]


def alert_id(identity: str, target: str, on: str) -> str:
    """Return the id of an alert: the same for the same cause and target, whoever finds it and how often."""
    return f"alert-{digest_of([identity, target, on])[:16]}"


def begin(store: Store, targets: Iterable[str]) -> dict[str, int]:
    """Note for each target that is new that it is told of what happens from now on.

    Returns:
        Name of a target -> up to which event it was looked after.
    """
    read = {name: int(seq) for name, seq in store.ledger.seen(ALERTS).items()}
    head = store.ledger.head()[0]
    new = {name: head for name in targets if name not in read}
    if new:
        store.ledger.append(Draft(kind="alert.read", actor=ACTOR, payload={"upto": new}))
    return read | new


def acknowledge(store: Store, alert_id: str, *, actor: str, reason: str = "") -> list[Alert]:
    """Note that a person knows of the trouble of an alert: it goes no further and is not repeated until it is over.

    Args:
        store: The project's store.
        alert_id: Id of an alert, or its beginning.
        actor: Who knows.
        reason: What there is to be said.

    Returns:
        The alerts of that trouble, to whichever target.

    Raises:
        NotFound: There is no such alert, or the beginning fits several.
    """
    every = store.ledger.alerts()
    found = [alert for alert in every if alert.id == alert_id]
    found = found or [alert for alert in every if len(alert_id) >= 4 and alert.id.startswith(alert_id)]
    if len(found) != 1:
        raise NotFound.of("alert", alert_id, (alert.id for alert in found or every[-20:]))
    same = [alert for alert in every if alert.open and alert.key == found[0].key]
    known = [alert for alert in same if not alert.acked] or ([found[0]] if not found[0].acked else [])
    drafts = [Draft(kind="alert.acked", actor=actor, payload={"id": a.id, "reason": reason}) for a in known]
    store.ledger.append(*drafts)
    return known or same or found


class Outbox:
    """Writes messages down, each once.

    Args:
        store: The project's store.
        project: Its name.
        clock: Source of the time.
    """

    def __init__(self, store: Store, project: str, *, clock: Clock = system_clock) -> None:
        self._store = store
        self._project = project
        self._clock = clock
        # Whether something was written since somebody last asked.
        self.fresh = True
        # Target and key -> the newest alert of a trouble that is not over.
        self.open: dict[tuple[str, str], Alert] = {}
        self.look()

    def look(self) -> None:
        """Read from the ledger which troubles are open, and who has acknowledged them."""
        self.open = {(alert.target, alert.key): alert for alert in self._store.ledger.alerts(open_only=True)}

    def put(self, happening: Happening, target: Target, more: Callable[[], Facts] = tuple) -> bool:
        """Write a message down, unless it was before, or its trouble was told of not long ago.

        Args:
            happening: What is told.
            target: To whom.
            more: Returns what else is known; asked only if the message is written.
        """
        known = self.open.get((target.name, happening.key)) if happening.on in TROUBLES else None
        if known is not None and (known.acked or happening.at - known.at < target.told.repeat):
            return False
        if self._store.ledger.alert(alert_id(happening.identity, target.name, happening.on)) is not None:
            return False
        return self._append(self._draft(happening, target, tuple(more())))

    def further(self, alert: Alert, target: Target) -> bool:
        """Write down for another target what nobody has acknowledged."""
        if self._store.ledger.alert(alert_id(alert.id, target.name, "further")) is not None:
            return False
        waited = ("nobody acknowledged", f"{alert.id}, told to {alert.target}: `modelyard alerts ack {alert.id}`")
        payload = {
            "id": alert_id(alert.id, target.name, "further"),
            "target": target.name,
            "on": alert.on,
            "urgency": alert.urgency,
            "key": alert.key,
            "open": True,
            "cause": alert.cause,
            "at": alert.at,
            "due": self._clock(),
            "digest": False,
            "title": alert.title,
            "text": f"{alert.text}\n{waited[0]}: {waited[1]}",
            "facts": [*map(list, alert.facts), list(waited)],
            "escalates": alert.id,
            "trace": alert.trace,
        }
        return self._append(Draft(kind="alert.queued", run=alert.run, step=alert.step, actor=ACTOR, payload=payload))

    def close(self, keys: Sequence[str], at: float, over: Sequence[tuple[Happening, Target]]) -> None:
        """Note that troubles are over, and write down for whom that is good news, together or not at all.

        Args:
            keys: Names of the troubles.
            at: Since when.
            over: What is told, and to whom.
        """
        drafts = [
            self._draft(happening, target, ())
            for happening, target in over
            if self._store.ledger.alert(alert_id(happening.identity, target.name, happening.on)) is None
        ]
        closed = Draft(kind="alert.closed", actor=ACTOR, payload={"keys": list(keys), "at": at})
        self._store.ledger.append(*drafts, closed)
        self.fresh = True
        self.open = {pair: a for pair, a in self.open.items() if pair[1] not in keys or a.at > at}

    def _draft(self, happening: Happening, target: Target, more: Facts) -> Draft:
        due, digest = target.due(happening.urgency, self._clock())
        facts = [(label, clean(text)) for label, text in (*more, *happening.facts) if text]
        payload = {
            "id": alert_id(happening.identity, target.name, happening.on),
            "target": target.name,
            "on": happening.on,
            "urgency": happening.urgency,
            "key": happening.key,
            "open": happening.on in TROUBLES,
            "cause": happening.cause,
            "at": happening.at,
            "due": due,
            "digest": digest,
            "title": title(self._project, happening.what),
            "text": plain_text(self._project, happening, facts),
            "facts": [list(fact) for fact in facts],
            "escalates": "",
            "trace": happening.trace,
        }
        return Draft(kind="alert.queued", run=happening.run, step=happening.step, actor=ACTOR, payload=payload)

    def _append(self, draft: Draft) -> bool:
        try:
            self._store.ledger.append(draft)
        except Taken:
            # Another machine was sender for a moment and has written it.
            return False
        alert = self._store.ledger.alert(draft.payload["id"])
        assert alert is not None  # noqa: S101 - it was written above
        self.fresh = True
        if alert.open:
            self.open[alert.target, alert.key] = alert
        return True
