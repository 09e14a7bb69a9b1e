"""`modelyard profile`: who owns a process sees where its time goes and what grows, and nobody else is heard."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest
from tests.automation.daemons import until

from modelyard._kit import hearing
from modelyard._kit.errors import ModelyardError, NotFound
from modelyard._kit.hearing import Ear, folder_of
from modelyard.automation.profiling import Grown, Looked, chosen, look, processes, speedscope, top
from modelyard.cli.main import main

# A process of a project that works hard in one function, waits in another, and keeps what it makes in a third.
WORK = """
import sys, threading, time
from pathlib import Path
from modelyard._kit.hearing import Ear

kept = []

def busy():
    total = 0
    for at in range(10_000):
        total += at * at
    return total

def waits():
    while True:
        time.sleep(0.5)

def keeps():
    kept.append(bytearray(200_000))

ear = Ear(Path(sys.argv[1]), sys.argv[2])
threading.Thread(target=waits, daemon=True).start()
print("ready", flush=True)
while True:
    busy()
    keeps()
"""


@contextmanager
def working(root: Path, what: str = "step train") -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", WORK, str(root), what], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def test_nobody_else_may_ask(tmp_path: Path) -> None:
    with closing(Ear(tmp_path, "server of a")) as ear:
        assert ear.trouble == ""
        (path,) = folder_of(tmp_path).iterdir()
        assert path.name == f"{os.getpid()}.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        # Where the mode of the file is not looked at, the system still tells who asks.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours, theirs:
            assert hearing._owner(ours)
    assert not list(folder_of(tmp_path).iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_is_not_heard(tmp_path: Path) -> None:
    with closing(Ear(tmp_path, "server of a")):
        (path,) = folder_of(tmp_path).iterdir()
        # Somebody has opened the folders: who asks is looked at all the same.
        for folder in (tmp_path, *tmp_path.parents):
            if folder.owner() == "root" and str(folder).startswith("/tmp/"):
                folder.chmod(0o755)
        (tmp_path / ".modelyard").chmod(0o755)
        path.parent.chmod(0o755)
        path.chmod(0o666)
        ask = (
            "import os, socket, sys; os.setgid(65534); os.setuid(65534); s = socket.socket(socket.AF_UNIX); "
            "os.chdir(sys.argv[1]); s.connect(sys.argv[2]); "
            's.sendall(b\'{"kind": "hello", "seconds": 0, "rate": 1}\\n\'); print(s.recv(100))'
        )
        line = [sys.executable, "-I", "-S", "-c", ask, str(path.parent), path.name]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.stdout.strip() != "" or done.returncode != 0
        assert "server of a" not in done.stdout


def test_nothing_is_loaded_or_started_before_somebody_asks(tmp_path: Path) -> None:
    code = (
        "import sys, threading; from pathlib import Path; from modelyard._kit.hearing import Ear; "
        "ear = Ear(Path(sys.argv[1]), 'x'); "
        "print('tracemalloc' in sys.modules, 'modelyard._kit.looking' in sys.modules, threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "2"]


def test_the_dearest_function_is_found_and_who_waits_costs_nothing(tmp_path: Path) -> None:
    with working(tmp_path) as pid:
        (one,) = chosen(tmp_path, "")
        assert (one.pid, one.what) == (pid, "step train")
        (told,) = look([one], seconds=1.5)
        looked = msgspec.convert(told, Looked)
        (waited,) = look([one], seconds=0.5, wall=True)
    found = top([looked])
    assert found[0][0] == "busy"
    assert sum(row[2] for row in found if row[0] == "waits") < 0.1 * found[0][2]
    assert looked.looks > 10
    assert found[0][2] <= looked.cpu + 0.1
    # By the clock, it waits all the time.
    names = {name: all_ for name, _, _, all_ in top([msgspec.convert(waited, Looked)], wall=True)}
    assert names["waits"] > 0.2
    written = speedscope([looked])
    frames = [frame["name"] for frame in written["shared"]["frames"]]
    assert "busy" in frames
    for profile in written["profiles"]:
        assert len(profile["samples"]) == len(profile["weights"])
        assert profile["endValue"] == pytest.approx(sum(profile["weights"]))
        assert all(at < len(frames) for stack in profile["samples"] for at in stack)


def test_what_grows_is_found(tmp_path: Path) -> None:
    with working(tmp_path) as pid:
        (told,) = look(chosen(tmp_path, str(pid)), seconds=1.5, memory=True)
        # It is off again: what is asked next is as cheap as before.
        (again,) = look(chosen(tmp_path, str(pid)), seconds=0.2)
    grown = msgspec.convert(told, Grown)
    line = next(at for at, text in enumerate(WORK.splitlines(), 1) if "bytearray" in text)
    assert grown.places[0]["stack"][-1] == f"<string>:{line}"
    assert grown.places[0]["bytes"] > 0.9 * grown.grew > 100_000
    assert again["samples"]


def test_who_hangs_up_is_not_looked_for_any_longer(tmp_path: Path) -> None:
    with working(tmp_path):
        line = [sys.executable, "-m", "modelyard", "profile", "--seconds", "3000"]
        asking = subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert asking.stderr is not None
        assert asking.stderr.readline().startswith("looking into ")
        asking.send_signal(signal.SIGINT)
        asking.communicate(timeout=30)
        assert asking.returncode == 130
        # The next one is heard.
        until(lambda: [one.what for one in processes(tmp_path)] == ["step train"])
        assert not list(tmp_path.glob("profile-*"))


def test_only_what_is_there_is_chosen(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing of this project runs"):
        chosen(tmp_path, "")
    with working(tmp_path, "server of income") as server, working(tmp_path, "step train") as step:
        assert [one.pid for one in chosen(tmp_path, "")] == [server]
        assert [one.pid for one in chosen(tmp_path, "income")] == [server]
        assert [one.pid for one in chosen(tmp_path, "train")] == [step]
        with pytest.raises(NotFound, match="`outcome` is no process"):
            chosen(tmp_path, "outcome")
        ended = chosen(tmp_path, "train")
    with pytest.raises(ModelyardError) as caught:
        look(ended, seconds=0.1)
    assert caught.value.code == "profile-unanswered"
    # What was killed leaves a file, and nobody is fooled by it.
    assert len(list(folder_of(tmp_path).iterdir())) == 2
    assert processes(tmp_path) == []
    assert not list(folder_of(tmp_path).iterdir())


def test_a_project_may_lie_deep(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 6)
    deep.mkdir(parents=True)
    with closing(Ear(deep, "server of a")) as ear:
        assert ear.trouble == ""
        assert [one.what for one in processes(deep)] == ["server of a"]


def test_a_folder_that_cannot_be_written_keeps_nobody_from_work(tmp_path: Path) -> None:
    (tmp_path / ".modelyard").write_text("no folder")
    with closing(Ear(tmp_path, "server of a")) as ear:
        assert ear.trouble


STEPS = """
import time
from pathlib import Path

