"""The endpoint that a daemon keeps: it has what the file says of it, and follows the champion by itself."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import httpx
import pytest
from tests.automation.daemons import Up, project, until, up
from tests.serving.versions import ENDPOINT, Yard, times

SPEC = f"""\
project: tiny
data: {{t: {{from: t.csv}}}}
model: {{target: y}}
deploy:
  endpoint: {ENDPOINT}
"""
FLAGS = ("--port", "0")


def served(daemon: Up) -> str:
    """Wait until the endpoint answers, and return where."""
    found = re.search(r"http://\S+", daemon.wait_for("said", "ready http://")["text"])
    assert found
    return found[0]


def pid(daemon: Up) -> int:
    return int([n for n in daemon.said if n["what"] == "child" and "serve runs as" in n["text"]][-1]["more"]["pid"])


def test_champion_that_moves_is_followed_without_a_new_process(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,y\n1,1\n2,2\n")
    spec = SPEC + "  access: {roles: [operator]}\n"
    file = project(tmp_path, spec)
    yard = Yard(tmp_path)
    try:
        first, second = yard.keep(times(1.0)), yard.keep(times(10.0))
        yard.point(first)
        with up(*FLAGS, cwd=tmp_path) as daemon:
            url = served(daemon)
            headers = {"authorization": f"Bearer {yard.tokens['operator']}"}
            with httpx.Client(base_url=url, headers=headers, timeout=20) as client:
                assert client.post("/predict", json={"a": 2.0}).json()["predictions"] == [{"value": 2.0}]
                # What the file says of access holds here, too.
                analyst = {"authorization": f"Bearer {yard.tokens['analyst']}"}
                assert client.post("/predict", json={"a": 2.0}, headers=analyst).status_code == 403
                yard.point(second)
                until(lambda: client.post("/predict", json={"a": 2.0}).json()["predictions"] == [{"value": 20.0}])
                # The daemon has heard of the champion, and of a change elsewhere in the file.
                file.write_text(spec + "# seen\n")
                daemon.wait_for("file", "counts from now on")
            daemon.process.send_signal(signal.SIGTERM)
            rest, _ = daemon.process.communicate(timeout=60)
            said = [*daemon.said, *map(json.loads, rest.splitlines())]
            assert len([note for note in said if "serve runs as" in note["text"]]) == 1
    finally:
        yard.store.close()


@pytest.mark.slow
def test_trial_that_the_file_declares_is_held(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,y\n1,1\n2,2\n")
    file = project(tmp_path, SPEC)
    yard = Yard(tmp_path)
    try:
        first, second = yard.keep(times(1.0)), yard.keep(times(1.001))
        yard.point(first)
        with up(*FLAGS, cwd=tmp_path) as daemon:
            served(daemon)
            # A change of its own section has the endpoint begin anew.
            before = pid(daemon)
            file.write_text(SPEC + "  rollout: {canary: 50%}\n")
            daemon.wait_for("file", "counts from now on")
            url = served(daemon)
            assert pid(daemon) != before
            yard.point(second, "challenger")
            headers = {"authorization": f"Bearer {yard.tokens['operator']}"}
            with httpx.Client(base_url=url, headers=headers, timeout=20) as client:
                until(lambda: "rollout" in client.get("/stats").json())
            assert daemon.stop() == 0
    finally:
        yard.store.close()
