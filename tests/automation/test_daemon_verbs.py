"""The verbs around the daemon, typed as a person would."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.automation.daemons import STEPS, alive, left, project, runs, until, up, want
from tests.typed import typed as yard

from modelyard.automation.state import DaemonState, announce, publish, published
from modelyard.records import Draft
from modelyard.store import LocalStore

SPEC = """\
project: tiny
owners: [{team: credit}]
schedule: {at: "0 3 * * *", zone: UTC}
triggers:
  arrivals: {files: "in/*.csv", owner: intake}
steps:
  one: {function: "steps.py:one"}
  two: {function: "steps.py:two", inputs: {x: one}}
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    (tmp_path / "in").mkdir()
    project(tmp_path, SPEC)
    with LocalStore(tmp_path) as opened:
        yield opened


def test_status_and_down_of_a_daemon_in_the_background(store: LocalStore) -> None:
    command = [sys.executable, "-m", "modelyard", "up", "--detach", "--no-ui"]
    begun = subprocess.run(command, cwd=store.root, capture_output=True, text=True, check=False)
    assert begun.returncode == 0, begun.stderr
    pid = int(begun.stdout)
    try:
        want(store, "slow")
        until(lambda: "two slow" in left(store.root))
        until(lambda: published(store.root).run)
        said = yard(store.root, "status", "--json")
        assert said.returncode == 0
        now = json.loads(said.stdout)
        assert now["daemons"][0]["status"] == "running"
        assert now["daemons"][0]["pid"] == pid
        assert (now["run"]["done"], now["run"]["total"], now["run"]["steps"]) == (1, 2, ["two"])
        load = now["load"][now["daemons"][0]["id"]]
        assert load["daemon"]["processes"] == 2
        assert load["daemon"]["memory"] > load["runner"]["memory"] > 0
        text = yard(store.root, "status").stdout
        assert f"tiny: running, process {pid}" in text
        assert "1 of 2 steps: two" in text
        assert "next    schedule" in text
        # The run under way is cut off, so that this ends at once.
        assert yard(store.root, "down", "--now").stderr == f"stopped process {pid}\n"
        assert not alive(pid)
    finally:
        yard(store.root, "down", "--now")
    assert [r.status for r in runs(store)] == ["interrupted"]
    assert [f.state for f in store.ledger.fires()] == ["queued"]
    said = yard(store.root, "status")
    assert said.returncode == 1
    assert "tiny: no daemon runs" in said.stdout
    assert "waits   manual" in said.stdout
    assert ", its run was cut off" in said.stdout
    assert yard(store.root, "down").stderr == "no daemon of this project runs on this machine\n"


def test_a_killed_daemon_is_lost_and_never_running(store: LocalStore) -> None:
    with up(cwd=store.root) as daemon:
        daemon.wait_for("ready")
        daemon.kill()
    said = yard(store.root, "status")
    assert said.returncode == 1
    assert re.search(rf"✗ tiny: lost, process {daemon.process.pid} on .*, began ", said.stdout)


def test_a_daemon_that_lives_and_does_nothing_is_stuck(store: LocalStore) -> None:
    with up(cwd=store.root) as daemon:
        daemon.wait_for("ready")
        until(lambda: published(store.root))
        daemon.process.send_signal(signal.SIGSTOP)
        os.utime(store.root / ".modelyard" / "daemon" / "state.json", (1.0, 1.0))
        said = yard(store.root, "status")
        assert said.returncode == 1
        assert f"tiny: stuck, process {daemon.process.pid}" in said.stdout
        daemon.process.send_signal(signal.SIGCONT)
        assert daemon.stop() == 0


def test_cancel_ends_the_run_of_a_daemon_and_the_next_fire_runs(store: LocalStore) -> None:
    want(store, "slow")
    want(store, "next")
    with up(cwd=store.root) as daemon:
        until(lambda: "two slow" in left(store.root))
        ended = yard(store.root, "cancel", "--json")
        assert ended.returncode == 0, ended.stderr
        run = json.loads(ended.stdout)
        assert run["status"] == "cancelled"
        assert run["reason"].startswith("cancelled by user:")
        daemon.wait_for("run", "succeeded")
        assert daemon.stop() == 0
    assert [f.state for f in store.ledger.fires()] == ["cancelled", "succeeded"]
    nothing = yard(store.root, "cancel")
    assert nothing.returncode == 2
    assert "error[run-not-under-way]" in nothing.stderr


