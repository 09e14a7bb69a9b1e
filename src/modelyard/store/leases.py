"""Names that machines hold by leases in Postgres: heard of again and again, or free for the next one.

A lease is a row with a token and an end on the database's clock. Its holder moves the end on, from a thread with a
connection of its own; when it is killed, paused or cut off, the end comes, and somebody else may put another token
there. What the first one still tries to write carries the old token and is refused. See docs/decisions/014.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from modelyard._kit.errors import Busy, ModelyardError
from modelyard.store.address import Address
from modelyard.store.base import Held
from modelyard.store.folds import Execute
from modelyard.store.locks import held_by
from modelyard.store.session import Connection, Session, cleaned, numbered, transaction

__all__ = ["LEASES", "LOCK_HEAD", "Leases"]

LEASES = """CREATE TABLE leases (name TEXT PRIMARY KEY, token TEXT NOT NULL, who TEXT NOT NULL,
    since TIMESTAMPTZ NOT NULL, expires TIMESTAMPTZ NOT NULL)"""
# Appends and changes of holders take turns at the head of the ledger, so that each comes wholly before the other.
LOCK_HEAD = "SELECT seq, hash FROM head WHERE one = 1 FOR UPDATE"

_END = "clock_timestamp() + ? * interval '1 second'"
# Our own token is found again where the answer to the first attempt was lost.
_TAKE = f"""INSERT INTO leases (name, token, who, since, expires) VALUES (?, ?, ?, clock_timestamp(), {_END})
    ON CONFLICT (name) DO UPDATE SET token = excluded.token, who = excluded.who, since = excluded.since,
    expires = excluded.expires WHERE leases.expires <= clock_timestamp() OR leases.token = excluded.token
    RETURNING token"""  # noqa: S608 - values are bound
_RENEW = f"UPDATE leases SET expires = {_END} WHERE token = ANY(?) RETURNING token"  # noqa: S608 - values are bound
# What dead processes left: nobody comes back after so long.
_FORGET = "DELETE FROM leases WHERE expires < clock_timestamp() - interval '7 days'"
_GIVE_BACK = "DELETE FROM leases WHERE token = ?"
_STILL = "SELECT token FROM leases WHERE token = ANY(?)"
_HOLDER = """SELECT who, extract(epoch FROM since)::float8, extract(epoch FROM expires)::float8 FROM leases
    WHERE name = ? AND expires > clock_timestamp()"""
# Seconds until a beat that did not arrive is tried again.
_SOON = 0.5


class _Lease:
    """A name held by this process."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self.token = secrets.token_hex(16)
        self.seconds = seconds
        self.pid = os.getpid()
        self.lost = False

    def check(self) -> None:
        """Raise `lease-lost` if somebody else has taken the name over; see `Held.check`."""
        if self.lost:
            raise _lost(self.name)


