"""Leases of the machine: never more than there is, nobody starves, the dead hold nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelyard._kit.errors import UserError
from modelyard.pipeline import leases as module
from modelyard.pipeline.leases import Demand, Lease, Leases
from modelyard.pipeline.machine import Machine

GB = 10**9
CORE = Demand(1000)


def machine(cpus: float = 2, memory: int = 8 * GB, gpus: int = 0, domain: str = "", total: float = 0) -> Machine:
    return Machine(
        cpus=cpus,
        memory=memory,
        gpus=tuple(map(str, range(gpus))),
        all_cpus=total or cpus,
        all_memory=memory,
        domain=domain,
    )


def test_no_more_is_given_than_there_is(tmp_path: Path) -> None:
    one, other = Leases(machine(), tmp_path), Leases(machine(), tmp_path)
    first, second = one.ask(CORE), other.ask(CORE)
    assert first is not None
    assert second is not None
    assert one.ask(Demand(500)) is None
    other.release(second)
    assert one.ask(Demand(500)) is not None
    assert other.ask(Demand(501)) is None
    other.withdraw()
    assert other.ask(Demand(100, memory=9 * GB)) is None
    other.withdraw()
    assert other.ask(Demand(100, memory=8 * GB)) is not None


def test_what_asks_for_nothing_of_a_kind_is_not_held_up_by_it(tmp_path: Path) -> None:
    one, other = Leases(machine(gpus=1), tmp_path), Leases(machine(gpus=1), tmp_path)
    assert one.ask(Demand(1000, memory=8 * GB, gpus=1)) is not None
    assert other.ask(CORE) is not None


def test_a_large_demand_is_not_passed_for_ever_by_small_ones(tmp_path: Path) -> None:
    large, small = Leases(machine(), tmp_path), Leases(machine(), tmp_path)
    held = [small.ask(CORE), small.ask(CORE)]
    assert large.ask(Demand(2000)) is None
    for lease in held:
        assert lease is not None
        small.release(lease)
        assert small.ask(CORE) is None, "what the large one waits for was given away"
    given = large.ask(Demand(2000))
    assert given is not None
    large.release(given)
    assert small.ask(CORE) is not None


def test_ten_runners_on_two_cores_take_turns(tmp_path: Path) -> None:
    """Each wants a core again and again, one wants both: each gets a turn before anybody gets his third."""
    runners = [Leases(machine(), tmp_path) for _ in range(10)]
    wants = [Demand(2000)] + [CORE] * 9
    turns = [0] * 10
    held: list[tuple[int, Lease]] = []
    while min(turns) < 5:
        for i, runner in enumerate(runners):
            # The first in the row asks first every time; the order of the tickets decides.
            if all(i != who for who, _ in held) and (lease := runner.ask(wants[i])) is not None:
                held.append((i, lease))
                turns[i] += 1
                assert turns[i] <= min(turns) + 2, f"{turns}: somebody is passed again and again"
        who, lease = held.pop(0)
        runners[who].release(lease)


def test_cores_do_not_idle_beside_somebody_who_waits_for_a_gpu(tmp_path: Path) -> None:
    here = machine(gpus=1)
    first, second, third = (Leases(here, tmp_path) for _ in range(3))
    training = first.ask(Demand(1000, gpus=1))
    assert training is not None
    assert second.ask(Demand(2000, gpus=1)) is None
    other = third.ask(CORE)
    assert other is not None
    # Once the GPU is there, it and the cores are kept for him.
    first.release(training)
    assert second.ask(Demand(2000, gpus=1)) is None
    assert first.ask(Demand(100, gpus=1)) is None
    assert first.ask(CORE) is None
    third.release(other)
    assert second.ask(Demand(2000, gpus=1)) is not None


def test_who_does_not_come_back_keeps_his_place_but_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    one, other, third = (Leases(machine(), tmp_path) for _ in range(3))
    held = one.ask(CORE)
    assert held is not None
    assert other.ask(Demand(2000)) is None
    assert third.ask(CORE) is None
    now += 60
    lease = third.ask(CORE)
    assert lease is not None
    third.release(lease)
    one.release(held)
    assert one.ask(Demand(1500)) is not None
    assert other.ask(Demand(2000)) is None
    assert third.ask(Demand(500)) is None, "he has asked again, and stands first"


def test_a_ticket_that_is_given_back_keeps_nothing(tmp_path: Path) -> None:
    one, other = Leases(machine(), tmp_path), Leases(machine(), tmp_path)
    assert one.ask(CORE) is not None
    assert other.ask(Demand(2000)) is None
    other.withdraw()
    assert one.ask(CORE) is not None


def test_processes_with_fewer_cores_share_these_and_leave_the_rest_to_others(tmp_path: Path) -> None:
    narrow = machine(1, domain="/limited", total=4)
    one, same, whole = Leases(narrow, tmp_path), Leases(narrow, tmp_path), Leases(machine(4), tmp_path)
    assert one.ask(CORE) is not None
    assert same.ask(CORE) is None
    assert whole.ask(Demand(3000)) is not None
    assert whole.ask(Demand(100)) is None


DIE = """
import os, signal, sys
from pathlib import Path
from modelyard.pipeline.leases import Demand, Leases
from modelyard.pipeline.machine import Machine
here = Machine(cpus=2, memory=10**9, gpus=("0",), all_cpus=2, all_memory=10**9)
leases = Leases(here, Path(sys.argv[1]))
lease = leases.ask(Demand(2000, gpus=1))
assert lease is not None
if len(sys.argv) > 2:
    leases.tie(lease, int(sys.argv[2]))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_holder_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", DIE, str(tmp_path)], check=False)
    here = machine(gpus=1)
    leases = Leases(here, tmp_path)
    assert leases.held() == []
    assert leases.ask(Demand(2000, gpus=1)) is not None