# What Python prints and forgets: an exception that is raised while an object is taken away.
SWALLOWED = """

import signal

class Gone:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def one(fire):
    if fire["payload"] == "slow":
        Gone()
    return fire["payload"]
"""


def test_a_run_of_a_daemon_ends_at_the_next_look_where_its_signal_was_swallowed(store: LocalStore) -> None:
    project(store.root, steps=STEPS + SWALLOWED)
    want(store, "slow")
    want(store, "next")
    with up(cwd=store.root) as daemon:
        daemon.wait_for("run", "succeeded")
        assert daemon.stop() == 0
    assert left(store.root) == ["two next"]
    assert [f.state for f in store.ledger.fires()] == ["cancelled", "succeeded"]


def test_cancel_ends_a_run_that_somebody_started_by_hand(store: LocalStore) -> None:
    project(
        store.root,
        SPEC,
        "import time\n\ndef one():\n    return 1\n\ndef two(x):\n    open('begun', 'w').close()\n    time.sleep(60)\n",
    )
    by_hand = subprocess.Popen([sys.executable, "-m", "modelyard", "run"], cwd=store.root, stderr=subprocess.DEVNULL)
    until((store.root / "begun").exists)
    assert yard(store.root, "cancel").returncode == 0
    assert by_hand.wait(60) == 130
    assert [r.status for r in runs(store)] == ["cancelled"]


def ended(store: LocalStore, run: str, status: str, reason: str = "") -> None:
    store.ledger.append(Draft(kind="run.started", run=run, payload={"project": "tiny", "plan": "", "environment": ""}))
    if status != "running":
        store.ledger.append(Draft(kind="run.finished", run=run, payload={"status": status, "reason": reason}))


def test_status_shows_the_newest_runs_whatever_came_of_them(store: LocalStore) -> None:
    assert "no run yet; `modelyard run` makes the first" in yard(store.root, "status").stdout
    ended(store, "run-1", "failed", "the source was away")
    for number in range(2, 7):
        ended(store, f"run-{number}", "succeeded")
    text = yard(store.root, "status").stdout
    assert re.findall(r"run-\d", text) == ["run-6", "run-5", "run-4", "run-3", "run-2"]
    assert "failed" not in text  # what was mended since is no news
    now = json.loads(yard(store.root, "status", "--json").stdout)
    assert (now["runs"][0]["id"], now["runs"][0]["status"]) == ("run-6", "succeeded")
    assert [run["id"] for run in now["failures"]] == ["run-1"]

    ended(store, "run-7", "failed", "a step broke\nin line 3")
    text = yard(store.root, "status").stdout
    first = next(line for line in text.splitlines() if "run-7" in line)
    assert first.startswith("✗")
    assert first.endswith("a step broke")
    assert "`modelyard show run-7` says why it failed" in text
    assert "✓  run-6" in text
    with store.hold("run", who={"run": "run-8"}):
        ended(store, "run-8", "running")
        text = yard(store.root, "status").stdout
    assert re.search(r"^…  run-8  +running", text, re.MULTILINE)


def test_status_says_why_a_fire_is_held_as_the_board_does(store: LocalStore) -> None:
    about = {"trigger": "schedule", "kind": "schedule", "due": 5.0}
    for number in (1, 2):
        fire = {"id": f"fire-{number}", "key": f"schedule/{number}", **about}
        store.ledger.append(Draft(kind="fire.queued", payload=fire))
    why = "waits for 02:00, when a kWh costs 11 ct"
    state = DaemonState(
        id="daemon-1", host=socket.gethostname(), pid=7, since=1.0, version="1", ready=True, holds={"fire-2": why}
    )
    announce(store, state)
    publish(store.root, state)
    with store.hold("daemon:daemon-1", who={}):
        text = yard(store.root, "status").stdout
        board = yard(store.root, "triggers").stdout
    assert [line.endswith(f": {why}") for line in text.splitlines() if line.startswith("waits ")] == [False, True]
    assert why in board
    # Nobody holds it back any more.
    assert why not in yard(store.root, "status").stdout


