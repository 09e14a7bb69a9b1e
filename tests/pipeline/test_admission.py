"""What this machine has, and which steps may start on it."""

from __future__ import annotations

import io
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from modelyard._kit.errors import UserError
from modelyard.cli.progress import Progress
from modelyard.pipeline import run
from modelyard.pipeline.admission import Admission, Place
from modelyard.pipeline.cgroups import above
from modelyard.pipeline.execute import Failure, Task
from modelyard.pipeline.executors import LocalExecutor
from modelyard.pipeline.gpus import inventory
from modelyard.pipeline.leases import Demand, Leases
from modelyard.pipeline.machine import Machine, cores, machine, machine_folder
from modelyard.records import Plan, Resources, Run, Step
from modelyard.store import open_store

GB = 10**9

MODULE = '''
import os, time

def threads(x: int) -> dict:
    """How many threads each library would start, asked of the libraries themselves."""
    import joblib, numpy, polars, sklearn
    from threadpoolctl import threadpool_info
    numpy.ones((2, 2)) @ numpy.ones((2, 2))
    pools = {f"{p['internal_api']} {p['filepath']}": p["num_threads"] for p in threadpool_info()}
    return {**pools, "polars": polars.thread_pool_size(), "joblib": joblib.cpu_count(), "pid": os.getpid()}

def threads_of_one(x: int) -> int:
    import polars
    return polars.thread_pool_size()

def gpus(x: int) -> dict:
    return {"seen": os.environ.get("CUDA_VISIBLE_DEVICES"), "pid": os.getpid()}

def work(folder: str, mine: str) -> str:
    """Note how many run at once."""
    path = os.path.join(folder, f"{mine}.{os.getpid()}")
    open(path, "w").close()
    time.sleep(0.05)
    at_once = len([f for f in os.listdir(folder) if not f.endswith(".seen")])
    open(os.path.join(folder, f"{mine}-{at_once}.seen"), "w").close()
    os.unlink(path)
    return mine
'''


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "steps_of_machine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MODELYARD_MACHINE", str(tmp_path / "machine"))
    machine.cache_clear()
    yield tmp_path
    machine.cache_clear()
    sys.modules.pop("steps_of_machine", None)


def step(name: str, function: str, resources: Resources, **params: object) -> Step:
    return Step(name=name, verb=f"steps_of_machine:{function}", params=params, resources=resources)


def task(resources: Resources, *, attempt: int = 1) -> Task:
    return Task(step=step("s", "gpus", resources, x=1), key="k", code="c", attempt=attempt)


def small(**given: object) -> Machine:
    has = {"cpus": 2.0, "memory": 8 * GB, "all_cpus": 2.0, "all_memory": 8 * GB, **given}
    return Machine(**has)  # type: ignore[arg-type]


def admission(here: Machine, folder: Path) -> Admission:
    return Admission(here, Leases(here, folder))


def test_this_machine_has_cores_and_memory_and_leaves_some_of_it_to_others(project: Path) -> None:
    here = machine()
    assert 0 < here.cpus <= cores()
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0.5 * min(total, here.memory * 1.1) < here.memory < total


