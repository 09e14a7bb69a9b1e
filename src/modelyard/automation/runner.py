"""The warm process that runs fires one after another: `python -m modelyard.automation.runner FD PARENT FILE`.

It talks lines of JSON over a socket: a `Job` comes in, `Said` goes out. It is told which fire to run and finds all else
in the ledger, so that nothing is lost with it. When a file of the project or a library changed since it was loaded, it
turns into a fresh process before it runs anything more.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import msgspec

from modelyard._kit.errors import Busy, ModelyardError, NotFound, Problem, SpecError, Taken
from modelyard._kit.stopping import forget, listen, tell
from modelyard.automation.fresh import Loaded, Mark, mark
from modelyard.automation.tether import tether
from modelyard.automation.windowed import executor_for
from modelyard.pipeline.cancel import CutOff
from modelyard.pipeline.executors import LocalExecutor
from modelyard.pipeline.project import run_project
from modelyard.records import Event, Fire
from modelyard.store import Store, open_store

if TYPE_CHECKING:
    from modelyard.spec import Spec

__all__ = ["Copied", "Job", "Said", "command", "copy", "main"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What the runner is asked.

    Attributes:
        fire: Id of the fire to run.
    """

    fire: str


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What the runner says.

    Attributes:
        what: `ready`: takes a job. `began`: the run is in the ledger. `ended`: it ended, however. `busy`: another run
            holds the project. `taken`: the fire has a run already. `again`: it turns into a fresh process; ask again.
            `refused`: nothing was begun, `error` says why.
        run: Id of the run.
        error: Code, message, place and hint of what went wrong; empty where nothing did.
        file: The declaration is wrong, or a file that it names: no fire can run until one of them changes.
    """

    what: Literal["ready", "began", "ended", "busy", "taken", "again", "refused"]
    run: str = ""
    error: dict[str, str] = {}
    file: bool = False


class Runner:
    """Runs the fires of one project in this process.

    Args:
        file: The declaration.
        link: The socket to the daemon.
        read: The declaration and how its file was before it was read, where that was done already.
    """

    def __init__(self, file: Path, link: socket.socket, read: tuple[Mark, Spec] | None = None) -> None:
        self._file = file
        self._link = link
        self._loaded = Loaded(file.parent)
        self._read = read
        self._store: Store | None = None
        self._workers: LocalExecutor | None = None
        self._under_way = False
        self._told = False
        self._run = ""

    def serve(self) -> int:
        """Take jobs until the socket closes."""
        listen()
        signal.signal(signal.SIGINT, self._interrupted)
        signal.signal(signal.SIGTERM, self._interrupted)
        lines = self._link.makefile("rb")
        decode = msgspec.json.Decoder(Job).decode
        self._warm()
        self._say(Said(what="ready"))
        while line := lines.readline():
            job = decode(line)
            if self._loaded.changed() is not None:
                self._say(Said(what="again"))
                self._become_fresh()
            self._say(self._job(job))
        self._end_workers()
        return 0

    def _warm(self) -> None:
        """Load what every run needs before the first is asked for; what is wrong is said when it is asked for."""
        import modelyard.pipeline.compose  # noqa: F401 - loaded ahead of the first run

        try:
            self._open()
            self._spec()
        except ModelyardError:
            return

    def _job(self, job: Job) -> Said:
        self._run, self._told = "", False
        error: ModelyardError | None = None
        self._under_way = True
        try:
            store = self._open()
            fire = store.ledger.fire(job.fire)
            if fire is None or fire.state != "queued":
                return Said(what="taken")
            self._run_fire(fire, store)
        except Taken:
            return Said(what="taken")
        except ModelyardError as raised:
            if isinstance(raised, Busy) and not self._run:
                return Said(what="busy", error=_plain(raised.problem))
            error = raised
        except KeyboardInterrupt as stop:
            if isinstance(stop, CutOff):
                self._say(Said(what="ended", run=self._run))
                raise SystemExit(0) from None
        except Exception as raised:  # noqa: BLE001 - a mistake of ours ends one run, not the runner
            error = ModelyardError("internal", f"{type(raised).__name__}: {raised}", hint="report it with the log")
        finally:
            self._under_way = False
            forget()
        what: Literal["ended", "refused"] = "ended" if self._run else "refused"
        wrong = isinstance(error, SpecError | NotFound)
        return Said(what=what, run=self._run, error=_plain(error.problem) if error else {}, file=wrong)

    def _run_fire(self, fire: Fire, store: Store) -> None:
        began = time.time()
        windowed = None
        try:
            spec = self._spec()
            windowed = executor_for(spec, store, fire)
            # The workers of one run do the steps of the next.
            self._workers = self._workers or LocalExecutor(store)
            executor = windowed or self._workers
            run_project(spec, store, fire=fire, actor=fire.actor, observe=self._observe, executor=executor)
        except BaseException:
            # A run that was broken off has closed it, and what a failed step left in a worker is not for the next run.
            self._end_workers()
            raise
        finally:
            self._under_way = False
            if windowed is not None:
                windowed.close()
            self._note(began)

    def _end_workers(self) -> None:
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.close()

    def _open(self) -> Store:
        if self._store is None:
            self._store = open_store(self._file.parent, file=self._file.name)
        return self._store

    def _spec(self) -> Spec:
        from modelyard.spec import load

        now = mark(self._file)
        if self._read is None or self._read[0] != now:
            # Whether the data are there is for the steps to say, in a run that is recorded.
            self._read = (now, load(self._file, files=False))
        return self._read[1]

    def _note(self, began: float) -> None:
        spec = self._read[1] if self._read else None
        verbs = [s.function for s in spec.steps.values() if s.function] if spec else []
        if spec and spec.features:
            verbs.append(spec.features)
        self._loaded.note({self._file.parent / verb.rpartition(":")[0] for verb in verbs}, began)

    def _observe(self, event: Event) -> None:
        if event.kind == "run.started":
            self._run = event.run
            self._say(Said(what="began", run=event.run))

    def _interrupted(self, number: int, frame: Any) -> None:
        """End the run under way; a second signal must not disturb how it is recorded."""
        if not self._under_way:
            if number == signal.SIGTERM:
                raise SystemExit(0)
            return
        if not self._told:
            self._told = True
            kind, why = (CutOff, "the daemon was stopped") if number == signal.SIGTERM else (KeyboardInterrupt, "")
            tell(kind, why)

    def _become_fresh(self) -> None:
        self._end_workers()
        if self._store is not None:
            self._store.close()
        sys.stdout.flush()
        sys.stderr.flush()
        os.set_inheritable(self._link.fileno(), True)
        line = command(self._link.fileno(), os.getppid(), self._file)
        os.execv(line[0], line)  # noqa: S606 - our own command line, no shell

    def _say(self, said: Said) -> None:
        self._link.sendall(msgspec.json.encode(said) + b"\n")


def _plain(problem: Problem) -> dict[str, str]:
    return {"code": problem.code, "message": problem.message, "where": problem.where, "hint": problem.hint}


def command(fd: int, parent: int, file: Path) -> list[str]:
    """Return the command line of a runner.

    Args:
        fd: File descriptor of the socket to the daemon, which it inherits.
        parent: Id of the daemon's process.
        file: The declaration.
    """
    # -P: a file called like a library in the folder of the project is not imported.
    return [sys.executable, "-P", "-m", "modelyard.automation.runner", str(fd), str(parent), str(file)]


@dataclass(frozen=True, slots=True)
class Copied:
    """A runner that is a copy of this process.

    Attributes:
        pid: Its process.
        link: The socket to it.
        said: The pipe that it writes to.
    """

    pid: int
    link: socket.socket
    said: IO[bytes]


def copy(spec: Spec, seen: Mark) -> Copied:
    """Start a runner as a copy of this process, which has imported and read already what it needs.

    Only for a process that runs no other thread yet.

    Args:
        spec: The declaration.
        seen: Its file, as it was before it was read.
    """
    ours, theirs = socket.socketpair()
    heard, said = os.pipe()
    # What is not written out yet would be written twice.
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    if pid := os.fork():
        theirs.close()
        os.close(said)
        return Copied(pid, ours, os.fdopen(heard, "rb", buffering=0))
    code = 1
    try:
        # Out of reach of the terminal's Ctrl-C.
        os.setsid()
        ours.close()
        os.close(heard)
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a device
            os.dup2(nothing.fileno(), 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.close(said)
        os.chdir(spec.root)
        code = _serve(theirs, parent, spec.path, (seen, spec))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - said here, for nothing above must see it
        traceback.print_exc()
    finally:
        # What the daemon wants to happen at its own exit must not happen here.
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


def main(arguments: list[str]) -> int:
    """Serve the socket.

    Args:
        arguments: File descriptor of the socket, id of the daemon's process, path of the declaration.
    """
    fd, parent, file = int(arguments[0]), int(arguments[1]), Path(arguments[2])
    with socket.socket(fileno=fd) as link:
        return _serve(link, parent, file)


def _serve(link: socket.socket, parent: int, file: Path, read: tuple[Mark, Spec] | None = None) -> int:
    if not tether(parent):
        return 1
    # A step that prints talks; nothing of it is data.
    os.dup2(2, 1)
    sys.path.insert(0, str(file.parent))
    return Runner(file, link, read).serve()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
