"""Children are started again when they die, more and more slowly, and die with the daemon; systemd hears of us."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.automation.daemons import alive, project, until, up
from tests.typed import typed

from modelyard._kit.errors import NotFound
from modelyard.automation.apart import pause
from modelyard.automation.notes import Note
from modelyard.automation.status import load_of
from modelyard.automation.supervise import Child
from modelyard.automation.systemd import Manager


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


async def soon(holds: object) -> None:
    async with asyncio.timeout(30):
        while not holds():  # type: ignore[operator]
            await asyncio.sleep(0.01)


def test_a_child_that_dies_is_started_again_and_what_it_said_is_kept(tmp_path: Path) -> None:
    said: list[Note] = []
    code = "import os; open('began', 'a').write('x'); print('hello'); raise SystemExit(3)"

    async def story() -> Child:
        child = Child("serve", lambda: python(code), cwd=tmp_path, say=said.append)
        task = asyncio.create_task(child.keep())
        await soon(lambda: child.state.restarts >= 2 and child.state.failures >= 3)
        await child.stop(5.0)
        await task
        return child

    child = asyncio.run(story())
    assert len((tmp_path / "began").read_text()) == child.state.restarts + 1 >= 3
    assert (child.state.ended, child.state.said[-1], child.state.state) == ("exited with 3", "hello", "stopped")
    assert any("serve exited with 3, starts again in" in note.text and "it said: hello" in note.text for note in said)


def test_a_child_that_was_given_something_wrong_waits_until_that_has_changed(tmp_path: Path) -> None:
    said: list[Note] = []
    wrong = "import sys; print('error[guard-unusable] no `agee`'); print('  hint: `age`'); sys.exit(2)"
    commands = [wrong, "import time; print('well', flush=True); time.sleep(60)"]

    async def story() -> str:
        child = Child("serve", lambda: python(commands[0]), cwd=tmp_path, say=said.append)
        task = asyncio.create_task(child.keep())
        await soon(lambda: child.state.state == "waiting")
        state = child.state
        assert (state.next, state.failures) == (0.0, 1)
        commands.pop(0)
        child.renew()
        await soon(lambda: "well" in child.said)
        await child.stop(5.0)
        await task
        return state.ended

    assert asyncio.run(story()) == "exited with 2, error[guard-unusable] no `agee`"
    assert [note.text for note in said if "agee" in note.text] == ["error[guard-unusable] no `agee`"]
    assert "serve exited with 2, starts again when what it is given changes" in [note.text for note in said]


def test_a_child_whose_port_is_taken_tries_again(tmp_path: Path) -> None:
    async def story() -> Child:
        code = "import sys; print('error[port-taken] no'); sys.exit(2)"
        child = Child("serve", lambda: python(code), cwd=tmp_path, say=lambda note: None)
        task = asyncio.create_task(child.keep())
        await soon(lambda: child.state.restarts >= 2)
        await child.stop(5.0)
        await task
        return child

    assert asyncio.run(story()).state.state == "stopped"


def test_no_secret_that_a_child_says_is_kept(tmp_path: Path) -> None:
    async def story() -> Child:
        child = Child("serve", lambda: python("print('password=hunter2hunter2')"), cwd=tmp_path, say=lambda note: None)
        task = asyncio.create_task(child.keep())
        await soon(lambda: child.said)
        await child.stop(5.0)
        await task
        return child

    assert "hunter2" not in asyncio.run(story()).said[0]


def test_a_crash_loop_slows_down_to_once_a_minute() -> None:
    waits = [pause(number) for number in range(1, 15)]
    assert waits[:3] == [0.1, 0.2, 0.4]
    assert waits[-1] == 60.0


def test_a_child_without_a_command_yet_is_shown_with_the_reason(tmp_path: Path) -> None:
    def command() -> list[str]:
        raise NotFound("alias-not-found", "there is no champion yet")

    async def story() -> Child:
        child = Child("serve", command, cwd=tmp_path, say=lambda note: None)
        task = asyncio.create_task(child.keep())
        await soon(lambda: child.state.failures)
        await child.stop(5.0)
        await task
        return child

    assert asyncio.run(story()).state.said == ("there is no champion yet",)


def test_a_child_that_ignores_the_polite_word_is_killed(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )

    async def story() -> int:
        child = Child("serve", lambda: python(code), cwd=tmp_path, say=lambda note: None)
        task = asyncio.create_task(child.keep())
        await soon(lambda: child.state.pid)
        pid = child.state.pid
        # It must have had the time to turn deaf.
        await soon(lambda: "deaf" in child.said)
        await child.stop(0.2)
        await task
        return pid

    assert not alive(asyncio.run(story()))


def test_a_renewed_child_runs_the_new_command_at_once(tmp_path: Path) -> None:
    commands = ["old", "new"]

    async def story() -> Child:
        child = Child(
            "serve",
            lambda: python(f"import time; print('{commands[0]}', flush=True); time.sleep(60)"),
            cwd=tmp_path,
            say=lambda note: None,
        )
        task = asyncio.create_task(child.keep())
        await soon(lambda: "old" in child.said)
        commands.pop(0)
        child.renew()
        await soon(lambda: "new" in child.said)
        await child.stop(5.0)
        await task
        return child

    child = asyncio.run(story())
    assert (child.state.restarts, child.state.failures) == (0, 0)


def test_nothing_outlives_a_killed_daemon(tmp_path: Path) -> None:
    file = project(
        tmp_path, steps="import os, time\n\ndef one(fire):\n    time.sleep(60)\n\ndef two(x):\n    return x\n"
    )
    file.write_text(file.read_text().replace('steps.py:one"', 'steps.py:one", resources: {own_process: true}'))
    assert typed(tmp_path, "triggers", "fire", "manual").returncode == 0
    with up(cwd=tmp_path) as daemon:
        # The runner and the worker of its step.
        until(lambda: load_of(daemon.process.pid).processes >= 3)
        below = [int(p.name) for p in Path("/proc").glob("[0-9]*") if _above(int(p.name), daemon.process.pid)]
        assert len(below) >= 2
        daemon.kill()
        until(lambda: not any(map(alive, below)))


def _above(pid: int, ancestor: int) -> bool:
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
        if pid == ancestor:
            return True
    return False


def test_a_runner_that_dies_is_replaced_and_a_fire_that_kills_it_is_given_up(tmp_path: Path) -> None:
    deadly = "import os\n\ndef one(fire):\n    if fire['payload'] == 1:\n        os.kill(os.getpid(), 9)\n"
    project(tmp_path, steps=f"{deadly}\ndef two(x):\n    return x\n")
    for payload in ("1", "2"):
        assert typed(tmp_path, "triggers", "fire", "manual", "--payload", payload).returncode == 0
    with up(cwd=tmp_path) as daemon:
        daemon.wait_for("run", "its process died 3 times in a row")
        daemon.wait_for("run", "succeeded")
        assert daemon.stop() == 0
    assert sum("runner was killed by SIGKILL" in note["text"] for note in daemon.said) == 3


def test_systemd_hears_when_we_are_ready_alive_and_stopping(tmp_path: Path) -> None:
    project(tmp_path)
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(30)
        env = {**os.environ, "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "300000"}
        process = subprocess.Popen(
            [sys.executable, "-m", "modelyard", "up", "--no-ui"], cwd=tmp_path, env=env, stderr=subprocess.DEVNULL
        )
        try:
            heard = []
            while not {"WATCHDOG=1", "READY=1", "STATUS=tiny"} <= set(heard):
                heard += sock.recv(4096).decode().splitlines()
            process.send_signal(signal.SIGTERM)
            while "STOPPING=1" not in heard:
                heard += sock.recv(4096).decode().splitlines()
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait(60)


def test_an_abstract_address_and_none_at_all() -> None:
    name = f"modelyard-test-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        manager = Manager({"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())})
        assert manager.every == pytest.approx(1.0)
        assert manager.tell("READY=1", "STATUS=x")
        assert sock.recv(100) == b"READY=1\nSTATUS=x"
    assert not manager.tell("READY=1")
    assert not Manager({}).tell("READY=1")
    # The watchdog of another process is none of ours.
    assert Manager({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}).every == 0.0
