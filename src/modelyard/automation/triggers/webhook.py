"""Fire when somebody who knows the secret says so; `automation.hooks` receives, here it is judged and written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import msgspec

from modelyard._kit.clock import Clock, system_clock
from modelyard._kit.digest import canonical
from modelyard._kit.errors import UserError
from modelyard.automation.base import Look, Wanted
from modelyard.automation.fires import ask, is_paused
from modelyard.automation.queue import Openings
from modelyard.automation.triggers.common import PAUSED, Common
from modelyard.automation.triggers.secret import read_secret
from modelyard.automation.triggers.signature import Unsigned, key_of, sender_id
from modelyard.pipeline.fired import joined_to
from modelyard.records import Fire, TriggerKind
from modelyard.security.redact import redact
from modelyard.spec.sections.triggers import Hook, OwnTrigger
from modelyard.store import Store

__all__ = ["Receipt", "WebhookTrigger"]

# A shorter secret can be guessed by whoever has caught one delivery.
_SHORTEST = 16
_MASK = "[redacted]"
# A run is given so many bodies of deliveries that came within `debounce` at most; the next one waits for its own run.
_MOST_BODIES, _MOST_BYTES = 100, 4_000_000
# Words that name harmless things as often as secrets: `{"key": "in/2026-11-21.csv"}`.
_HARMLESS = ("key", "sig")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a delivery.

    Attributes:
        status: `queued`: a run will follow; `dropped`: written down and left out; `known`: it came before.
        fire: Id of its fire, or of the one it joined; empty where it came before.
        why: Why it was left out.
    """

    status: Literal["queued", "dropped", "known"]
    fire: str = ""
    why: str = ""


class WebhookTrigger(Common):
    """Takes signed deliveries.

    Args:
        name: Its name in the file, and in the address it is sent to.
        section: What the file says of it.
        root: Folder of the project.
        store: Where its fires are written down.
        clock: Source of the time that deliveries are held against.

    Attributes:
        refused: Why deliveries were not taken -> how often, since it began.
    """

    kind: TriggerKind = "webhook"

    def __init__(
        self, name: str, section: OwnTrigger, root: Path, store: Store, *, clock: Clock = system_clock
    ) -> None:
        super().__init__(name, section, store, f"POST /hooks/{name}")
        self._hook: Hook = section.webhook or Hook(secret=())
        self._root = root
        self._clock = clock
        self._turn = Lock()
        self._openings = Openings()
        self.refused: Counter[str] = Counter()

    def start(self, wake: Callable[[], None]) -> None:
        """See that the secrets are there.

        Raises:
            UserError: One is not set, or too short to be one.
        """
        for place in self._hook.secret:
            self._key(place)
        super().start(wake)

    def look(self, now: float) -> Look:
        """Say that nothing is to be looked for: deliveries come by themselves."""
        return Look()

    def take(self, headers: Mapping[str, str], body: bytes) -> Receipt:
        """Judge a delivery and write it down, durably, before anybody is told that it is taken.

        Args:
            headers: By name, in lower case.
            body: What was sent, byte for byte: JSON, or nothing.

        Raises:
            Unsigned: It is not signed by who knows the secret, or too old.
            ValueError: The body is not JSON that can be kept.
            UserError: No secret can be read now, or nothing can be written.
        """
        now = self._clock()
        try:
            key = sender_id(self._hook.style, headers, body, self._secrets(), now)
            payload = _payload(body)
        except (Unsigned, ValueError) as error:
            self.refused[str(error)[:40]] += 1
            raise
        wanted = self._wanted(key, now, payload=payload, not_before=now + (self.section.debounce or 0.0))
        with self._turn:
            why = self._why()
            joined = None if why else self._waiting(now, len(body))
            fire = None
            if joined:
                fire = self._ask(wanted, joins=joined.id)
            if fire is None:
                # Nothing waits for it, or the run of what waited has begun meanwhile.
                fire = self._ask(wanted, drop=why)
        if fire is None:
            return Receipt("known")
        if fire.joined:
            return Receipt("queued", fire.joined)
        self._wake()
        return Receipt("dropped" if fire.state == "dropped" else "queued", fire.id, fire.why)

    def _why(self) -> str:
        if self.paused:
            return PAUSED
        return "the trigger is paused" if is_paused(self.name, self._store) else ""

    def _ask(self, wanted: Wanted, **more: str) -> Fire | None:
        return ask(self.name, self.kind, wanted, self._store, actor=f"trigger:{self.name}", **more)

    def _waiting(self, now: float, size: int) -> Fire | None:
        """Return the fire that still waits for others to join it and has room for so many bytes more."""
        if not self.section.debounce:
            return None
        fire = self._newest()
        if fire is None or fire.kind != self.kind or self._openings.of(fire, now) <= now:
            return None
        bodies = [fire.payload, *joined_to(fire, self._store)]
        room = _MOST_BYTES - sum(len(msgspec.json.encode(body)) for body in bodies)
        return fire if len(bodies) < _MOST_BODIES and size <= room else None

    def _newest(self) -> Fire | None:
        """Return the newest fire if it waits, or the one that it joined; older ones take in nothing more."""
        fire = next(iter(self._store.ledger.fires(trigger=self.name, newest=True, limit=1)), None)
        if fire is not None and fire.joined:
            fire = self._store.ledger.fire(fire.joined)
        return fire if fire is not None and fire.state == "queued" and not fire.run else None

    def _secrets(self) -> list[bytes]:
        """Return the keys that are set; while a secret is exchanged, one of them may be gone already."""
        keys, last = [], None
        for place in self._hook.secret:
            try:
                keys.append(self._key(place))
            except UserError as error:
                last = error
        if last is not None and not keys:
            raise last
        return keys

    def _key(self, place: str) -> bytes:
        secret = read_secret(place, self._root)
        try:
            key = key_of(secret)
        except ValueError as error:
            message = f"the secret in `{place}` begins with `whsec_`, and what follows is not base64"
            raise UserError("secret-unusable", message, hint="copy it again from the sender") from error
        if len(key) < _SHORTEST:
            raise UserError(
                "secret-unusable",
                f"the secret in `{place}` has fewer than {_SHORTEST} bytes",
                hint="make one: `openssl rand -base64 32`",
            )
        return key


def _payload(body: bytes) -> Any:
    if not body.strip():
        return None
    try:
        payload = _redacted(msgspec.json.decode(body), "")
        # What the ledger could not write down is refused while the sender still listens.
        canonical(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError) as error:
        raise ValueError("the body is not JSON") from error
    return payload


def _redacted(value: Any, name: str) -> Any:
    """Return plain JSON without secrets: what they look like, and what stands under their names."""
    match value:
        case dict():
            return {redact(key): _redacted(inner, key) for key, inner in value.items()}
        case list():
            return [_redacted(inner, name) for inner in value]
        case str():
            probe = "x" if name.lower() in _HARMLESS else value.replace('"', "") or "x"
            hidden = redact(f'{name}="{probe}"') == f"{name}={_MASK}" or redact(f"{name}=x") == f"{name}={_MASK}"
            return _MASK if name and hidden else redact(value)
        case int() | float() if not isinstance(value, bool) and redact(f"{name}=x") == f"{name}={_MASK}":
            return _MASK
        case _:
            return value