def test_gpus_are_not_given_away_while_the_guard_of_their_step_lives(tmp_path: Path) -> None:
    guard = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    subprocess.run([sys.executable, "-c", DIE, str(tmp_path), str(guard.pid)], check=False)
    leases = Leases(machine(gpus=1), tmp_path)
    assert leases.ask(Demand(100, gpus=1)) is None
    guard.kill()
    guard.wait(60)
    assert leases.ask(Demand(100, gpus=1)) is not None


def test_a_torn_file_is_made_anew(tmp_path: Path) -> None:
    Leases(machine(), tmp_path).ask(CORE)
    (file,) = tmp_path.glob("*.db")
    for left in tmp_path.iterdir():
        left.unlink()
    file.write_bytes(b"no database" * 1000)
    assert Leases(machine(), tmp_path).ask(CORE) is not None


def test_a_folder_that_cannot_be_made_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file") as caught:
        Leases(machine(), tmp_path / "file" / "leases").ask(CORE)
    assert caught.value.code == "machine-folder"


GPUS = """
import fcntl, os, random, signal, sys
from pathlib import Path
from modelyard.pipeline.leases import Demand, Leases
from modelyard.pipeline.machine import Machine

folder, seed, operations = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
here = Machine(cpus=64, memory=10**12, gpus=tuple(map(str, range(8))), all_cpus=64, all_memory=10**12)
leases, draw = Leases(here, folder), random.Random(seed)
held = []
for _ in range(operations):
    os.write(1, b".")
    choice = draw.random()
    if choice < 0.03:
        os.kill(os.getpid(), signal.SIGKILL)
    elif choice < 0.5 or not held:
        lease = leases.ask(Demand(100, gpus=draw.randint(1, 4)))
        if lease is not None:
            # The kernel is the judge: its lock ends with the process, however that ends.
            locks = [open(folder / f"gpu-{name}.lock", "w") for name in lease.devices]
            for lock in locks:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.append((lease, locks))
    else:
        lease, locks = held.pop(draw.randrange(len(held)))
        for lock in locks:
            lock.close()
        leases.release(lease)
"""


@pytest.mark.thorough
def test_no_gpu_is_leased_twice_in_a_thousand_operations_of_processes_that_die(tmp_path: Path) -> None:
    """Four processes, 250 random operations each; one that dies is followed by another that does the rest."""
    script = tmp_path / "gpus.py"
    script.write_text(GPUS)
    left, deaths, seed = [250] * 4, 0, 20_240
    children: list[subprocess.Popen[bytes] | None] = [None] * 4
    while any(left):
        for i in range(4):
            if children[i] is None and left[i]:
                seed += 1
                children[i] = subprocess.Popen(
                    [sys.executable, str(script), str(tmp_path), str(seed), str(left[i])],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
        for i, child in enumerate(children):
            if child is not None:
                out, said = child.communicate(timeout=120)
                assert child.returncode in (0, -signal.SIGKILL), said.decode()
                deaths += child.returncode < 0
                left[i] -= len(out)
                children[i] = None
    assert deaths > 0


class LeasesMachine(RuleBasedStateMachine):
    """Several runners ask, release and end in any order: what is held is what was given, and never too much."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.here = machine(4, 16 * GB, gpus=8)
        self.runners = [self.new() for _ in range(3)]
        self.held: list[tuple[int, Lease]] = []

    def new(self) -> Leases:
        return Leases(self.here, Path(self.folder.name))

    @rule(who=st.integers(0, 2), cpus=st.integers(1, 4), memory=st.integers(0, 8), gpus=st.integers(0, 8))
    def ask(self, who: int, cpus: int, memory: int, gpus: int) -> None:
        lease = self.runners[who].ask(Demand(cpus * 500, memory * GB, gpus))
        if lease is not None:
            assert len(lease.devices) == gpus
            self.held.append((who, lease))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        who, lease = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.runners[who].release(lease)

    @rule(who=st.integers(0, 2))
    def end(self, who: int) -> None:
        self.runners[who].close()
        self.held = [pair for pair in self.held if pair[0] != who]
        self.runners[who] = self.new()

    @rule(who=st.integers(0, 2))
    def who_waits_long_enough_is_served(self, who: int) -> None:
        """Once everybody else has given back, whoever waits first gets what it waits for."""
        for other, lease in self.held:
            self.runners[other].release(lease)
        self.held.clear()
        for runner in self.runners:
            if runner is not self.runners[who]:
                runner.withdraw()
        if (wants := self.runners[who].wants) is not None:
            lease = self.runners[who].ask(wants)
            assert lease is not None
            self.held.append((who, lease))

    @invariant()
    def nothing_is_given_twice(self) -> None:
        leases = [lease for _, lease in self.held]
        assert sorted(lease.number for _, lease in self.runners[0].held()) == sorted(x.number for x in leases)
        assert sum(lease.demand.cpus for lease in leases) <= 4000
        assert sum(lease.demand.memory for lease in leases) <= 16 * GB
        devices = [name for lease in leases for name in lease.devices]
        assert len(devices) == len(set(devices))

    def teardown(self) -> None:
        for runner in self.runners:
            runner.close()
        self.folder.cleanup()


TestLeasesMachine = LeasesMachine.TestCase
TestLeasesMachine.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)


def test_the_table_is_for_its_owner_only(tmp_path: Path) -> None:
    Leases(machine(), tmp_path / "own").ask(CORE)
    assert (tmp_path / "own").stat().st_mode & 0o077 == 0
