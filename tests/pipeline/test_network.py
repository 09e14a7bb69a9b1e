"""A step has no network unless it says so: in the runner's process, and in one of its own."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from errno import EACCES
from pathlib import Path
from typing import Any

import pytest
from tests.pipeline.networks import STEPS, Server, listening

from modelyard._kit.errors import Denied, StepFailed
from modelyard.pipeline import run
from modelyard.pipeline.executors import LocalExecutor
from modelyard.pipeline.network import NetworkOff
from modelyard.records import Event, Plan, Resources, Retry, Run, Step
from modelyard.store import Store, open_store

ONCE, FEW = Retry(times=0), Retry(times=3, wait=0.01)
OWN = pytest.param(True, marks=pytest.mark.thorough, id="in its own")
EITHER = pytest.mark.parametrize("own", [pytest.param(False, id="in the runner"), OWN])


@pytest.fixture
def server() -> Iterator[Server]:
    with listening() as server:
        yield server


@pytest.fixture(scope="session")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One module for all tests: functions that were found by their names stay found."""
    folder = tmp_path_factory.mktemp("networks")
    (folder / "steps_of_networks.py").write_text(STEPS)
    return folder


@pytest.fixture
def project(steps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # That of the workers.
    (tmp_path / "steps_of_networks.py").write_text(STEPS)
    monkeypatch.syspath_prepend(steps)
    return tmp_path


@pytest.fixture
def store(project: Path) -> Iterator[Store]:
    with open_store(project) as store:
        yield store


def step(
    function: str, port: int, *, name: str = "ask", after: tuple[str, ...] = (), retry: Retry = FEW, **asked: Any
) -> Step:
    return Step(
        name=name,
        verb=f"steps_of_networks:{function}",
        params={"port": port},
        after=after,
        retry=retry,
        resources=Resources(**asked),
    )


def done(store: Store, *steps: Step, **more: Any) -> Run:
    return run(Plan(project="networks", steps=steps), store, **more)


def refused(store: Store, one: Step) -> Denied:
    with pytest.raises(Denied) as caught:
        done(store, one)
    assert caught.value.code == "step-network"
    (listed, *_) = store.ledger.runs()
    recorded = store.ledger.run(listed.id)
    assert recorded is not None
    assert recorded.step("ask").attempts == (), "it would come again, so it is not tried again"
    return caught.value


@EITHER
@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        ("connects", "to reach `127.0.0.1:{port}`"),
        ("opens", "to reach `127.0.0.1:{port}`"),
        ("makes", "a network socket"),
        ("resolves", "to reach `localhost`"),
        ("says", "a network socket"),
        ("wraps", "to reach `127.0.0.1:{port}`"),
        ("in_a_thread", "to reach `127.0.0.1:{port}`"),
        ("in_a_pool", "to reach `127.0.0.1:{port}`"),
        ("in_a_loop", "to reach `localhost:{port}`"),
        ("in_a_group", "to reach `127.0.0.1:{port}`"),
        ("lazily", "to reach `127.0.0.1:{port}`"),
    ],
)
def test_a_step_cannot_reach_the_network(function: str, wanted: str, own: bool, store: Store, server: Server) -> None:
    error = refused(store, step(function, server.port, own_process=own))
    assert f"step `ask` wanted {wanted.format(port=server.port)}, and it has no network" in error.problem.message
    assert "`network: true`" in error.problem.hint
    file, _, line = error.problem.where.rpartition(":")
    assert Path(file).name == "steps_of_networks.py"
    assert int(line) > 0
    assert error.exit_code == 5
    assert server.seen == 0


@EITHER
def test_a_step_that_says_so_reaches_it_and_the_one_after_it_does_not(own: bool, store: Store, server: Server) -> None:
    finished = done(store, step("opens", server.port, own_process=own, network=True))
    assert finished["ask"] == "a,b\n1,2\n"
    asked = step("opens", server.port, name="first", own_process=own, network=True)
    with pytest.raises(Denied, match="step-network"):
        done(store, asked, step("connects", server.port, after=("first",), own_process=own))
    assert server.seen == 2


@EITHER
@pytest.mark.parametrize("function", ["in_a_thread", "in_a_pool", "in_a_loop", "lazily"])
def test_all_ways_are_open_to_a_step_that_says_so(function: str, own: bool, store: Store, server: Server) -> None:
    done(store, step(function, server.port, own_process=own, network=True))
    assert server.seen >= 1


