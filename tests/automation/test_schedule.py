"""The trigger of a schedule: each time once, over restarts, clocks that jump, and times that were missed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard._kit.errors import UserError
from modelyard._kit.times import iso, moment, said, zone
from modelyard.automation.base import Look, Wanted
from modelyard.automation.fires import ask, write
from modelyard.automation.gate import GO
from modelyard.automation.queue import Queue
from modelyard.automation.schedule import ScheduleTrigger, next_texts, schedule_triggers
from modelyard.records import Draft, Fire
from modelyard.spec import load
from modelyard.spec.sections.schedule import Schedule
from modelyard.store import LocalStore

BERLIN = zone("Europe/Berlin")
HOUR = 3600.0
DAY = 86_400.0


def at(text: str) -> float:
    return moment(text, BERLIN)


class World:
    """A project under a simulated clock, with as many daemons as are asked for."""

    def __init__(self, store: LocalStore) -> None:
        self.store = store
        self.now = at("2026-11-23T00:00:30")

    def trigger(self, **section: Any) -> ScheduleTrigger:
        return ScheduleTrigger(
            Schedule(**{"zone": "Europe/Berlin", **section}), self.store.root, self.store, clock=lambda: self.now
        )

    def look(self, trigger: ScheduleTrigger, now: float | None = None) -> tuple[Look, list[Fire]]:
        self.now = self.now if now is None else now
        look = trigger.look(self.now)
        return look, write(trigger, look, self.store)

    def run(self, fire: Fire, *, seconds: float = 1.0, end: str = "succeeded") -> None:
        """Run a fire; the events get the ledger's own clock."""
        number = f"run-{fire.id[-10:]}"
        self.store.ledger.append(Draft(kind="run.started", run=number, payload={"project": "p", "fire": fire.id}))
        if end:
            self.store.ledger.append(
                Draft(kind="run.finished", run=number, payload={"status": end, "reason": "", "result": ""})
            )

    def fires(self, state: str = "") -> list[tuple[str, str]]:
        """Return due time and state of each fire, oldest first."""
        return [
            (said(f.due, BERLIN)[4:20], f.state) for f in self.store.ledger.fires() if not state or f.state == state
        ]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with LocalStore(tmp_path) as opened:
        yield World(opened)


def test_the_first_look_writes_down_when_it_was_and_fires_nothing(world: World) -> None:
    trigger = world.trigger(at="0 3 * * *")
    look, new = world.look(trigger)
    assert new == []
    assert list(look.baseline.values()) == ["2026-11-22T23:00:30Z"]
    assert look.again == at("2026-11-23T03:00")
    assert world.look(trigger, look.again)[1][0].due == look.again


def test_clocks_do_not_stop_at_whole_seconds(world: World) -> None:
    trigger = world.trigger(every=2.0)
    world.look(trigger, world.now + 0.4567)
    for _ in range(5):
        _, new = world.look(trigger, world.now + 2.0001)
        assert [f.state for f in new] == ["queued"]
        world.run(new[0])
    assert len(world.store.ledger.fires()) == 5


def test_a_due_time_is_fired_once_whoever_looks_and_however_often(world: World) -> None:
    one, other = world.trigger(at="*/15 * * * *"), world.trigger(at="*/15 * * * *")
    world.look(one)
    world.look(other, world.now + 2)
    for _ in range(8):
        again, new = world.look(one, world.look(one)[0].again)
        assert len(new) == 1
        assert world.look(other, world.now + 1)[1] == []
        assert world.look(one)[1] == []
        world.run(new[0])
        assert again.again == new[0].due + 900
    # A restart knows what was done.
    assert world.look(world.trigger(at="*/15 * * * *"))[1] == []
    assert next(fire.key for fire in world.store.ledger.fires()) == "schedule/2026-11-22T23:15:00Z"
    assert world.store.ledger.verify() == []