class Leases:
    """The names that this process holds, and who holds which.

    Args:
        session: The ledger's connection; leases are taken and given back on it.
        address: With the length of a lease, and of a beat.
        schema: Schema of the project.
    """

    def __init__(self, session: Session, address: Address, schema: str) -> None:
        self._session = session
        self._address = address
        self._schema = schema
        self._guard = threading.Lock()
        self._held: dict[str, _Lease] = {}
        self._beats: _Beats | None = None

    @contextmanager
    def hold(self, name: str, *, who: dict[str, Any]) -> Iterator[Held]:
        """Hold a name while the context is open; see `Store.hold`."""
        lease = _Lease(name, self._address.lease)
        self._take(lease, {"pid": lease.pid, "host": socket.gethostname(), **who})
        with self._guard:
            self._held[lease.token] = lease
            if self._beats is None or not self._beats.is_alive():
                self._beats = _Beats(self._ours, Session(self._address, self._schema, answer=self._address.beat))
                self._beats.start()
        try:
            yield lease
        finally:
            # A forked child leaves its parent's name alone.
            if lease.pid == os.getpid():
                self._give_back(lease)

    def holder(self, name: str) -> dict[str, Any] | None:
        """Return who holds a name now, with `host`, `pid`, `since` and `expires`; none if its lease has ended."""
        sql, values = numbered(_HOLDER), cleaned((name,))
        found = self._session.attempt(
            lambda connection: connection.execute(sql, values).fetchall(), patience=self._address.timeout
        )
        if not found:
            return None
        who, since, expires = found[0]
        told: dict[str, Any] = {**msgspec.json.decode(who), "since": since, "expires": expires}
        return told

    def fence(self, execute: Execute) -> Callable[[], None]:
        """Ask which of the held names are still ours; the head must be locked.

        Returns:
            What raises `lease-lost` if one is not: nothing may be written then. It waits for the answer.
        """
        with self._guard:
            held = list(self._held.values())
        if not held:
            return _nothing
        answer = execute(_STILL, ([lease.token for lease in held],))

        def passed() -> None:
            ours = {token for (token,) in answer.fetchall()}
            for lease in held:
                lease.lost = lease.lost or lease.token not in ours
                lease.check()

        return passed

    def close(self) -> None:
        """Stop the beats; a name that is still held is free when its lease ends."""
        with self._guard:
            beats, self._beats = self._beats, None
        if beats is not None:
            beats.end()

    # -- inside

    def _ours(self) -> list[_Lease]:
        """Return the leases to keep: a forked child must not keep its parent's, which may be dead."""
        with self._guard:
            return [lease for lease in self._held.values() if lease.pid == os.getpid() and not lease.lost]

    def _take(self, lease: _Lease, who: dict[str, Any]) -> None:
        values = cleaned((lease.name, lease.token, msgspec.json.encode(who).decode(), lease.seconds))

        def take(connection: Connection) -> bool:
            with transaction(connection) as execute:
                execute(LOCK_HEAD)
                execute(_FORGET)
                return bool(execute(_TAKE, values).fetchall())

        while not self._session.attempt(take, patience=self._address.timeout):
            # Between the two looks its lease may have ended: then it is ours to take.
            if (found := self.holder(lease.name)) is not None:
                raise held_by(lease.name, found)

    def _give_back(self, lease: _Lease) -> None:
        with self._guard:
            del self._held[lease.token]
            last = not self._held
        if last:
            self.close()
        # A server that cannot be reached now is not waited for: the lease ends by itself.
        with suppress(ModelyardError):
            self._session.attempt(lambda connection: connection.execute(numbered(_GIVE_BACK), (lease.token,)))


class _Beats(threading.Thread):
    """Moves the ends of leases on until it is told to stop.

    Args:
        ours: Returns the leases to keep.
        session: A connection of its own: the other one may be busy with a long query.
    """

    def __init__(self, ours: Callable[[], list[_Lease]], session: Session) -> None:
        super().__init__(name="modelyard-leases", daemon=True)
        self._ours = ours
        self._session = session
        self._ended = threading.Event()

    def run(self) -> None:
        """Beat."""
        beat = self._session.answer
        wait = beat
        try:
            while not self._ended.wait(wait):
                wait = beat if self._renewed() else min(beat, _SOON)
        finally:
            self._session.close()

    def end(self) -> None:
        """Stop and close the connection."""
        self._ended.set()
        if self.is_alive():
            self.join()

    def _renewed(self) -> bool:
        """Move the ends on; whether the database answered. One that does not takes nothing away from anybody."""
        leases = self._ours()
        if not leases:
            return True
        values = (leases[0].seconds, [lease.token for lease in leases])
        try:
            kept = self._session.attempt(
                lambda connection: connection.execute(numbered(_RENEW), values).fetchall(),
            )
        except ModelyardError:
            return False
        tokens = {token for (token,) in kept}
        for lease in leases:
            lease.lost = lease.token not in tokens
        return True


def _nothing() -> None:
    """There is nothing to ask."""


def _lost(name: str) -> Busy:
    return Busy(
        "lease-lost",
        f"`{name}` was taken over by somebody else: this process was not heard of for longer than its lease",
        hint="leave it to the one who has it now; see whether this machine was paused or cut off",
    )