@EITHER
@pytest.mark.parametrize(
    ("function", "value"),
    [
        ("falls_back", f"the copy on the disk, since errno {EACCES}"),
        ("looks_up", []),
        ("loop_alone", 1),
        ("unix", "helloTrue"),
        ("in_processes", 5),
        ("with_joblib", 5),
    ],
)
def test_what_needs_no_network_goes_on(function: str, value: object, own: bool, store: Store, server: Server) -> None:
    assert done(store, step(function, server.port, own_process=own))["ask"] == value
    assert server.seen == 0


def test_what_a_step_forks_is_held_and_says_so_over_there(store: Store, server: Server) -> None:
    assert "127.0.0.1" in refused(store, step("in_a_forked_pool", server.port, own_process=True)).problem.message
    assert server.seen == 0


@EITHER
def test_what_followed_from_it_is_said_as_well(own: bool, store: Store, server: Server) -> None:
    error = refused(store, step("fails_otherwise", server.port, own_process=own))
    assert "ValueError: there is no copy either" in error.problem.message


BEGUN, REACHED = threading.Event(), threading.Event()


def meet(port: int) -> str:
    """Last until a thread of the runner has been at the server."""
    BEGUN.set()
    return "together" if REACHED.wait(30) else "alone"


def test_other_threads_of_the_runner_keep_their_network(store: Store, server: Server) -> None:
    found: list[bytes] = []

    def ask() -> None:
        BEGUN.wait(30)
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/", timeout=5) as answer:
            found.append(answer.read())
        REACHED.set()

    beside = threading.Thread(target=ask)
    beside.start()
    functions = {"steps_of_networks:meet": meet}
    assert done(store, step("meet", server.port), functions=functions)["ask"] == "together"
    beside.join()
    assert found == [b"a,b\n1,2\n"]


KEPT = ThreadPoolExecutor(1)


def keep(port: int) -> int:
    return KEPT.submit(abs, -1).result()


def use_kept(port: int) -> str:
    import steps_of_networks as steps  # type: ignore[import-not-found]

    return str(KEPT.submit(steps.opens, port).result())


def test_a_thread_that_outlives_its_step_goes_by_the_step_under_way(store: Store, server: Server) -> None:
    """A library keeps one thread for its network: who asks counts, not who had it started."""
    functions = {"steps_of_networks:keep": keep, "steps_of_networks:use_kept": use_kept}
    done(store, step("keep", server.port, name="off"), functions=functions)
    done(store, step("use_kept", server.port, name="on", network=True), functions=functions)
    with pytest.raises(Denied, match="step `again` wanted"):
        done(store, step("use_kept", server.port, name="again"), functions=functions)
    # Nobody is under way: it is held as the step was that it comes from.
    with pytest.raises(OSError, match="step `off` wanted"):
        use_kept(server.port)
    KEPT.shutdown()
    assert server.seen == 1


OPEN: list[socket.socket] = []


def use_open(port: int) -> int:
    with OPEN[0].dup() as same, socket.socket(fileno=OPEN[0].dup().detach()) as again:
        return int(same.getsockname()[1] == again.getsockname()[1] == OPEN[0].getsockname()[1])


def test_what_is_open_already_is_nothing_new(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        OPEN.append(listener)
        assert done(store, step("use_open", 1), functions={"steps_of_networks:use_open": use_open})["ask"] == 1


def test_a_step_gives_another_project_no_more_than_it_has(project: Path, store: Store, server: Server) -> None:
    with pytest.raises(Denied, match="step `ask` wanted to reach"):
        done(store, step("runs_another", server.port))
    assert server.seen == 0


def test_a_step_gives_a_process_of_another_project_no_more_than_it_has(store: Store, server: Server) -> None:
    with pytest.raises(StepFailed) as caught:
        done(store, step("runs_another_beside", server.port, retry=ONCE))
    assert "the step that runs this project" in caught.value.problem.hint
    assert server.seen == 0
    asked = step("runs_another_beside", server.port, name="open", network=True)
    assert done(store, asked)["open"] == "a,b\n1,2\n"


def test_an_error_of_the_users_own_stays_what_it_is(store: Store) -> None:
    with pytest.raises(StepFailed, match="raised Several: three rows are wrong"):
        done(store, step("raises_several", 1, retry=ONCE))


def test_a_file_that_may_not_be_read_is_no_matter_of_the_network(store: Store) -> None:
    with pytest.raises(StepFailed) as caught:
        done(store, step("may_not_read", 1, own_process=True, retry=ONCE))
    assert "network" not in caught.value.problem.hint


def test_a_refusal_that_somebody_handles_meanwhile_is_not_what_a_step_failed_of(store: Store) -> None:
    try:
        raise NetworkOff("step-network", "another step wanted a network socket")
    except NetworkOff:
        with pytest.raises(StepFailed, match="CalledProcessError"):
            done(store, step("by_a_checked_child", 1, retry=ONCE))


# -- in a process of its own


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("by_a_child", "Permission denied"),
        ("by_a_shell", "Permission denied"),
        ("natively", "Permission denied"),
    ],
)
def test_the_kernel_holds_what_python_does_not_see(function: str, said: str, store: Store, server: Server) -> None:
    assert said in done(store, step(function, server.port, own_process=True))["ask"]
    assert server.seen == 0
    asked = step(function, server.port, name="open", own_process=True, network=True)
    assert done(store, asked)["open"] == "reached it"


