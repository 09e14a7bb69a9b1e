"""Run one recorded step again, on the inputs that it had, and say whether the same comes out.

Nothing is recorded and nothing is promoted: what the step makes goes to a scratch store and is gone afterwards.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from modelyard._kit.errors import NotFound, UserError
from modelyard.logs import Capture, listening
from modelyard.pipeline.changes import Change, environment_change, source_change
from modelyard.pipeline.code import find
from modelyard.pipeline.environment import environment
from modelyard.pipeline.execute import Failure, Outcome, Task, about, perform
from modelyard.pipeline.executors import LocalExecutor
from modelyard.pipeline.network import Within
from modelyard.pipeline.recompute import compare
from modelyard.pipeline.restore import Recorded
from modelyard.pipeline.scratch import handed_on, scratch
from modelyard.pipeline.sources import changed_files, read_source, written_source
from modelyard.records import Run, Step, StepRun, read_value
from modelyard.store import Store

__all__ = ["Replayed", "newest_failed", "replay"]

# What ends a step from outside -> what it came up against.
_LIMITS = {"out-of-memory": "memory", "step-timeout": "time", "worker-died": "a process of its own"}
# How many runs are looked through for one that failed.
_BACK = 200


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a replay.

    Attributes:
        run: The run.
        step: The step.
        same: The same failure at the same place, or outputs with the same content.
        recorded: How it ended then: a failure, or none for a success.
        now: How it ended now.
        differences: What differs, one sentence each.
        changes: What changed in code and environment since.
        seconds: Wall time now.
        notes: What a replay cannot make the same, in sentences.
        log: The last lines that it printed or logged.
    """

    run: str
    step: str
    same: bool
    recorded: Failure | None
    now: Failure | None
    differences: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    log: tuple[str, ...] = ()


def newest_failed(store: Store) -> tuple[Run, str]:
    """Return the newest step that failed, and its run.

    Raises:
        NotFound: No step failed in the newest runs (`replay-nothing-failed`).
    """
    for listed in store.ledger.runs(limit=_BACK):
        if listed.status in ("failed", "skipped"):
            run = store.ledger.run(listed.id)
            if run is not None and (step := next((s.name for s in run.steps if s.status == "failed"), "")):
                return run, step
    raise NotFound(
        "replay-nothing-failed",
        f"no step failed in the newest {_BACK} runs",
        hint="name a run and a step: `modelyard replay RUN STEP`",
    )


def replay(
    store: Store,
    run: Run,
    name: str,
    *,
    old_code: bool = False,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    caught: Callable[[BaseException], None] | None = None,
) -> Replayed:
    """Run a step of a run again.

    Args:
        store: Where its inputs are.
        run: The run.
        name: The step.
        old_code: Run the project's code as it was then instead of as it is now.
        functions: Verb -> function, for functions that only the caller knows.
        caught: Called with what the step raised, once it has ended; a debugger begins here.

    Raises:
        NotFound: The run has no such step (`step-not-found`), or something that the step had is gone
            (`replay-input-missing`).
        UserError: The step did not run there (`replay-nothing`), or the world outside is not what it was then
            (`replay-world-moved`).
    """
    past = Recorded(store, run, name)
    step, done = past.step, past.done
    function = (functions or {}).get(step.verb)
    with scratch(store) as overlay, past.code(function, old=old_code) as (root, function):
        began = time.perf_counter()
        failure = None
        outputs: dict[str, Any] = {}
        log: tuple[str, ...] = ()
        apart = False
        notes: tuple[str, ...] = ()
        try:
            with Within(step, loading=True):
                given, function = function, function or find(step.verb, root)
            task = past.task(function, root)
            apart = given is None and caught is None and not old_code and LocalExecutor(store).beside(task)
            if apart:
                outcome = _beside(task, store)
                outputs, failure, log, notes = outcome.outputs, outcome.failure, outcome.log, outcome.notes
            else:
                said = Capture(about(task), None)
                try:
                    with listening():
                        outputs = perform(task, overlay, function, said)
                finally:
                    log = said.tail
        except (Exception, SystemExit) as error:
            if isinstance(error, UserError) and error.code.startswith("replay-"):
                raise
            if caught is not None:
                caught(error)
            failure = Failure.of(step, error)
        seconds = time.perf_counter() - began
        recorded = msgspec.convert(done.error, Failure) if done.error else None
        return Replayed(
            run=run.id,
            step=name,
            same=not (differences := _differences(name, recorded, failure, done.outputs, outputs)),
            recorded=recorded,
            now=failure,
            differences=tuple(differences),
            changes=tuple(_changes(name, done, step, function, overlay, old_code=old_code)),
            seconds=seconds,
            notes=notes if apart else tuple(_notes(recorded)),
            log=log,
        )