def test_two_daemons_that_begin_at_once_lose_nothing_between_their_first_looks(world: World) -> None:
    one, other = world.trigger(every=60.0), world.trigger(every=60.0)
    first = one.look(at("2026-11-23T00:00:59"))
    second = other.look(at("2026-11-23T00:01:01"))
    write(one, first, world.store)
    write(other, second, world.store)
    assert [f.due for f in world.look(one, at("2026-11-23T00:01:02"))[1]] == [at("2026-11-23T00:01")]


# --- missed while nothing ran


@pytest.mark.parametrize(
    ("policy", "queued_", "dropped"),
    [
        ("latest", ["2026-11-26 03:00"], [("2026-11-25 03:00", "2 times")]),
        ("all", ["2026-11-24 03:00", "2026-11-25 03:00", "2026-11-26 03:00"], []),
        ("none", [], [("2026-11-26 03:00", "3 times")]),
    ],
)
def test_catching_up(world: World, policy: str, queued_: list[str], dropped: list[tuple[str, str]]) -> None:
    trigger = world.trigger(at="0 3 * * *", catch_up=policy)
    world.look(trigger)
    world.run(world.look(trigger, at("2026-11-23T03:00"))[1][0])
    # The daemon is down for three nights.
    _, new = world.look(world.trigger(at="0 3 * * *", catch_up=policy), at("2026-11-26T09:00"))
    waiting = [f for f in new if f.state == "queued"]
    assert [said(f.due, BERLIN)[4:20] for f in waiting] == queued_
    assert Queue(world.store).ready(at("2026-11-26T09:00")) == waiting
    gone = [f for f in new if f.state == "dropped"]
    assert [(said(f.due, BERLIN)[4:20], words) for f, (_, words) in zip(gone, dropped, strict=True)] == dropped
    for fire, (_, words) in zip(gone, dropped, strict=True):
        assert words in fire.why
        assert f"`catch_up` is `{policy}`" in fire.why
        assert "from Tue 2026-11-24 03:00" in fire.why
    # And nothing of it again.
    assert world.look(trigger, at("2026-11-26T10:00"))[1] == []


def test_one_missed_time_is_run_late_or_dropped(world: World) -> None:
    for policy, state in (("latest", "queued"), ("none", "dropped")):
        trigger = world.trigger(name=policy, at="0 3 * * *", catch_up=policy)
        world.look(trigger, at("2026-11-23T02:00"))
        (fire,) = world.look(trigger, at("2026-11-23T09:00"))[1]
        assert fire.state == state
        assert policy == "latest" or fire.why == "missed while nothing ran; `catch_up` is `none`"


def test_a_look_a_little_late_has_missed_nothing(world: World) -> None:
    trigger = world.trigger(at="0 3 * * *", catch_up="none")
    world.look(trigger)
    (fire,) = world.look(trigger, at("2026-11-23T03:00:40"))[1]
    assert (fire.state, fire.not_before) == ("queued", 0.0)


@pytest.mark.parametrize("policy", ["latest", "all", "none"])
def test_a_year_off_is_a_handful_of_events(world: World, policy: str) -> None:
    trigger = world.trigger(at="* * * * *", catch_up=policy)
    world.look(trigger)
    before = world.store.ledger.head()[0]
    _, new = world.look(trigger, world.now + 365 * DAY)
    assert world.store.ledger.head()[0] - before == {"latest": 2, "all": 367, "none": 2}[policy]
    (summary,) = [f for f in new if f.state == "dropped"]
    left_out = 365 * 1440 - {"latest": 1, "all": 366, "none": 1}[policy]
    assert f"{left_out:,} times" in summary.why


# --- never beside itself


