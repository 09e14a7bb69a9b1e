"""People are told of a backfill as of a run, and its lines go where the logs go."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.automation.daemons import project

SPEC = """\
project: tiny
retries: 0
logs: {{to: ["{address}/logs"]}}
alerts: [{{to: "{address}/alerts", private: true}}]
steps:
  one: {{function: "steps.py:one", partition: {{every: daily, start: "2026-01-01"}}}}
"""
STEPS = """\
def one(partition):
    print("a line of", partition)
    raise ValueError("a bad day")
"""


def test_a_backfill_that_fails_is_told_and_its_lines_are_shipped(tmp_path: Path) -> None:
    got: dict[str, queue.Queue[bytes]] = {"/alerts": queue.Queue(), "/logs": queue.Queue()}

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got[self.path].put(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        project(tmp_path, SPEC.format(address=f"http://127.0.0.1:{server.server_port}"), STEPS)
        words = ["backfill", "one", "--from", "2026-01-01", "--to", "2026-01-02"]
        done = subprocess.run(
            [sys.executable, "-m", "modelyard", *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1, done.stderr
        assert b"a bad day" in got["/alerts"].get(timeout=60)
        shipped = b""
        while b"a line of" not in shipped:  # they go in batches, the first of which may have the run's start alone
            shipped += got["/logs"].get(timeout=60)
    finally:
        server.shutdown()
        server.server_close()
