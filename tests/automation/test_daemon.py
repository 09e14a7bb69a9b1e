"""The daemon runs what is queued, each fire once, through kill -9 and restarts."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from tests.automation.daemons import SPEC, STEPS, alive, left, project, runs, until, up, want

from modelyard.automation.board import board
from modelyard.automation.state import daemons, published
from modelyard.automation.triggers.signature import sign
from modelyard.spec import load
from modelyard.store import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    project(tmp_path)
    with LocalStore(tmp_path) as opened:
        yield opened


def test_it_runs_what_waits_and_what_comes_and_stops_politely(store: LocalStore) -> None:
    want(store, "before")
    with up(cwd=store.root) as daemon:
        daemon.wait_for("run")
        want(store, "later")
        daemon.wait_for("run")
        assert daemon.stop() == 0
    assert left(store.root) == ["one before", "two before", "one later", "two later"]
    assert [(r.status, r.actor) for r in runs(store)] == [("succeeded", "user:ann")] * 2
    assert [f.state for f in store.ledger.fires()] == ["succeeded"] * 2
    assert daemons(store, time.time()) == []
    assert [e.kind for e in store.ledger.events(kinds=("daemon.started", "daemon.stopped"))] == [
        "daemon.started",
        "daemon.stopped",
    ]


def test_what_is_killed_goes_on_at_the_next_start_and_nothing_finished_runs_twice(store: LocalStore) -> None:
    fire = want(store, "slow")
    with up(cwd=store.root) as daemon:
        daemon.wait_for("ready")
        until(lambda: "two slow" in left(store.root))
        runner = until(lambda: published(store.root)).children[0].pid
        daemon.kill()
    until(lambda: not alive(runner))
    (seen,) = daemons(store, time.time())
    assert seen.status == "lost"
    # The second step is quick now; the first one must not be done again.
    project(store.root, steps=STEPS.replace("sleep(60)", "sleep(0)"))
    with up(cwd=store.root) as daemon:
        daemon.wait_for("run", "was cut off")
        daemon.wait_for("run", "succeeded")
        assert daemon.stop() == 0
    assert [(r.status, r.fire) for r in runs(store)] == [("interrupted", fire.id), ("succeeded", fire.id)]
    assert store.ledger.verify() == []


def test_a_second_one_is_told_who_is_there(store: LocalStore) -> None:
    with up(cwd=store.root) as daemon:
        daemon.wait_for("ready")
        second = subprocess.run(
            [sys.executable, "-m", "modelyard", "up"], cwd=store.root, capture_output=True, text=True, check=False
        )
        assert second.returncode == 4
        assert f"error[daemon-running]: `modelyard up` runs here already: process {daemon.process.pid}" in second.stderr
        assert daemon.stop() == 0


def test_a_changed_step_is_run_as_it_is_now(store: LocalStore) -> None:
    with up(cwd=store.root) as daemon:
        want(store, "a")
        daemon.wait_for("run")
        project(store.root, steps=STEPS.replace('x + "!"', 'x + "?"'))
        want(store, "b")
        daemon.wait_for("run")
        assert daemon.stop() == 0
    results = [store.ledger.run(r.id) for r in runs(store)]
    assert [r["two"] for r in results if r] == ["a!", "b?"]


def test_several_projects_take_turns(tmp_path: Path) -> None:
    files = [project(tmp_path / name, SPEC.replace("tiny", name)) for name in ("one", "two")]
    with LocalStore(tmp_path / "one") as one, LocalStore(tmp_path / "two") as two:
        for store in (one, two):
            for number in range(3):
                want(store, str(number))
        with up("-f", str(files[0]), "-f", str(files[1]), cwd=tmp_path) as daemon:
            order = [daemon.wait_for("run")["project"] for _ in range(6)]
            assert daemon.stop() == 0
        assert sorted(order[:2]) == sorted(order[2:4]) == sorted(order[4:]) == ["one", "two"]
        for store in (one, two):
            assert [fire.state for fire in store.ledger.fires()] == ["succeeded"] * 3


def test_a_fire_waits_for_its_time_and_for_whoever_has_the_project(store: LocalStore) -> None:
    with up(cwd=store.root) as daemon:
        daemon.wait_for("ready")
        want(store, "later", not_before=time.time() + 2.0)
        with LocalStore(store.root) as other, other.hold("run", who={"run": "run-by-hand"}):
            want(store, "now")
            until(lambda: published(store.root).queued == 2)
            assert runs(store) == []
        daemon.wait_for("run")
        daemon.wait_for("run")
        assert daemon.stop() == 0
    assert [line for line in left(store.root) if line.startswith("one")] == ["one now", "one later"]
    later = store.ledger.run(runs(store)[1].id)
    assert later is not None
    assert later.started >= store.ledger.fires()[0].not_before


def test_a_changed_declaration_counts_at_once_and_a_wrong_one_changes_nothing(store: LocalStore) -> None:
    with up(cwd=store.root) as daemon:
        daemon.wait_for("ready")
        file = project(store.root, SPEC + "schedule: {every: 1h}\n")
        daemon.wait_for("file", "counts from now on")
        until(lambda: [t.name for t in published(store.root).triggers] == ["schedule"])
        file.write_text("project: [\n")
        daemon.wait_for("file", "is not taken over")
        until(lambda: "is not taken over" in published(store.root).problem)
        assert [t.name for t in published(store.root).triggers] == ["schedule"]
        project(store.root)
        daemon.wait_for("file", "counts from now on")
        until(lambda: not published(store.root).problem)
        want(store, "a")
        assert daemon.wait_for("run")["more"]["state"] == "succeeded"
        assert daemon.stop() == 0


HASTY = """
import sys
from pathlib import Path
import modelyard.automation.dispatch as dispatch
from modelyard.automation.daemon import Daemon, Settings
from modelyard.cli.output import json_line