def test_what_is_due_while_the_one_before_is_at_work_is_dropped_and_names_the_run(world: World) -> None:
    trigger = world.trigger(every=HOUR)
    world.look(trigger)
    (first,) = world.look(trigger, at("2026-11-23T01:00"))[1]
    world.run(first, end="")
    (second,) = world.look(trigger, at("2026-11-23T02:00"))[1]
    started = world.store.ledger.fire(first.id)
    assert started is not None
    assert second.state == "dropped"
    assert second.why == f"`{started.run}`, which was due Mon 2026-11-23 01:00 Europe/Berlin, is still at work"
    body = {"status": "succeeded", "reason": "", "result": ""}
    world.store.ledger.append(Draft(kind="run.finished", run=started.run, payload=body))
    (third,) = world.look(trigger, at("2026-11-23T03:00"))[1]
    assert third.state == "queued"
    (fourth,) = world.look(trigger, at("2026-11-23T04:00"))[1]
    assert fourth.why == "the run that was due Mon 2026-11-23 03:00 Europe/Berlin still waits"


def test_all_of_them_wait_their_turn_and_the_queue_has_an_end(world: World) -> None:
    trigger = world.trigger(every=HOUR, catch_up="all")
    world.look(trigger)
    world.look(trigger, world.now + 100 * HOUR)
    _, new = world.look(trigger, world.now + 300 * HOUR)
    assert [f.state for f in new].count("queued") == 266
    assert new[-1].why == "366 wait in the queue already"
    assert len(Queue(world.store).ready(world.now)) == 366


def test_another_schedule_does_not_hold_it_up(world: World) -> None:
    hourly, daily = world.trigger(every=HOUR), world.trigger(name="daily", at="0 1 * * *")
    for trigger in (hourly, daily):
        world.look(trigger)
    (fire,) = world.look(hourly, at("2026-11-23T01:00"))[1]
    world.run(fire, end="")
    assert world.look(daily)[1][0].state == "queued"


# --- clocks that jump


def test_a_clock_set_back_fires_nothing_again(world: World) -> None:
    trigger = world.trigger(every=HOUR)
    world.look(trigger)
    for hour in range(1, 6):
        world.run(world.look(trigger, at(f"2026-11-23T0{hour}:00"))[1][0])
    look, new = world.look(trigger, at("2026-11-23T02:30"))
    assert new == []
    for again in range(3):
        look, new = world.look(trigger, look.again)
        assert new == [], again
    look, new = world.look(trigger, look.again)
    assert [f.due for f in new] == [at("2026-11-23T06:00")]


def test_a_clock_that_ran_a_year_ahead_is_forgotten_when_it_is_put_right(world: World) -> None:
    trigger = world.trigger(at="0 3 * * *")
    world.look(trigger)
    for fire in world.look(trigger, at("2027-11-23T12:00"))[1]:
        if fire.state == "queued":
            world.run(fire)
    look, new = world.look(trigger, at("2026-11-23T12:00"))
    # The time that the true clock has passed was missed, and is due; then all goes on as ever.
    assert [said(f.due, BERLIN)[4:20] for f in new if f.state == "queued"] == ["2026-11-23 03:00"]
    world.run(next(f for f in new if f.state == "queued"))
    assert look.again == at("2026-11-24T03:00")
    assert [said(f.due, BERLIN)[4:20] for f in world.look(trigger, look.again)[1]] == ["2026-11-24 03:00"]