def test_the_board_names_every_trigger_and_why(store: LocalStore) -> None:
    missed = {"id": "fire-1", "key": "schedule/a", "trigger": "schedule", "kind": "schedule", "due": 5.0}
    why = "missed while nothing ran: 1,200 times from a to b; `catch_up` is `last`"
    store.ledger.append(Draft(kind="fire.dropped", payload={**missed, "why": why}))
    assert yard(store.root, "triggers", "pause", "arrivals", "--reason", "we move house").returncode == 0
    rows = {row["name"]: row for row in json.loads(yard(store.root, "triggers", "--json").stdout)}
    assert list(rows) == ["schedule", "arrivals", "manual"]
    assert (rows["schedule"]["missed"], rows["schedule"]["why"]) == (1200, f"left out: {why}")
    assert rows["schedule"]["next"] > 0
    assert rows["arrivals"]["owner"] == "intake"
    assert rows["schedule"]["owner"] == "credit"
    assert rows["arrivals"]["paused"].startswith("we move house (user:")
    assert not rows["arrivals"]["watched"]
    text = yard(store.root, "triggers")
    assert "paused: we move house" in text.stdout
    assert "no daemon looks after them here" in text.stderr
    fired = yard(store.root, "triggers", "fire", "arrivals", "--payload", '{"day": 1}')
    assert fired.returncode == 0
    assert "a fire by hand runs all the same" in fired.stderr
    fire = store.ledger.fire(fired.stdout.strip())
    assert fire is not None
    assert (fire.state, fire.kind, fire.payload) == ("queued", "manual", {"day": 1})
    shown = yard(store.root, "triggers", "show", "arrivals").stdout
    assert fire.id in shown
    assert "waits for `modelyard up`" in shown
    assert yard(store.root, "triggers", "resume", "arrivals").returncode == 0
    rows = {row["name"]: row for row in json.loads(yard(store.root, "triggers", "--json").stdout)}
    assert rows["arrivals"]["paused"] == ""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("triggers", "show"), "trigger-name"),
        (("triggers", "show", "arival"), "trigger-not-found"),
        (("triggers", "fire", "arrivals", "--payload", "{"), "trigger-payload"),
        (("triggers", "pause", "manual"), "trigger-name"),
        (("up", "--runs", "0"), "cli-value"),
        (("up", "--grace", "soon"), "cli-value"),
        (("up", "-f", "modelyard.yaml", "-f", "modelyard.yaml"), "up-same-folder"),
    ],
)
def test_what_cannot_be_is_refused(store: LocalStore, words: tuple[str, ...], code: str) -> None:
    said = yard(store.root, *words)
    assert said.returncode == 2
    assert f"error[{code}]" in said.stderr


