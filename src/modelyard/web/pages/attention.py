"""What needs somebody: a lost daemon, triggers that fail or are paused, a budget that is spent, alerts nobody got."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from modelyard._kit.text import plural
from modelyard.deploy.switch import switched_off, unloaded
from modelyard.web.pages.cost import allowed
from modelyard.web.pages.triggers import Board, DaemonRow
from modelyard.web.reader import Reader
from modelyard.web.words import money

__all__ = ["Attention", "attention"]

# Share of the month's budget from which on it is said.
_SOON = 0.8


@dataclass(frozen=True, slots=True)
class Attention:
    """One thing that needs somebody.

    Attributes:
        look: How bad it is, as a status that is shown.
        word: The same in a word or two.
        text: What it is, in a sentence.
        href: The page that says more.
        command: The command that mends it; empty if there is none.
    """

    look: str
    word: str
    text: str
    href: str
    command: str = ""


def attention(store: Reader, board: Board, daemons: Sequence[DaemonRow]) -> tuple[Attention, ...]:
    """Return what needs somebody, what stops everything first."""
    found = [
        Attention("failed", "off", f"{one.endpoint} answers nobody {one}", "/models")
        for one in switched_off(store.store)
    ]
    found += [Attention("queued", "unloaded", f"{one.endpoint} {one}", "/models") for one in unloaded(store.store)]
    found += [*_of_daemons(daemons), *_of_file(store, board), *_of_triggers(board), *_of_money(store)]
    failed = store.ledger.alerts(states=("failed",))
    if failed:
        text = f"{plural(len(failed), 'message')} to {', '.join(sorted({one.target for one in failed}))} given up"
        found.append(Attention("failed", "alerts", text, "/automation"))
    waiting = store.ledger.fires(states=("queued",))
    now = store.clock()
    late = [fire for fire in waiting if fire.not_before <= now]
    if late and not any(one.status == "running" for one in daemons):
        text = f"{plural(len(late), 'fire')} {'waits' if len(late) == 1 else 'wait'}, and no daemon runs"
        found.append(Attention("queued", "waiting", text, "/automation?state=queued", "modelyard up"))
    return tuple(sorted(found, key=lambda one: one.look not in ("failed", "lost", "stuck")))


def _of_daemons(daemons: Sequence[DaemonRow]) -> Iterator[Attention]:
    for one in daemons:
        if one.status == "lost":
            text = f"the daemon on {one.host} died; what waits stays in the queue"
            yield Attention("lost", "daemon lost", text, "/automation", "modelyard up")
        elif one.status == "stuck":
            yield Attention("stuck", "daemon stuck", f"the daemon on {one.host} lives and does nothing", "/automation")
        if one.problem:
            yield Attention("failed", "daemon", one.problem, "/automation")


def _of_file(store: Reader, board: Board) -> Iterator[Attention]:
    # Without any file the ledger was brought from elsewhere, and nothing is wrong.
    if board.problem is not None and store.declared().path.exists():
        yield Attention("failed", "declaration", board.problem.message, "/automation", "modelyard check")


def _of_triggers(board: Board) -> Iterator[Attention]:
    for row in board.rows:
        href = f"/automation?trigger={quote(row.name)}"
        if row.error:
            yield Attention("failed", "trigger fails", f"{row.name} cannot look: {row.error}", href)
        elif row.paused:
            yield Attention("paused", "paused", f"{row.name} is paused: {row.paused}", href)
        if row.kind != "manual" and row.last is not None and row.last.state in ("failed", "stopped"):
            yield Attention(row.last.state, "last fire", f"{row.name}: {row.last.why or row.last.state}", href)


def _of_money(store: Reader) -> Iterator[Attention]:
    spec = store.declared().spec
    if spec is None or spec.cost.per_month is None:
        # Then nobody has to add up what was spent.
        return
    limit = allowed(store)
    if limit is None or limit.per_month is None or limit.share < _SOON:
        return
    spent = f"{money(limit.spent)} of {money(limit.per_month)} {limit.currency}"
    if limit.share >= 1:
        yield Attention("failed", "budget spent", f"the month's budget is spent: {spent}; runs stop", "/cost")
    else:
        yield Attention("insufficient", "budget", f"the month's budget is nearly spent: {spent}", "/cost")