@pytest.mark.parametrize("policy", ["latest", "all"])
@pytest.mark.parametrize("more", [{}, {"jitter": 600.0}, {"prefer": ("Mon-Sun 05:00-06:00",), "takes": HOUR}])
def test_fires_of_a_clock_that_was_ahead_wait_for_their_time(tmp_path: Path, policy: str, more: dict[str, Any]) -> None:
    with LocalStore(tmp_path, clock=lambda: world.now) as store:
        world = World(store)
        trigger = world.trigger(at="0 3 * * *", catch_up=policy, **more)
        world.look(trigger)
        # One look with a clock that is three days ahead, and the true one again.
        _, ahead = world.look(trigger, at("2026-11-26T03:00:10"))
        queued = [f for f in ahead if f.state == "queued"]
        assert len(queued) == {"latest": 1, "all": 4}[policy]
        started = []
        world.now = at("2026-11-22T22:00")
        while world.now < at("2026-11-27T23:00"):
            world.look(trigger)
            for fire in Queue(store).ready(world.now):
                hold = trigger.hold(fire, world.now)
                if fire.due > world.now:
                    assert not hold.drop
                    assert hold.until == fire.due
                    assert hold.why == "its time is still to come: a clock was ahead when it was written down"
                elif hold == GO:
                    started.append((said(fire.due, BERLIN)[9:20], said(world.now, BERLIN)[9:14]))
                    world.run(fire)
            world.now += 900
        # Each night once, in its night; `latest` wrote down that it leaves one of them out.
        left = ["11-23", "11-24", "11-25", "11-26", "11-27"]
        left = [night for night in left if policy == "all" or night != "11-25"]
        assert [due for due, _ in started] == [f"{night} 03:00" for night in left]
        assert [when for _, when in started] == left
        assert [fire.state for fire in store.ledger.fires(states=("queued",))] == []


def test_a_first_look_with_a_clock_ahead_is_taken_back(world: World) -> None:
    trigger = world.trigger(at="0 3 * * *")
    world.look(trigger, at("2028-01-01T00:00"))
    restarted = world.trigger(at="0 3 * * *")
    look, new = world.look(restarted, at("2026-11-23T12:00"))
    assert new == []
    assert [f.due for f in world.look(restarted, look.again)[1]] == [at("2026-11-24T03:00")]


def test_a_schedule_that_was_changed_has_missed_nothing(world: World) -> None:
    daily = world.trigger(at="0 3 * * *")
    world.look(daily)
    world.run(world.look(daily, at("2026-11-23T03:00"))[1][0])
    hourly = world.trigger(at="0 * * * *")
    look, new = world.look(hourly, at("2026-11-23T17:30"))
    assert new == []
    assert look.again == at("2026-11-23T18:00")
    assert [f.due for f in world.look(hourly, look.again)[1]] == [look.again]


def test_random_looks_restarts_and_jumps_fire_each_time_once(world: World) -> None:
    """Two daemons with clocks a little apart, restarted at random; every due time is dealt with exactly once."""
    draw = random.Random(3)  # noqa: S311 - a test that can be repeated
    section = {"at": "*/10 * * * *", "catch_up": "all"}
    daemons = [world.trigger(**section), world.trigger(**section)]
    begin = world.now
    for trigger in daemons:
        world.look(trigger)
    clock = begin
    for _ in range(300):
        clock += draw.choice([1.0, 30.0, 400.0, 700.0, 4000.0])
        who = draw.randrange(2)
        if draw.random() < 0.2:
            daemons[who] = world.trigger(**section)
        skew = draw.uniform(-2, 2)
        world.look(daemons[who], max(begin, clock + skew))
        for fire in Queue(world.store).ready(clock + 10):
            world.run(fire)
    world.look(daemons[0], clock + 700)
    dues = [fire.due for fire in world.store.ledger.fires()]
    assert dues == [begin - 30 + 600 * n for n in range(1, len(dues) + 1)]
    assert world.store.ledger.verify() == []


@pytest.mark.parametrize(
    ("since", "nights"),
    [
        ("2026-03-27T12:00", ["2026-03-28 02:30", "2026-03-29 03:00", "2026-03-30 02:30"]),
        ("2026-10-23T12:00", ["2026-10-24 02:30", "2026-10-25 02:30", "2026-10-26 02:30"]),
        ("2028-02-27T12:00", ["2028-02-28 02:30", "2028-02-29 02:30", "2028-03-01 02:30"]),
    ],
)
def test_over_clock_changes_and_leap_days_each_night_is_run_once(world: World, since: str, nights: list[str]) -> None:
    trigger = world.trigger(at="30 2 * * *")
    look, _ = world.look(trigger, at(since))
    for night in nights:
        look, (fire,) = world.look(trigger, look.again)
        assert said(fire.due, BERLIN)[4:20] == night
        world.run(fire)
        # Half an hour and an hour later there is nothing more, however the clocks went.
        for later in (1800, 3600, 5400):
            assert world.look(trigger, fire.due + later)[1] == []