@pytest.mark.slow  # Polars tries ten times, whatever it is told
def test_a_native_library_is_held_and_the_way_out_is_said(store: Store, server: Server) -> None:
    for asked in (False, True):
        with pytest.raises(StepFailed) as caught:
            done(store, step("natively_in_polars", server.port, own_process=True, network=asked, retry=ONCE))
        assert ("`network: true`" in caught.value.problem.hint) is not asked
        # With it, Polars comes; that this server gives it no part of a file is another matter.
        assert bool(server.seen) is asked


def test_a_child_that_failed_may_have_wanted_it(store: Store, server: Server) -> None:
    for asked, said in ((False, True), (True, False)):
        with pytest.raises(StepFailed) as caught:
            done(store, step("by_a_checked_child", server.port, own_process=True, network=asked))
        assert ("`network: true`" in caught.value.problem.hint) is said


def test_a_driver_that_does_not_say_why_may_have_wanted_it(store: Store, server: Server) -> None:
    with pytest.raises(StepFailed, match="OperationalError") as caught:
        done(store, step("by_a_driver", server.port, own_process=True, retry=ONCE))
    assert "`network: true`" in caught.value.problem.hint
    assert server.seen == 0


def test_workers_with_and_without_are_not_mixed(store: Store) -> None:
    names = [f"s{n}" for n in range(4)]
    steps = [
        step("who", n, name=name, after=(names[n - 1],) if n else (), own_process=True, network=n % 2 == 1)
        for n, name in enumerate(names)
    ]
    executor = LocalExecutor(store)
    finished = done(store, *steps, executor=executor)
    pids = [finished[name] for name in names]
    assert pids[0] == pids[2]
    assert pids[1] == pids[3]
    assert pids[0] != pids[1]
    executor.close()


def test_a_step_with_the_network_keeps_its_privileges(store: Store) -> None:
    off = done(store, step("privileges", 1, name="off", own_process=True))
    on = done(store, step("privileges", 1, name="on", own_process=True, network=True))
    assert (off["off"], on["on"]) == ("1", "0")


def test_a_key_says_nothing_of_the_network(store: Store) -> None:
    first = done(store, step("numbers", 1))
    events: list[Event] = []
    again = done(store, step("numbers", 1, network=True, own_process=True), observe=events.append)
    assert first.step("ask").key == again.step("ask").key
    assert [event.kind for event in events if event.step] == ["step.cached"]


# -- the error itself


def test_the_error_is_one_of_the_system_and_travels() -> None:
    error = NetworkOff("step-network", "step `a` wanted a network socket", where="steps.py:1", hint="say so")
    assert isinstance(error, PermissionError)
    assert isinstance(error, Denied)
    for one in (error, pickle.loads(pickle.dumps(error))):  # noqa: S301 - just written
        assert (one.errno, one.filename) == (EACCES, None)
        assert (one.code, one.problem.where, one.problem.hint) == ("step-network", "steps.py:1", "say so")
        assert "step `a` wanted a network socket" in str(one)


BOTH_AT_ONCE = """
import socket
import threading
import time
from modelyard.pipeline import network
from modelyard.records import Step

marking, begun, made = network._marking, threading.Event(), []

def slow(start):
    begun.set()
    time.sleep(0.3)
    return marking(start)

def step():
    with network.Within(Step(name="a", verb="m:f")):
        try:
            socket.socket(socket.AF_INET).close()
            made.append("a socket")
        except PermissionError:
            made.append("nothing")

network._marking = slow
first = threading.Thread(target=step)
second = threading.Thread(target=lambda: (begun.wait(), step()))
second.start()
first.start()
first.join()
second.join()
print(made)
"""


def test_two_first_steps_at_once_are_both_held() -> None:
    done = subprocess.run([sys.executable, "-c", BOTH_AT_ONCE], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "['nothing', 'nothing']\n", done.stderr