dispatch._MENDING = dispatch._MENDED = 0.5
sys.exit(Daemon(Settings(files=(Path("modelyard.yaml"),), ui=False), json_line).run())
"""


def test_a_fire_that_cannot_run_fails_and_those_behind_it_wait_for_a_better_file(store: LocalStore) -> None:
    with up(cwd=store.root, script=HASTY) as daemon:
        daemon.wait_for("ready")
        (store.root / "modelyard.yaml").write_text("project: tiny\nstps: {}\n")
        daemon.wait_for("file")
        want(store, "a")
        want(store, "b")
        daemon.wait_for("run", "manual failed: ")
        until(lambda: published(store.root).problem)
        assert [f.state for f in store.ledger.fires()] == ["failed", "queued"]
        project(store.root)
        assert daemon.wait_for("run", "for manual")["more"]["state"] == "succeeded"
        assert daemon.stop() == 0
    assert [r.status for r in runs(store)] == ["failed", "succeeded"]
    assert "stps" in runs(store)[0].reason


ELSEWHERE = HASTY.replace(
    "dispatch._MENDING",
    """import modelyard.automation.runner as runner
from modelyard._kit.errors import NotFound

def run_project(*words, real=runner.run_project, **more):
    if Path("wrong").exists():
        raise NotFound("function-not-found", "a file that the declaration names is wrong")
    return real(*words, **more)