# --- when it starts


def test_spread_starts_are_the_same_on_every_machine(world: World) -> None:
    def starts(name: str) -> list[float]:
        trigger = world.trigger(name=name, at="0 3 * * *", jitter=120.0)
        found = []
        for day in range(20):
            (wanted,) = trigger._wanted(at("2026-11-23T02:00") + day * DAY, at("2026-11-23T03:00") + day * DAY)
            found.append((wanted.not_before or wanted.due) - wanted.due)
        return found

    mine = starts("a")
    assert mine == starts("a")
    assert mine != starts("b")
    assert all(0 <= s < 120 for s in mine)
    assert max(mine) - min(mine) > 60


def test_spreading_does_not_lead_into_a_window(world: World) -> None:
    trigger = world.trigger(at="0 7 * * *", takes=3500.0, jitter=1800.0, avoid=("Mon-Fri 08:00-18:00",))
    for day in range(4):
        due = at(f"2026-11-{23 + day}T07:00")
        (wanted,) = trigger._wanted(due - HOUR, due)
        assert due <= (wanted.not_before or due) <= due + 100


def test_the_cheapest_start_is_queued_with_its_saving(world: World) -> None:
    (world.store.root / "prices.csv").write_text("hour,EUR/kWh\n0,0.2\n7,0.4\n22,0.1\n")
    trigger = world.trigger(at="0 9 * * *", prices="prices.csv", takes=HOUR, finish_by="24h")
    world.look(trigger)
    (fire,) = world.look(trigger, at("2026-11-23T09:00"))[1]
    assert fire.not_before == at("2026-11-23T22:00")
    assert fire.payload["start"] == fire.not_before
    assert fire.payload["saved"] == pytest.approx(0.3)
    assert fire.payload["unit"] == "EUR/kW"
    assert fire.given()["payload"]["why"] == "waits 13 h: where it is cheapest"
    assert Queue(world.store).ready(at("2026-11-23T21:59")) == []
    assert [f.id for f in Queue(world.store).ready(at("2026-11-23T22:00"))] == [fire.id]


def test_a_price_table_that_is_gone_keeps_nothing_from_starting(world: World) -> None:
    table = world.store.root / "prices.csv"
    trigger = world.trigger(at="0 9 * * *", prices="prices.csv", takes=HOUR)
    world.look(trigger)
    (fire,) = world.look(trigger, at("2026-11-23T09:00"))[1]
    assert fire.not_before == 0.0
    assert fire.payload["why"].startswith('at once; no prices: `prices.csv`: there is no file "prices.csv"')
    table.write_text("hour,EUR\n0,0.4\n12,x\n")
    assert trigger.upcoming(1)[0].choice.why == 'at once; no prices: `prices.csv`: line 3: "x" is no price'
    table.write_text("hour,EUR\n0,0.4\n12,0.1\n")
    assert trigger.upcoming(1)[0].choice.start == at("2026-11-24T12:00")


def test_no_start_before_the_deadline_is_dropped_with_the_reason(world: World) -> None:
    trigger = world.trigger(at="0 9,20 * * *", avoid=("Mon-Fri 08:00-18:00",), takes=HOUR, finish_by="6h")
    world.look(trigger)
    (fire,) = world.look(trigger, at("2026-11-23T09:00"))[1]
    assert fire.state == "dropped"
    assert fire.why == "`avoid` leaves no 1 h before its deadline Mon 2026-11-23 15:00 Europe/Berlin"
    (fire,) = world.look(trigger, at("2026-11-23T20:00"))[1]
    assert (fire.state, fire.not_before) == ("queued", 0.0)


