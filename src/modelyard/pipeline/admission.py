"""Which steps of one runner may start: what each asks, in this machine's terms, and its place in the line."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard._kit.text import number, plural, size_text
from modelyard.pipeline.execute import Failure, Task
from modelyard.pipeline.gpus import missing
from modelyard.pipeline.leases import Demand, Lease, Leases
from modelyard.records import Resources, Step

if TYPE_CHECKING:
    from modelyard.pipeline.machine import Machine

__all__ = ["Admission", "Place"]

# A step that hardly computes still takes this much of a core, so that there is an end to how many run at once.
_LEAST_CPUS = 0.1
# Seconds for which "there is no room" is believed without asking again.
_BELIEVED = 0.02
# Seconds between two questions while others have something of the machine, and while only we do.
_CROWDED, _ALONE = 0.03, 0.5


@dataclass(frozen=True, slots=True)
class Place:
    """What a task was given.

    Attributes:
        lease: What it has of the machine.
        devices: Names of the GPUs that it may see; none: those that the runner sees.
        notes: What differs from what it asked for.
    """

    lease: Lease
    devices: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def threads(self) -> int:
        """How many threads its libraries may start."""
        return max(1, self.lease.demand.cpus // 1000)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a task asks, in terms of this machine."""

    demand: Demand
    notes: tuple[str, ...] = ()
    failure: Failure | None = None


class Admission:
    """One runner's place in the line for this machine.

    Args:
        machine: What there is.
        leases: Who has what of it.
    """

    def __init__(self, machine: Machine, leases: Leases) -> None:
        self._machine = machine
        self._leases = leases
        self._granted: dict[Demand, Lease] = {}
        self._refused: list[Demand] = []
        self._refused_at = 0.0
        # A fan-out asks the same a thousand times.
        self._known: dict[tuple[Resources, bool], _Asked] = {}
        # The demand that holds our ticket was asked for since the last `unused`.
        self._wanted = False

    def room(self, task: Task) -> bool:
        """Say whether there is room for a task, and keep it until `take` or `unused`; a task that never fits has it."""
        asked = self._asked(task)
        demand = asked.demand
        if asked.failure is not None or demand in self._granted:
            return True
        mine = demand == self._leases.wants
        self._wanted |= mine
        if self._refused and time.monotonic() - self._refused_at > _BELIEVED:
            self._refused.clear()
        if demand in self._refused or (not mine and any(less.within(demand) for less in self._refused)):
            return False
        return self._ask(demand)

    def take(self, task: Task) -> Place | Failure:
        """Return the place of a task that `room` was found for, or why there never will be one."""
        asked = self._asked(task)
        if asked.failure is not None:
            return asked.failure
        lease = self._granted.pop(asked.demand, None) or self._leases.ask(asked.demand)
        if lease is None:
            raise RuntimeError(f"no room for step `{task.step.name}`: ask `room` first")
        devices = None if not self._machine.gpus else lease.devices
        return Place(lease, devices, asked.notes)

    def release(self, lease: Lease) -> None:
        """Take back what a task had."""
        self._leases.release(lease)
        self._refused.clear()

    def hand_on(self, place: Place) -> bool:
        """Keep a place for the next task of the same kind, if nobody waits for anything; say whether it is kept."""
        demand = place.lease.demand
        if demand in self._granted or self._leases.others_wait():
            return False
        if demand == self._leases.wants:
            self._leases.withdraw()
        self._granted[demand] = place.lease
        return True

    def tie(self, place: Place, pid: int) -> None:
        """Have a place held while this process lives, even if the runner dies first."""
        self._leases.tie(place.lease, pid)

    @property
    def waiting(self) -> bool:
        """Whether something that was asked for waits for room."""
        return self._leases.wants is not None

    @property
    def pause(self) -> float:
        """Seconds until it is worth asking again."""
        return _CROWDED if self._leases.crowded else _ALONE

    def again(self) -> bool:
        """Ask again for what waits; say whether there is room now."""
        wants = self._leases.wants
        return wants is not None and self._ask(wants)

    def unused(self) -> list[Lease]:
        """Return what was kept and not taken since the last time, for release, and give back a ticket of no use."""
        if not self._wanted:
            self._leases.withdraw()
        self._wanted = False
        unused = [*self._granted.values()]
        self._granted.clear()
        return unused

    def close(self) -> None:
        """Give everything back."""
        self._leases.close()

    def _ask(self, demand: Demand) -> bool:
        ticket = self._leases.wants
        lease = self._leases.ask(demand)
        if lease is None:
            self._wanted |= ticket is None
            if not self._refused:
                self._refused_at = time.monotonic()
            self._refused.append(demand)
            return False
        self._granted[demand] = lease
        return True

    def _asked(self, task: Task) -> _Asked:
        key = task.step.resources, task.attempt > 1
        if (known := self._known.get(key)) is None:
            known = self._translated(task)
            if known.failure is None:
                self._known[key] = known
        return known

    def _translated(self, task: Task) -> _Asked:
        here, asked, notes = self._machine, task.step.resources, []
        cpus, memory, gpus = max(asked.cpus, _LEAST_CPUS), asked.memory, asked.gpus
        if cpus > here.cpus:
            notes.append(f"asked for {number(cpus)} cores and had {number(here.cpus)}: this machine has no more")
            cpus = here.cpus
        if gpus and not here.gpus:
            why = missing() or "this machine has none"
            notes.append(f"asked for {plural(gpus, 'GPU')} and ran on the CPU: {why}")
            gpus = 0
        if memory > here.memory and task.attempt > 1:
            notes.append(f"asked for {size_text(memory)} and had {size_text(here.memory)}: this machine has no more")
            memory = here.memory
        demand = Demand(round(cpus * 1000), memory, gpus)
        if memory > here.memory:
            return _Asked(demand, failure=_too_small(task.step, size_text(memory), size_text(here.memory), "memory"))
        if gpus > len(here.gpus):
            return _Asked(demand, failure=_too_small(task.step, str(gpus), str(len(here.gpus)), "GPUs"))
        return _Asked(demand, tuple(notes))


def _too_small(step: Step, asked: str, there: str, kind: str) -> Failure:
    return Failure(
        code="machine-too-small",
        message=f"step `{step.name}` asks for {asked} of {kind}; this machine has {there} for steps",
        hint="ask for less under `resources`, or run it on a larger machine",
        exit_code=2,
        lasting=True,
    )