def slow():
    total = 0
    while not Path("enough").exists():
        total += sum(at * at for at in range(100_000))
    return total > 0
"""


@pytest.mark.parametrize("own", ["", ", resources: {own_process: true}"])
def test_a_step_under_way_is_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own: str
) -> None:
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "modelyard.yaml").write_text(f"project: p\nsteps:\n  slow: {{function: steps.py:slow{own}}}\n")
    monkeypatch.chdir(tmp_path)
    run = subprocess.Popen([sys.executable, "-m", "modelyard", "run"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        until(lambda: [one for one in processes(tmp_path) if one.what == "step slow"])
        assert main(["profile", "slow", "--seconds", "1", "--to", "p.json"]) == 0
        said = capsys.readouterr().out
        assert "step slow" in said
        assert any(name in said.splitlines()[3] for name in ("slow", "genexpr"))
        assert json.loads((tmp_path / "p.json").read_text())["profiles"]
    finally:
        (tmp_path / "enough").touch()
        assert run.wait(60) == 0
    assert main(["profile", "slow"]) == 2
    assert "error[profile-nothing]" in capsys.readouterr().err
    # A worker that ends leaves no socket.
    assert not list(folder_of(tmp_path).glob("*.sock"))


def test_order_that_is_none_ends_no_ear(tmp_path: Path) -> None:
    with closing(Ear(tmp_path, "server of a")):
        (path,) = folder_of(tmp_path).iterdir()
        for said in (b"\n", b"{}\n", b"[1]\n", b'{"kind": "time", "seconds": "x", "rate": 1}\n'):
            with socket.socket(socket.AF_UNIX) as asking, hearing.reached(path) as address:
                asking.settimeout(20)
                asking.connect(address)
                asking.sendall(said)
                assert asking.recv(10) == b""
        assert [one.what for one in processes(tmp_path)] == ["server of a"]
        assert threading.active_count() >= 2


def test_each_endpoint_of_a_server_of_several_names_its_process(tmp_path: Path) -> None:
    with closing(Ear(tmp_path, "server of income, bikes")):
        assert [one.pid for one in chosen(tmp_path, "income")] == [os.getpid()]
        assert [one.pid for one in chosen(tmp_path, "bikes")] == [os.getpid()]
        with pytest.raises(NotFound):
            chosen(tmp_path, "inc")