def test_limits_of_control_groups_are_found_on_the_way_up(tmp_path: Path) -> None:
    """Both versions, as the kernel shows them: /proc/PID/cgroup, /proc/PID/mountinfo and the folders."""
    process, v2, v1 = tmp_path / "proc", tmp_path / "v2", tmp_path / "v1"
    (v2 / "user" / "run").mkdir(parents=True)
    (v2 / "user" / "cpu.max").write_text("150000 100000\n")
    (v2 / "user" / "run" / "cpu.max").write_text("max 100000\n")
    (v2 / "user" / "run" / "memory.max").write_text("max\n")
    (v2 / "user" / "memory.max").write_text("2000000000\n")
    (v1 / "pod").mkdir(parents=True)
    (v1 / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (v1 / "pod" / "memory.limit_in_bytes").write_text("1000000000\n")
    process.mkdir()
    (process / "cgroup").write_text("4:memory:/kubepods/pod\n0::/user/run\n")
    (process / "mountinfo").write_text(
        f"30 25 0:26 / {v2} rw - cgroup2 cgroup2 rw\n31 25 0:27 /kubepods {v1} rw - cgroup cgroup rw,memory\n"
    )
    memory = [(place.version, place.memory()) for place in above("memory", process=process)]
    assert memory == [(1, 1_000_000_000), (1, None), (2, None), (2, 2_000_000_000), (2, None)]
    assert [place.cpus() for place in above("cpu", process=process)] == [None, 1.5, None]


def test_where_leases_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_MACHINE", "/somewhere")
    assert machine_folder() == Path("/somewhere")
    monkeypatch.delenv("MODELYARD_MACHINE")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert machine_folder() == tmp_path / "modelyard"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert machine_folder() == tmp_path / ".local" / "state" / "modelyard"


def test_gpus_may_be_said_by_number_or_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert inventory({"MODELYARD_GPUS": "8"}) == tuple("01234567")
    assert inventory({"MODELYARD_GPUS": "0"}) == ()
    assert inventory({"MODELYARD_GPUS": "1, 3"}) == ("1", "3")
    for wrong in ("-1", "two gpus", "1,1"):
        with pytest.raises(UserError) as caught:
            inventory({"MODELYARD_GPUS": wrong})
        assert caught.value.code == "machine-gpus"


def test_more_than_there_is_is_refused_with_how_much_there_is(tmp_path: Path) -> None:
    for resources, said in (
        (Resources(memory=64 * GB), "asks for 64 GB of memory; this machine has 8 GB"),
        (Resources(gpus=4), "asks for 4 of GPUs; this machine has 2"),
    ):
        place = admission(small(gpus=("0", "1")), tmp_path).take(task(resources))
        assert isinstance(place, Failure)
        assert place.code == "machine-too-small"
        assert said in place.message
        assert place.lasting
        assert place.exit_code == 2


def test_cores_and_gpus_that_are_not_there_are_done_without_aloud(tmp_path: Path) -> None:
    place = admission(small(), tmp_path).take(task(Resources(cpus=16, gpus=1)))
    assert isinstance(place, Place)
    assert place.lease.demand == Demand(2000)
    assert place.threads == 2
    assert [note.split(":")[0] for note in place.notes] == [
        "asked for 16 cores and had 2",
        "asked for 1 GPU and ran on the CPU",
    ]


def test_a_second_attempt_gets_all_the_memory_there_is(tmp_path: Path) -> None:
    place = admission(small(), tmp_path).take(task(Resources(memory=64 * GB), attempt=2))
    assert isinstance(place, Place)
    assert place.lease.demand.memory == 8 * GB
    assert "64 GB" in place.notes[0]


def test_without_room_a_task_waits_and_what_is_not_wanted_any_more_keeps_nothing(tmp_path: Path) -> None:
    one, other = admission(small(), tmp_path), admission(small(), tmp_path)
    place = one.take(task(Resources(cpus=1.5)))
    assert isinstance(place, Place)
    assert not other.room(task(Resources(cpus=1)))
    assert other.waiting
    assert not other.room(task(Resources(cpus=0.4))), "half a core is there, and kept for the first"
    one.release(place.lease)
    assert other.again()
    assert other.room(task(Resources(cpus=1)))
    assert not one.room(task(Resources(cpus=1.5)))
    for lease in other.unused():
        other.release(lease)
    other.unused()
    assert not other.waiting
    assert one.again()


@pytest.mark.thorough
def test_nested_libraries_start_no_more_threads_than_their_step_has_cores(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelyard.pipeline.workers import THREAD_VARIABLES

    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    plan = Plan(
        project="p",
        steps=tuple(step(f"s{n}", "threads", Resources(cpus=n, own_process=True), x=1) for n in (1, 2) if n <= cores()),
    )
    finished = run(plan, open_store(project))
    for n in (1, 2)[: cores()]:
        seen = dict(finished[f"s{n}"])
        seen.pop("pid")
        assert {"polars", "joblib"} < set(seen)
        assert max(seen.values()) <= n, seen


def test_what_the_user_set_lower_stays(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLARS_MAX_THREADS", "1")
    plan = Plan(project="p", steps=(step("s", "threads_of_one", Resources(cpus=2, own_process=True), x=1),))
    assert run(plan, open_store(project))["s"] == 1


def test_a_step_sees_the_gpus_it_has_and_no_others(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_GPUS", "2")
    steps = (
        step("one", "gpus", Resources(gpus=1), x=1),
        step("both", "gpus", Resources(gpus=2), x=1),
        step("none", "gpus", Resources(own_process=True), x=1),
    )
    finished = run(Plan(project="p", steps=steps), open_store(project))
    assert finished["one"]["seen"] in ("0", "1")
    assert finished["both"]["seen"] == "0,1"
    assert finished["none"]["seen"] == ""
    # A process that has seen one set of GPUs is not used with another.
    assert len({finished[name]["pid"] for name in ("one", "both", "none")}) == 3
    used = finished.step("both").usage
    assert used.gpu_seconds == pytest.approx(2 * finished.step("both").seconds)


def test_gpus_are_handed_on_within_a_run_that_nobody_waits_for(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_GPUS", "1")
    steps = tuple(step(f"s{i}", "gpus", Resources(gpus=1), x=i) for i in range(3))
    finished = run(Plan(project="p", steps=steps), open_store(project))
    assert len({finished[f"s{i}"]["pid"] for i in range(3)}) == 1


def test_a_step_without_the_gpu_it_asked_for_runs_on_the_cpu_and_says_so(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_GPUS", "0")
    store = open_store(project)
    finished = run(Plan(project="p", steps=(step("s", "gpus", Resources(gpus=1), x=1),)), store)
    (event,) = store.ledger.events(run=finished.id, kinds=("step.finished",))
    assert event.payload["notes"] == ["asked for 1 GPU and ran on the CPU: this machine has none"]
    assert finished.step("s").usage.gpu_seconds == 0.0
    said = io.StringIO()
    Progress(1, said)(event)
    assert "asked for 1 GPU and ran on the CPU" in said.getvalue()


def test_a_step_that_never_fits_fails_its_run_as_the_users_mistake(project: Path) -> None:
    store = open_store(project)
    with pytest.raises(UserError, match="this machine has") as caught:
        run(Plan(project="p", steps=(step("s", "gpus", Resources(memory=10**18), x=1),)), store)
    assert caught.value.code == "machine-too-small"
    (done,) = store.ledger.runs()
    assert done.status == "failed"


@pytest.mark.thorough
def test_many_pipelines_on_this_machine_take_turns_and_never_exceed_it(project: Path) -> None:
    """Ten runs at once, each with two steps of one core and one of two: all end."""
    both = Resources(cpus=min(2, cores()), own_process=True)
    one = Resources(cpus=1, own_process=True)
    meeting = project / "meeting"
    meeting.mkdir()
    runs: dict[int, Run] = {}

    def pipeline(i: int) -> None:
        steps = tuple(
            step(f"p{i}s{n}", "work", asked, folder=str(meeting), mine=f"p{i}s{n}")
            for n, asked in enumerate((one, both, one))
        )
        runs[i] = run(Plan(project="p", steps=steps), open_store(project / f"project-{i}"))

    threads = [threading.Thread(target=pipeline, args=(i,)) for i in range(10)]
    for i in range(10):
        folder = project / f"project-{i}"
        folder.mkdir()
        (folder / "steps_of_machine.py").write_text(MODULE)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(runs) == list(range(10))
    assert all(done.status == "succeeded" for done in runs.values())
    at_once = [int(f.stem.rpartition("-")[2]) for f in meeting.glob("*.seen")]
    assert len(at_once) == 30
    assert max(at_once) <= cores()


def test_waiting_for_what_others_hold_ends_when_they_give_it_back_or_the_time_is_up(project: Path) -> None:
    here = machine()
    others = Leases(here)
    held = others.ask(Demand(round(here.cpus * 1000)))
    assert held is not None
    executor = LocalExecutor(open_store(project))
    asked = msgspec.structs.replace(task(Resources(own_process=True)), key="other")
    assert not executor.room(asked)
    assert executor.wait(0.01) == []
    assert not executor.room(asked)
    timer = threading.Timer(0.1, others.release, [held])
    timer.start()
    assert executor.wait(None) == []
    assert executor.room(asked)
    timer.join()
    executor.close()
    others.close()


def test_the_gpus_of_the_driver_are_named_by_uuid_and_narrowed_as_cuda_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine need not have one: the library's own interface is played, the rest is real."""
    from modelyard.pipeline import gpus as module

    class Played(types.ModuleType):
        NVMLError = RuntimeError
        nvmlInit = nvmlShutdown = staticmethod(lambda: None)  # noqa: N815 - the library's names
        nvmlDeviceGetCount = staticmethod(lambda: 3)  # noqa: N815
        nvmlDeviceGetHandleByIndex = staticmethod(lambda i: i)  # noqa: N815
        nvmlDeviceGetUUID = staticmethod(lambda i: f"GPU-{'abc'[i]}{i}-77")  # noqa: N815

    monkeypatch.setitem(sys.modules, "pynvml", Played("pynvml"))
    monkeypatch.setattr(module, "_DEVICES", ("/dev/null",))
    module._present.cache_clear()
    try:
        assert inventory({}) == ("GPU-a0-77", "GPU-b1-77", "GPU-c2-77")
        assert inventory({"CUDA_VISIBLE_DEVICES": "2,0"}) == ("GPU-c2-77", "GPU-a0-77")
        assert inventory({"CUDA_VISIBLE_DEVICES": "GPU-b"}) == ("GPU-b1-77",)
        assert inventory({"CUDA_VISIBLE_DEVICES": "1,7,0"}) == ("GPU-b1-77",)
        assert inventory({"CUDA_VISIBLE_DEVICES": ""}) == ()
        assert inventory({"CUDA_VISIBLE_DEVICES": "-1"}) == ()
    finally:
        module._present.cache_clear()


def test_without_a_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pynvml")
    from modelyard.pipeline import gpus as module

    monkeypatch.setattr(module, "_DEVICES", ("/dev/null",))

    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has GPUs")
    module._present.cache_clear()
    assert inventory({}) == ()