def test_what_it_takes_is_learned_from_the_runs_before(world: World, tmp_path: Path) -> None:
    clock = [0.0]
    store = LocalStore(tmp_path / "timed", clock=lambda: clock[0])
    trigger = ScheduleTrigger(Schedule(at="0 3 * * *", finish_by="6h"), tmp_path, store, clock=lambda: clock[0])
    assert trigger.upcoming(1)[0].choice.takes == 600.0
    for n in range(1, 11):
        for kind, body in (("run.started", {"project": "p"}), ("run.finished", {"status": "succeeded"})):
            store.ledger.append(Draft(kind=kind, run=f"run-{n}", payload=body))  # type: ignore[arg-type]
            clock[0] += n * 60
    assert trigger.upcoming(1)[0].choice.takes == 540.0
    store.close()


# --- when it may start after all


def held(world: World, now: str, **section: Any) -> tuple[ScheduleTrigger, Fire, Callable[[str], Any]]:
    trigger = world.trigger(**section)
    world.look(trigger)
    (fire,) = [f for f in world.look(trigger, at(now))[1] if f.state == "queued"]
    return trigger, fire, lambda when: trigger.hold(fire, at(when))


def test_a_fire_that_comes_too_late_waits_for_the_next_stretch(world: World) -> None:
    office = {"at": "0 3 * * *", "avoid": ("Mon-Fri 08:00-18:00",), "takes": HOUR}
    _, _, hold = held(world, "2026-11-23T03:00", **office)
    assert hold("2026-11-23T03:00") == GO
    assert hold("2026-11-23T07:00") == GO
    # It could not end before the window begins.
    assert hold("2026-11-23T07:00:01").until == at("2026-11-23T18:00")
    assert "outside `avoid`" in hold("2026-11-23T09:00").why
    assert hold("2026-11-23T18:00") == GO


def test_a_deadline_that_passes_in_the_queue(world: World) -> None:
    section = {"at": "0 3 * * *", "avoid": ("Mon-Fri 08:00-18:00",), "takes": HOUR, "finish_by": "08:00"}
    _, _, hold = held(world, "2026-11-23T03:00", **section)
    gone = hold("2026-11-23T09:00")
    assert gone.drop
    assert "has passed" in gone.why
    # Outside the windows late is better than not at all.
    assert hold("2026-11-23T19:00") == GO


def test_a_run_that_was_cut_off_goes_on_outside_the_windows_only(world: World) -> None:
    trigger, fire, _ = held(world, "2026-11-23T03:00", at="0 3 * * *", avoid=("Mon-Fri 08:00-18:00",), takes=HOUR)
    world.run(fire, end="interrupted")
    again = world.store.ledger.fire(fire.id)
    assert again is not None
    assert again.state == "queued"
    assert trigger.hold(again, at("2026-11-23T07:59")) == GO
    assert trigger.hold(again, at("2026-11-23T08:00")).until == at("2026-11-23T18:00")


def test_an_idle_machine_is_waited_for_until_the_last_moment(world: World) -> None:
    load = [0.9]
    section = Schedule(at="0 3 * * *", zone="Europe/Berlin", idle=True, takes=HOUR, finish_by="06:00")
    trigger = ScheduleTrigger(section, world.store.root, world.store, load=lambda: load[0])
    world.look(trigger)
    (fire,) = world.look(trigger, at("2026-11-23T03:00"))[1]
    busy = trigger.hold(fire, at("2026-11-23T03:00"))
    assert (busy.until, busy.drop) == (at("2026-11-23T03:00:30"), False)
    assert busy.why == "waits for an idle machine: its load is 0.90 a core"
    assert trigger.hold(fire, at("2026-11-23T04:59:50")).until == at("2026-11-23T05:00")
    assert trigger.hold(fire, at("2026-11-23T05:00")) == GO
    load[0] = 0.4
    assert trigger.hold(fire, at("2026-11-23T03:01")) == GO