def test_the_unit_is_one_that_systemd_takes(store: LocalStore, tmp_path: Path) -> None:
    root = tmp_path / "a place 100%"
    project(root, SPEC)
    done = yard(root, "up", "--systemd", "--grace", "5m", XDG_CONFIG_HOME=str(tmp_path / "config"))
    assert done.returncode == 0, done.stderr
    assert "systemctl --user enable --now modelyard-tiny.service" in done.stderr
    file = tmp_path / "config" / "systemd" / "user" / "modelyard-tiny.service"
    assert done.stdout == f"{file}\n"
    text = file.read_text()
    assert "TimeoutStopSec=330" in text
    assert yard(root, "up", "--systemd", "-", "--grace", "5m").stdout == text
    wrong = yard(root, "up", "--systemd", "no/such.service")
    assert (wrong.returncode, "error[output-folder]" in wrong.stderr) == (2, True)
    assert not (root / "no").exists()
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here; the text was checked")
    said = subprocess.run(
        [analyze, "verify", "--user", str(file)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stderr) == (0, "")


# Inside a mount namespace, as the unit has it: the home can be read, and written only where the unit says so.
HARDENED = """
mount --bind "$HOME" "$HOME" || exit 99
for folder in {writable}; do mount --bind "$folder" "$folder" || exit 99; done
mount -o remount,bind,ro "$HOME" || exit 99
touch "$HOME/anywhere" 2>/dev/null && exit 98
exec {python} -m modelyard run
"""


def test_a_step_with_a_process_of_its_own_runs_with_the_rights_of_the_unit(tmp_path: Path) -> None:
    home = tmp_path / "home"
    file = project(
        home / "tiny",
        "project: tiny\nsteps:\n  one: {function: 'steps.py:one', resources: {own_process: true, cpus: 1}}\n",
        "def one():\n    return 1\n",
    )
    runtime = home / "run"
    runtime.mkdir()
    text = yard(file.parent, "up", "--systemd", "-").stdout.replace("%t", str(runtime))
    values = [line.partition("=") for line in text.splitlines()]
    (given,) = [value for name, _, value in values if name == "RuntimeDirectory"]
    (runtime / given).mkdir()
    writable = [
        str(runtime / given),
        *(v for name, _, value in values if name == "ReadWritePaths" for v in value.split()),
    ]
    env = dict(pair.split("=", 1) for name, _, value in values if name == "Environment" for pair in value.split())
    script = HARDENED.format(writable=" ".join(writable), python=sys.executable)
    command = ["unshare", "--mount", "--map-root-user", "/bin/sh", "-c", script]
    try:
        done = subprocess.run(
            command,
            cwd=file.parent,
            env={**os.environ, "HOME": str(home), **env},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("this machine has no unshare")
    if done.returncode == 99 or "unshare:" in done.stderr:
        pytest.skip("this machine does not allow a mount of its own")
    assert done.returncode == 0, done.stderr


def test_the_unit_may_write_to_the_folder_of_a_shared_store(store: LocalStore) -> None:
    address = "postgresql://ann@db.example.org/ml?files=/mnt/team%20files"
    said = yard(store.root, "up", "--systemd", "-", MODELYARD_STORE=address)
    (line,) = [line for line in said.stdout.splitlines() if line.startswith("ReadWritePaths=")]
    assert line == f'ReadWritePaths={store.root} "-/mnt/team files"'


TALK = """
import sys
from pathlib import Path
import modelyard.cli.up as up
from modelyard.automation.notes import note

up._LARGE = 10_000
show = up._bounded(up._print, Path("up.log"))
for i in range(1000):
    show(note("said", f"line {i} {'x' * 50}", name="runner"))
"""


def test_the_log_of_a_daemon_in_the_background_does_not_grow_without_end(tmp_path: Path) -> None:
    log = tmp_path / "up.log"
    with log.open("ab") as out:
        subprocess.run([sys.executable, "-c", TALK], cwd=tmp_path, stderr=out, check=True)
    assert max(file.stat().st_size for file in (log, tmp_path / "up.log.1")) <= 10_200
    assert "line 999" in log.read_text()


def test_down_leaves_a_daemon_of_systemd_alone(store: LocalStore) -> None:
    os.environ["MODELYARD_UNIT"] = "modelyard-tiny.service"
    try:
        with up(cwd=store.root) as daemon:
            daemon.wait_for("ready")
            said = yard(store.root, "down")
            assert said.returncode == 4
            assert "systemctl --user stop modelyard-tiny.service" in said.stderr
            assert daemon.stop() == 0
    finally:
        del os.environ["MODELYARD_UNIT"]


def test_an_output_that_nobody_reads_holds_up_neither_the_runs_nor_the_end(store: LocalStore) -> None:
    project(store.root, SPEC, "def one(fire):\n    print('x' * 30_000)\n    return 1\n\ndef two(x):\n    return x\n")
    # Several times what a pipe holds.
    for number in range(10):
        want(store, str(number))
    with up(cwd=store.root) as daemon:
        until(lambda: all(fire.state == "succeeded" for fire in store.ledger.fires()))
        daemon.process.terminate()
        assert daemon.process.wait(60) == 0
