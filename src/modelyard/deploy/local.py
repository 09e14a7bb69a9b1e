"""Serve on this machine: a process of its own for each endpoint, started by its command line and never imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard._kit.errors import ModelyardError, ServeError, Tampered
from modelyard.records import Deployment
from modelyard.store.base import Store

__all__ = ["LocalServer", "LocalTarget", "command"]

_READY = re.compile(r"^ready (?P<url>http://\S+) ", re.MULTILINE)
_ERROR = re.compile(r"^error\[(?P<code>[a-z0-9-]+)\] (?P<message>.*)$", re.MULTILINE)


def command(
    store: Store,
    deployment: Deployment,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    roles: Sequence[str] = (),
    per_minute: int = 0,
) -> list[str]:
    """Return the command line that serves a deployment.

    Raises:
        NotFound: The store does not hold the bundle.
    """
    folder = store.blobs.folder(deployment.model.address)
    # -P: a file called like a library in the folder of the project is not imported.
    line = [sys.executable, "-P", "-m", "modelyard.serving"]
    line += ["--bundle", str(folder), "--project", str(store.root), "--endpoint", deployment.endpoint]
    line += ["--host", host, "--port", str(port)]
    for role in roles:
        line += ["--role", role]
    if per_minute:
        line += ["--per-minute", str(per_minute)]
    return line


@dataclass
class LocalServer:
    """A server process that answers.

    Attributes:
        url: Where.
        deployment: What.
        process: The process.
        log: File with what it says.
    """

    url: str
    deployment: Deployment
    process: subprocess.Popen[bytes]
    log: Path

    def alive(self) -> bool:
        """Say whether it still runs."""
        return self.process.poll() is None

    def stop(self, *, seconds: float = 30.0) -> None:
        """Answer what is under way, log it, and end.

        Raises:
            ServeError: It did not end in time and was killed, or could not log everything (`server-stop`).
        """
        self.process.terminate()
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if code:
            raise ServeError(
                "server-stop",
                f"the server of `{self.deployment.endpoint}` ended with {code}",
                where=str(self.log),
                hint="its last words are in the log",
            )


class LocalTarget:
    """This machine.

    Args:
        store: Where bundles are; the server's words go to `.modelyard/serving/` beside them.
        host: Address to listen on.
        port: Port; 0 takes a free one.
        seconds: Time in which a server has to answer.
    """

    def __init__(self, store: Store, *, host: str = "127.0.0.1", port: int = 0, seconds: float = 30.0) -> None:
        self._store = store
        self._host = host
        self._port = port
        self._seconds = seconds

    def start(self, deployment: Deployment) -> LocalServer:
        """Start a server and return once it answers.

        Raises:
            ServeError: It cannot start, with its own code (`port-taken`), or says nothing in time
                (`server-not-ready`).
            Tampered: Its bundle is not what was signed.
        """
        line = command(self._store, deployment, host=self._host, port=self._port)
        log = self._store.root / ".modelyard" / "serving" / f"{deployment.endpoint}.log"
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as words:
            process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=words, stderr=words)
        until = time.monotonic() + self._seconds
        while time.monotonic() < until:
            ended = process.poll() is not None
            said = log.read_text(errors="replace")
            if ready := _READY.search(said):
                return LocalServer(ready["url"], deployment, process, log)
            if ended:
                raise _why(said, log)
            time.sleep(0.02)
        process.kill()
        process.wait()
        raise ServeError(
            "server-not-ready", f"the server did not answer in {self._seconds:g} s", where=str(log), hint="see its log"
        )


def _why(said: str, log: Path) -> ModelyardError:
    found = _ERROR.search(said)
    if found is None:
        return ServeError("server-not-ready", "the server ended before it answered", where=str(log), hint="see its log")
    kind = Tampered if found["code"].startswith("bundle-") else ServeError
    return kind(found["code"], found["message"], where=str(log), hint="the server's log says more")