def test_fires_of_people_are_not_held(world: World) -> None:
    trigger = world.trigger(at="0 3 * * *", avoid=("daily 00:00-23:00",))
    fire = ask("schedule", "manual", Wanted(key="x", due=at("2026-11-23T12:00")), world.store, actor="user:ann")
    assert fire is not None
    assert trigger.hold(fire, at("2026-11-23T12:00")) == GO
    # Nor do they move what was due last.
    world.look(trigger)
    assert world.look(trigger, at("2026-11-23T00:30"))[0].again == at("2026-11-23T03:00")


# --- the board, the file


def test_what_is_to_come(world: World) -> None:
    trigger = world.trigger(at="0 9 * * *", avoid=("Mon-Fri 08:00-18:00",), takes=HOUR)
    found = [(said(u.due, BERLIN)[:20], said(u.choice.start, BERLIN)[:20]) for u in trigger.upcoming(6)]
    assert found[0] == ("Mon 2026-11-23 09:00", "Mon 2026-11-23 18:00")
    assert found[5] == ("Sat 2026-11-28 09:00", "Sat 2026-11-28 09:00")
    text = trigger.next_text()
    assert text == (
        "due Mon 2026-11-23 09:00 Europe/Berlin, starts Mon 2026-11-23 18:00 Europe/Berlin: waits 9 h: outside `avoid`"
    )


def test_once_is_due_once_and_then_never_again(world: World) -> None:
    trigger = world.trigger(once="2026-11-23T03:00")
    assert trigger.next_text() == "Mon 2026-11-23 03:00 Europe/Berlin"
    world.look(trigger)
    look, new = world.look(trigger, at("2026-11-23T03:00"))
    assert len(new) == 1
    assert look.again == float("inf")
    assert trigger.next_text() == "never again: it was due Mon 2026-11-23 03:00 Europe/Berlin"
    assert trigger.upcoming() == []
    # One that had passed before anybody looked is not made up for.
    late = world.trigger(name="late", once="2020-01-01T00:00")
    assert world.look(late)[1] == []


def test_a_list_of_holidays_that_is_gone_is_said(world: World) -> None:
    file = world.store.root / "holidays.txt"
    trigger = world.trigger(at="0 3 * * *", skip=("holidays.txt", "12-25"))
    with pytest.raises(UserError) as found:
        world.look(trigger)
    assert found.value.code == "schedule-unreadable"
    assert "holidays.txt" in found.value.problem.message
    file.write_text("2026-11-23 works outing\n")
    assert world.look(trigger)[0].again == at("2026-11-24T03:00")


def test_triggers_of_a_declaration(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("y\n1\n")
    file = tmp_path / "modelyard.yaml"
    file.write_text(
        "project: p\ndata: {t: {from: a.csv}}\nmodel: {target: y}\n"
        "schedule:\n  - {at: '0 3 * * *', owner: credit}\n  - {every: 15m}\n  - {name: ends, calendar: quarter end}\n"
    )
    spec = load(file)
    with LocalStore(tmp_path) as store:
        triggers = schedule_triggers(spec, store)
        assert [(t.name, t.kind, t.owner) for t in triggers] == [
            ("schedule", "schedule", "credit"),
            ("schedule-2", "schedule", ""),
            ("ends", "schedule", ""),
        ]
        texts = next_texts(spec, store, lambda: at("2026-11-23T12:07"))
        assert texts[1] == ("schedule-2", "Mon 2026-11-23 11:15 UTC")
        assert texts[2] == ("ends", "Thu 2026-12-31 00:00 UTC")
        for trigger in triggers:
            trigger.start(lambda: None)
            trigger.close()


def test_the_payload_is_plain_json(world: World) -> None:
    trigger = world.trigger(at="0 3 * * *", prefer=("01:00-05:00",))
    world.look(trigger)
    (fire,) = world.look(trigger, at("2026-11-23T03:00"))[1]
    assert msgspec.json.decode(msgspec.json.encode(fire.payload)) == fire.payload
    assert fire.key.endswith(iso(fire.due))
