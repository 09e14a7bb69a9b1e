"""While the daemon is up a sink gets every line, also what it missed while it was down."""

from __future__ import annotations

from pathlib import Path

from tests.automation.daemons import SPEC, STEPS, project, until, up, want
from tests.logs.test_ship import Server

from modelyard.store import LocalStore


def test_a_sink_gets_what_it_missed_while_it_was_down(tmp_path: Path) -> None:
    server = Server()
    server.down()
    steps = STEPS.replace("def one(fire):\n", 'def one(fire):\n    print("hello of", fire["payload"])\n')
    project(tmp_path, f"{SPEC}logs: {{to: '{server.address}'}}\n", steps)
    with LocalStore(tmp_path) as store, up(cwd=tmp_path) as daemon:
        # A sink gets what comes from the moment on that it is known.
        until(lambda: list((tmp_path / ".modelyard" / "logs" / "sinks").glob("*.json")))
        fire = want(store, "first")
        run = until(lambda: (found := store.ledger.fire(fire.id)) and found.state == "succeeded" and found.run)
        assert not server.bodies
        server.up()
        try:
            until(lambda: [line for line in server.lines if line.get("event") == "run.finished"])
        finally:
            server.down()
        lines = server.lines
        assert daemon.process.poll() is None
    assert [line["message"] for line in lines if line["logger"] == "stdout"] == ["hello of first"]
    # From the trigger on, all of it under one trace.
    of_run = [line for line in lines if line.get("trace") == fire.trace]
    assert {line["event"] for line in of_run if "event" in line} >= {"fire.queued", "run.started", "step.finished"}
    assert {line["run"] for line in of_run if line.get("run")} == {run}
    assert len({line["id"] for line in lines}) == len(lines)
