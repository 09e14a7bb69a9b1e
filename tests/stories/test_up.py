"""`modelyard up` for real: files that come while it is down, kills, a served champion, two machines on one store."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelyard.store import LocalStore, open_store
from tests.automation.daemons import Up, runs, until, up

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "crash.py"
LOADS = """\
project: loads
triggers:
  arrivals: {files: "in/*.csv", each: true, settle: 200ms, every: 1s}
steps:
  load: {function: "steps.py:load"}
"""
STEPS = """\
import os

def load(fire):
    fd = os.open("loaded.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for item in fire["items"]:
        os.write(fd, (os.path.basename(item["name"]) + "\\n").encode())
    os.close(fd)
    return len(fire["items"])
"""


@pytest.mark.slow
def test_killed_again_and_again_nothing_is_lost_or_done_twice() -> None:
    done = subprocess.run([sys.executable, str(BENCHMARK), "8", "3"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {line["name"]: line["value"] for line in map(json.loads, done.stdout.splitlines())}
    assert found["kills"] == 8
    assert found["fires"] > 0
    for name in ("lost_steps", "doubled_steps", "lost_fires", "doubled_fires"):
        assert found[name] == 0


@pytest.mark.slow
def test_a_thousand_files_that_come_while_it_is_down_and_up_are_loaded_once_each(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "modelyard.yaml").write_text(LOADS)
    (tmp_path / "steps.py").write_text(STEPS)
    names = [f"{number:04d}.csv" for number in range(1000)]

    def drop(some: list[str]) -> None:
        for name in some:
            (tmp_path / "in" / name).write_text(name)

    def loaded() -> Counter[str]:
        file = tmp_path / "loaded.log"
        return Counter(file.read_text().split() if file.exists() else [])

    with LocalStore(tmp_path) as store:
        with up("--no-serve", cwd=tmp_path) as daemon:
            # What is there at the first look is no arrival.
            until(lambda: store.ledger.seen("arrivals"))
            assert daemon.stop() == 0
        drop(names[:400])
        with up("--no-serve", cwd=tmp_path) as daemon:
            until(lambda: len(loaded()) >= 50)
            drop(names[400:700])
            until(lambda: len(loaded()) >= 200)
            daemon.kill()
        drop(names[700:])
        with up("--no-serve", cwd=tmp_path) as daemon:
            until(lambda: len(loaded()) == 1000, seconds=240)
            until(lambda: not store.ledger.fires(states=("queued", "started")))
            assert daemon.stop() == 0
        fires = store.ledger.fires(trigger="arrivals")
        assert Counter(Path(item.name).name for fire in fires for item in fire.items) == Counter(names)
        assert {fire.state for fire in fires} == {"succeeded"}
        assert Counter(run.fire for run in runs(store) if run.status == "succeeded").most_common(1)[0][1] == 1
        # The kill may have come between a load and its record; a load that was recorded was never done again.
        assert sum(loaded().values()) <= 1001
        assert store.ledger.verify() == []


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.slow
def test_the_champion_is_served_once_there_is_one_and_again_when_its_server_dies(
    make_project: Callable[..., Path],
) -> None:
    workbench = make_project()
    port, pages = _free_port(), _free_port()
    command = [sys.executable, "-m", "modelyard", "up", "--json", "--port", str(port), "--ui-port", str(pages)]
    process = subprocess.Popen(command, cwd=workbench, stdout=subprocess.PIPE, text=True)
    daemon = Up(process)
    try:
        daemon.wait_for("ready")
        fired = subprocess.run(
            [sys.executable, "-m", "modelyard", "triggers", "fire", "manual"], cwd=workbench, check=False
        )
        assert fired.returncode == 0
        assert daemon.wait_for("run")["more"]["state"] == "succeeded"
        ready = daemon.wait_for("said", "ready http://")
        assert ready["name"] == "serve"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=10) as answer:
            assert answer.status == 200
        server = int(next(n for n in daemon.said if n["what"] == "child" and n["name"] == "serve")["more"]["pid"])
        os.kill(server, 9)
        daemon.wait_for("child", "serve was killed by SIGKILL")
        daemon.wait_for("said", "ready http://")
        assert daemon.stop() == 0
    finally:
        process.kill()
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.cluster
def test_two_machines_on_one_store_run_each_fire_once_and_one_takes_over(tmp_path: Path, postgres_address: str) -> None:
    lease = 2.0
    address = f"{postgres_address}?schema=two&lease={lease:g}s&beat=300ms&files={tmp_path}/team"
    spec = LOADS.replace('"in/*.csv"', f'"{tmp_path}/in/*.csv"') + f"store: {address}\n"
    (tmp_path / "in").mkdir()
    boxes = [tmp_path / "box-1", tmp_path / "box-2"]
    for box in boxes:
        box.mkdir()
        (box / "modelyard.yaml").write_text(spec)
        (box / "steps.py").write_text(SLOWLY)
    with open_store(boxes[0]) as store, two(boxes) as (first, second):
        until(lambda: store.ledger.seen("arrivals"))
        for number in range(30):
            (tmp_path / "in" / f"{number:02d}.csv").write_text("x")
        until(lambda: len([f for f in store.ledger.fires() if f.state == "succeeded"]) >= 5)
        # The one that runs something right now is killed; its run is cut off with it.
        who = until(lambda: store.holder("run"))
        killed, other = (first, second) if _below(who["pid"], first.process.pid) else (second, first)
        killed.kill()
        at = time.time()
        until(lambda: [f for f in store.ledger.fires() if f.state == "succeeded"][29:], seconds=120)
        begun = [e.time for e in store.ledger.events(kinds=("run.started",)) if e.time > at]
        assert begun
        said = json.loads(_yard(boxes[0], "status", "--json").stdout)
        assert sorted(seen["status"] for seen in said["daemons"]) == ["lost", "running"]
        assert other.stop() == 0
        fires = store.ledger.fires(trigger="arrivals")
        assert Counter(Path(i.name).name for f in fires for i in f.items) == Counter(f"{n:02d}.csv" for n in range(30))
        ended = Counter(run.fire for run in runs(store) if run.status == "succeeded")
        assert set(ended.values()) == {1}
        assert len(ended) == 30
        assert store.ledger.verify() == []


@pytest.mark.cluster
def test_a_store_that_goes_away_and_comes_back_loses_nothing(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="no psycopg: pip install 'modelyard[postgres]'")
    from modelyard.conformance.postgres import PostgresServer, programs

    if programs() is None:
        pytest.skip("no Postgres on this machine: apt-get install postgresql")
    box, arriving = tmp_path / "box", tmp_path / "box" / "in"
    arriving.mkdir(parents=True)
    with PostgresServer() as server:
        address = f"{server.address}?schema=away&lease=2s&beat=300ms&timeout=1s&files={tmp_path}/team"
        (box / "modelyard.yaml").write_text(f"{LOADS}store: {address}\n")
        (box / "steps.py").write_text(SLOWLY)
        with open_store(box) as store, up("--no-serve", cwd=box) as daemon:
            until(lambda: store.ledger.seen("arrivals"))
            for number in range(8):
                (arriving / f"{number}.csv").write_text("x")
            until(lambda: store.ledger.fires(states=("succeeded",)))
            server.stop()
            daemon.wait_for("store", "nothing can be run now")
            (arriving / "late.csv").write_text("x")
            time.sleep(2.5)
            server.start()
            until(lambda: len({f.items[0].name for f in store.ledger.fires(states=("succeeded",))}) == 9, seconds=120)
            assert daemon.stop() == 0
            ended = Counter(run.fire for run in runs(store) if run.status == "succeeded")
            assert set(ended.values()) == {1}
            assert len(ended) == 9
            assert store.ledger.verify() == []


SLOWLY = STEPS.replace("import os\n", "import os, time\n").replace(
    '    fd = os.open("loaded.log"', '    time.sleep(0.2)\n    fd = os.open("../loaded.log"'
)


@contextmanager
def two(boxes: list[Path]) -> Iterator[tuple[Up, Up]]:
    """Start a daemon on each of two machines."""
    with up("--no-serve", cwd=boxes[0]) as first, up("--no-serve", cwd=boxes[1]) as second:
        first.wait_for("ready")
        second.wait_for("ready")
        yield first, second


def _yard(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modelyard", *words], cwd=cwd, capture_output=True, text=True, check=False
    )


def _below(pid: int, ancestor: int) -> bool:
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if pid == ancestor:
            return True
    return False