def _beside(task: Task, store: Store) -> Outcome:
    """Run a task in a worker, held to its limits as in a run; what it writes is thrown away."""
    with tempfile.TemporaryDirectory(prefix="modelyard-scratch-") as folder:
        executor = LocalExecutor(store, address=handed_on(store, folder))
        try:
            while not executor.room(task):
                executor.wait()
            outcome = executor.submit(task)
            while outcome is None:
                outcome = next((ended for _, ended in executor.wait()), None)
        finally:
            executor.close()
        if outcome.failure is not None and outcome.failure.code == "machine-too-small":
            hint = "ask for less under `resources`, replay on a larger machine, or use `--pdb`: it holds to no limit"
            return msgspec.structs.replace(outcome, failure=msgspec.structs.replace(outcome.failure, hint=hint))
        return outcome


def _differences(
    step: str, recorded: Failure | None, now: Failure | None, outputs: dict[str, Any], again: dict[str, Any]
) -> list[str]:
    if recorded is not None and now is None:
        return [f"it failed then ({recorded.code}: {recorded.message}) and succeeds now"]
    if recorded is None and now is not None:
        return [f"it succeeded then and fails now ({now.code}: {now.message})"]
    if recorded is not None and now is not None:
        found = []
        if recorded.code != now.code:
            found.append(f"the error was {recorded.code}, now it is {now.code}: {now.message}")
        elif _raised(recorded) != _raised(now):
            found.append(f"it was: {recorded.message}; now: {now.message}")
        elif _place(recorded) != _place(now):
            found.append(f"it came from {recorded.where}, now from {now.where}")
        return found
    found = []
    for name, value in again.items():
        if name in outputs:
            found += [d.what for d in compare(step, read_value(outputs[name]), read_value(value))]
        else:
            found.append(f"output `{name}` is new")
    return found + [f"output `{name}` is gone" for name in outputs if name not in again]


def _raised(failure: Failure) -> str:
    """Return which error it was, without its values: they may hold an address or a time."""
    if failure.code in _LIMITS:
        # Its words depend on who noticed it first, and on what was held at that moment.
        return failure.code
    return failure.message.partition(":")[0]


def _place(failure: Failure) -> str:
    """Return the file it came from; lines move when code is edited, folders when a project is copied."""
    return Path(failure.where.rpartition(":")[0] or failure.where).name


def _changes(
    name: str, done: StepRun, step: Step, function: Callable[..., Any] | None, overlay: Store, *, old_code: bool
) -> Iterator[Change]:
    if not old_code and (then := read_source(done.source, overlay)) is not None:
        now = read_source(written_source(step, function, overlay), overlay)
        if now is not None and changed_files(then, now, overlay):
            yield source_change(name, then, now, overlay)
    recorded = done.made_of.get("environment", "")
    if recorded and recorded != environment().digest:
        yield environment_change(name, recorded, environment(), overlay)


def _notes(recorded: Failure | None) -> Iterator[str]:
    if recorded is None:
        return
    if (limit := _LIMITS.get(recorded.code)) is not None:
        yield f"it ran in this process, without the limits of a run: it may go on where {limit} ended it then"
