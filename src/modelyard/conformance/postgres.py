"""A Postgres server of its own for tests and benchmarks: in a temporary folder, on a free port of this machine.

    with PostgresServer() as server:
        store = PostgresStore(project, f"{server.address}?schema=mine")

It needs the programs `initdb` and `postgres` (Debian's package `postgresql`) and no rights: started by root, it runs
as `nobody`, since Postgres refuses root.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

__all__ = ["PASSWORD", "PostgresServer", "programs"]

# Role `keyed` of the server has to give it; everybody else on this machine is trusted.
PASSWORD = "correct-horse"  # noqa: S105 - of a server that lives for a test
_RULES = (
    "local all keyed scram-sha-256\nhost all keyed all scram-sha-256\nlocal all all trust\nhost all all all trust\n"
)
_PATIENCE = 60.0
_PR_SET_PDEATHSIG = 1


def programs() -> Path | None:
    """Return the folder with `initdb` and `postgres`; none where they are not installed."""
    folders = [Path(found).resolve().parent for name in ("initdb",) if (found := shutil.which(name))]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))[::-1]
    return next((f for f in folders if (f / "initdb").is_file() and (f / "postgres").is_file()), None)


class PostgresServer:
    """One server, gone with the context; it ends with this process, even if that is killed.

    Args:
        settings: Settings of the server; by default it does not wait for the disk, as no test cuts the power.

    Attributes:
        address: `postgresql://modelyard@127.0.0.1:PORT/postgres`.
        socket_address: The same over its Unix socket.
        port: Its port.

    Raises:
        FileNotFoundError: Postgres is not installed.
    """

    def __init__(self, *, settings: Mapping[str, str] | None = None) -> None:
        found = programs()
        if found is None:
            raise FileNotFoundError("no `initdb` and `postgres` here: apt-get install postgresql")
        self._programs = found
        self._settings = {"fsync": "off", **(settings or {})}
        self._folder = Path(tempfile.mkdtemp(prefix="modelyard-pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        self.address = f"postgresql://modelyard@127.0.0.1:{self.port}/postgres"
        self.socket_address = f"postgresql://modelyard@/postgres?host={self._folder}&port={self.port}"

    def __enter__(self) -> Self:
        try:
            self._make()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [str(self._programs / "postgres"), "-D", str(self._data), "-k", str(self._folder)]
        settings = {"listen_addresses": "127.0.0.1", "port": str(self.port), "shared_buffers": "16MB", **self._settings}
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=_end_with_us, **self._whose())
        self._until_ready()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT cuts every connection and writes all down, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_PATIENCE)
            self._process = None

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it and start it again, with the same data on the same port."""
        self.stop(how)
        self.start()

    def close(self) -> None:
        """Stop it and delete its data."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _whose(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        nobody = pwd.getpwnam("nobody")
        return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def _make(self) -> None:
        if whose := self._whose():
            os.chown(self._folder, whose["user"], whose["group"])
        command = [str(self._programs / "initdb"), "-D", str(self._data), "-U", "modelyard", "-A", "trust"]
        command += ["-E", "UTF8", "--locale=C", "--no-sync"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self._folder, check=False, **self._whose())
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr}")
        (self._data / "pg_hba.conf").write_text(_RULES)
        # Made without a connection, so that the password is no argument of any process.
        role = f"CREATE ROLE keyed LOGIN PASSWORD '{PASSWORD}'; GRANT CREATE ON DATABASE postgres TO keyed;"
        single = [str(self._programs / "postgres"), "--single", "-D", str(self._data), "postgres"]
        subprocess.run(
            single, input=role, capture_output=True, text=True, cwd=self._folder, check=True, **self._whose()
        )

    def _until_ready(self) -> None:
        until = time.monotonic() + _PATIENCE
        process = self._process
        assert process is not None  # noqa: S101 - it was started
        pid_file = self._data / "postmaster.pid"
        while time.monotonic() < until:
            # The eighth line says how far it is.
            if pid_file.is_file() and len(lines := pid_file.read_text().split("\n")) > 7 and "ready" in lines[7]:
                return
            if process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"the server did not start: {(self._folder / 'log').read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_us() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