runner.run_project = run_project
dispatch._MENDING""",
)


def test_a_mistake_in_another_file_than_the_declaration_is_waited_for_too(store: LocalStore) -> None:
    wrong = store.root / "wrong"
    wrong.touch()
    # A file that was written just now would have the runner begin anew, without the function above.
    os.utime(store.root / "steps.py", (1.0, 1.0))
    want(store, "a")
    want(store, "b")
    with up(cwd=store.root, script=ELSEWHERE) as daemon:
        daemon.wait_for("run", "manual failed: ")
        # The declaration stays as it is.
        wrong.unlink()
        assert daemon.wait_for("run", "for manual")["more"]["state"] == "succeeded"
        until(lambda: not published(store.root).problem)
        assert daemon.stop() == 0
    assert left(store.root) == ["one b", "two b"]


def test_the_board_says_why_nothing_can_be_run(store: LocalStore) -> None:
    with up(cwd=store.root, script=HASTY) as daemon:
        daemon.wait_for("ready")
        spec = load(store.root / "modelyard.yaml", files=False)
        (store.root / "modelyard.yaml").write_text("project: tiny\nstps: {}\n")
        want(store, "a")
        want(store, "b")
        daemon.wait_for("run", "manual failed: ")
        until(lambda: published(store.root).problem)
        assert board(spec, store)[-1].why.startswith("nothing can be run now: ")
        assert daemon.stop() == 0


def test_webhooks_are_received_and_run_once_each(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "a secret that is long enough"
    monkeypatch.setenv("PUSH_SECRET", secret)
    project(store.root, SPEC + "triggers: {push: {webhook: {secret: PUSH_SECRET}}}\n")
    with up("--hooks-port", "0", cwd=store.root) as daemon:
        address = (
            daemon.wait_for("ready", "webhooks are received at")["text"].rpartition(" ")[2].replace("NAME", "push")
        )
        body = b'{"day": 1}'
        headers = sign(secret, id="msg-1", timestamp=int(time.time()), body=body)
        assert [httpx.post(address, content=body, headers=headers).status_code for _ in range(2)] == [202, 200]
        assert daemon.wait_for("run")["more"]["state"] == "succeeded"
        assert httpx.post(address, content=b"{}", headers=headers).status_code == 401
        assert daemon.stop() == 0
    assert left(store.root) == ["one {'day': 1}", "two {'day': 1}"]


def test_a_taken_port_is_said_at_once_and_leaves_nothing_behind(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUSH_SECRET", "a secret that is long enough")
    project(store.root, SPEC + "triggers: {push: {webhook: {secret: PUSH_SECRET}}}\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ["up", "--no-ui", "--hooks-port", str(taken.getsockname()[1])]
        done = subprocess.run(
            [sys.executable, "-m", "modelyard", *words], cwd=store.root, capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert "error[port-taken]" in done.stderr
    assert daemons(store, time.time()) == []


def test_the_process_of_a_step_stays_warm_between_runs_unless_one_failed(store: LocalStore) -> None:
    spec = SPEC.replace('"steps.py:one"', '"steps.py:one", retries: 0, resources: {own_process: true}')
    steps = "import os\n\ndef one(fire):\n    assert fire['payload'] != 'bad'\n    return os.getpid()\n"
    project(store.root, spec, f"{steps}\n\ndef two(x):\n    return x\n")
    # A file that was written just now may change again without another time, and is loaded anew once.
    os.utime(store.root / "steps.py", (1.0, 1.0))
    for name in ("a", "b", "bad", "c"):
        want(store, name)
    with up(cwd=store.root) as daemon:
        states = [daemon.wait_for("run")["more"]["state"] for _ in range(4)]
        assert daemon.stop() == 0
    assert states == ["succeeded", "succeeded", "failed", "succeeded"]
    first, second, _, last = [found for r in runs(store) if (found := store.ledger.run(r.id))]
    assert first["one"] == second["one"] != last["one"]


def test_people_are_told_when_a_run_fails(store: LocalStore) -> None:
    got: queue.Queue[bytes] = queue.Queue()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.put(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    steps = "def one(fire):\n    raise ValueError('no such luck')\n\ndef two(x):\n    return x\n"
    project(store.root, f'{SPEC}alerts: ["http://127.0.0.1:{server.server_port}/hook"]\n', steps)
    try:
        with up(cwd=store.root) as daemon:
            daemon.wait_for("ready")
            want(store, "a")
            assert daemon.wait_for("run")["more"]["state"] == "failed"
            assert b"no such luck" in got.get(timeout=60)
            until(lambda: [child.name for child in published(store.root).children] == ["runner", "alerts"])
            assert daemon.stop() == 0
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("grace", "status"), [("60s", "succeeded"), ("0", "interrupted")])
def test_the_run_under_way_may_end_within_the_grace(store: LocalStore, grace: str, status: str) -> None:
    steps = STEPS.replace("time.sleep(60)", "[time.sleep(0.05) for _ in range(100) if not os.path.exists('go on')]")
    project(store.root, steps=steps)
    want(store, "slow")
    want(store, "not any more")
    with up("--grace", grace, cwd=store.root) as daemon:
        until(lambda: "two slow" in left(store.root))
        daemon.process.terminate()
        daemon.wait_for("stop", "no new run begins")
        if grace != "0":
            (store.root / "go on").touch()
        assert daemon.process.wait(60) == 0
    assert [run.status for run in runs(store)] == [status]
    # What was cut off is queued again; what had not begun has not.
    first = "succeeded" if status == "succeeded" else "queued"
    assert [fire.state for fire in store.ledger.fires()] == [first, "queued"]
