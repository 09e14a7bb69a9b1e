"""A server of an endpoint's model that is only there to be tried: its own port, token and request log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelyard._kit.errors import ServeError
from modelyard._kit.processes import born
from modelyard.automation.process import Process, how, spawn
from modelyard.deploy.local import command, telling
from modelyard.deploy.section import Deploy
from modelyard.records import Deployment
from modelyard.security.keys import keys_folder, own_folder
from modelyard.security.tokens import add_token
from modelyard.store.base import Store

__all__ = ["PREFIX", "Started", "Trial", "place", "remove_left", "served"]

# Of the folders in which trials are; then the process follows, and when it began.
PREFIX = "modelyard-trial-"

_READY = re.compile(r"ready http://127\.0\.0\.1:(\d+) ")
# Seconds until it has to be ready, and until it has to have ended.
_START, _END = 60.0, 40.0


@dataclass(frozen=True, slots=True)
class Trial:
    """A server that answers.

    Attributes:
        port: Its port on the loopback.
        pid: Its (first) process.
        token: What its only caller sends.
    """

    port: int
    pid: int
    token: str


class Started:
    """One process of a server, from its start to its end.

    Args:
        process: It.

    Attributes:
        port: Its port on the loopback, once it answers.
        pid: Its (first) process.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._lines = process.lines()
        self._reading: asyncio.Task[None] | None = None
        self.pid = process.pid
        self.port = 0

    @classmethod
    async def begin(cls, line: Sequence[str], root: Path) -> Started:
        """Start a server and wait until it answers.

        Args:
            line: What to run.
            root: Folder it runs in.

        Raises:
            ServeError: It did not start (`trial-failed`).
        """
        made = cls(spawn(line, cwd=root))
        try:
            await made._wait()
        except BaseException:
            await made.end()
            raise
        return made

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to end, wait for that, kill it where it does not, and return its exit code."""
        self._process.signal(number)
        try:
            async with asyncio.timeout(_END):
                code = await self._process.wait()
        except (TimeoutError, asyncio.CancelledError):
            self._process.signal(signal.SIGKILL)
            code = await self._process.wait()
        if self._reading is not None:
            await self._reading
        await self._lines.aclose()  # type: ignore[attr-defined]
        return code

    async def _wait(self) -> None:
        said: list[str] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START):
                async for one in self._lines:
                    said.append(one)
                    if _READY.match(one):
                        break
        ready = _READY.match(said[-1]) if said else None
        if ready is None:
            why = next((one for one in said if one.startswith("error")), "it said nothing")
            raise ServeError("trial-failed", f"the server did not start: {why}", hint="`modelyard serve` says more")
        self.port = int(ready[1])
        # A pipe that nobody reads would stop who writes to it.
        self._reading = asyncio.create_task(_forget(self._lines))


@asynccontextmanager
async def served(
    store: Store, deployment: Deployment, *, declared: Deploy | None = None, processes: int = 1
) -> AsyncIterator[Trial]:
    """Serve a deployment beside everything that serves it already, and leave nothing of it behind.

    Guards are those that are declared. How often one caller may ask is not, since there is one only; and what it asks
    is made up, so there are no spans of it, no alarm is raised, and nobody is suspected of copying the model.

    Args:
        store: Store that holds the bundle.
        deployment: What to serve; its alias is not followed.
        declared: The section of the file.
        processes: Processes that share the port.

    Raises:
        ServeError: It did not start (`trial-failed`).
    """
    with place(store, declared) as (root, token):
        line = command(telling(store, deployment, declared=declared, apart=root), port=0, processes=processes)
        server = await Started.begin(line, root)
        try:
            yield Trial(server.port, server.pid, token)
        finally:
            code = await server.end()
        if code:
            raise ServeError("trial-failed", f"the server {how(code)} when it was told to end")


@contextmanager
def place(store: Store, declared: Deploy | None) -> Iterator[tuple[Path, str]]:
    """Give a folder that stands for a project while something is tried, and a token for its only caller."""
    role = declared.access.roles[0] if declared is not None and declared.access.roles else "analyst"
    remove_left()
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-{born(os.getpid())}-") as made:
        root = Path(made)
        _trust(store.root, root)
        yield root, add_token(root, "trial", role)


def remove_left() -> None:
    """Remove what trials left behind whose process was killed: each has a token and a request log."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*-*"):
        pid, _, rest = folder.name.removeprefix(PREFIX).partition("-")
        if pid.isdecimal() and born(int(pid)) != rest.rpartition("-")[0] and not folder.is_symlink():
            # Those of other users stay: we may not remove them.
            shutil.rmtree(folder, ignore_errors=True)


async def _forget(lines: AsyncIterator[str]) -> None:
    async for _ in lines:
        pass


def _trust(project: Path, root: Path) -> None:
    """Let a folder open the bundles that a project opens."""
    to = own_folder(root) / "trusted"
    to.mkdir(mode=0o700)
    folder = keys_folder(project)
    for at, path in enumerate(sorted([folder / "signing.pub", *(folder / "trusted").glob("*.pub")])):
        if path.exists():
            shutil.copyfile(path, to / f"{at}.pub")
