"""Run one recorded step again, on the inputs that it had, and say whether the same comes out.

Nothing is recorded and nothing is promoted: what the step makes goes to a scratch store and is gone afterwards.
"""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from modelyard._kit.digest import digest_of
from modelyard._kit.errors import NotFound, Tampered, UserError
from modelyard.logs import Capture, listening
from modelyard.pipeline.capsule import Capsule, opened
from modelyard.pipeline.changes import Change, environment_change, source_change
from modelyard.pipeline.code import code_version, find
from modelyard.pipeline.environment import environment
from modelyard.pipeline.execute import Failure, Task, about, perform, wants
from modelyard.pipeline.probes import probe
from modelyard.pipeline.recompute import compare, plan_of
from modelyard.pipeline.scratch import scratch
from modelyard.pipeline.sources import Source, named_code, read_source, written_source
from modelyard.records import ModelVersion, Run, Step, StepRun, TableVersion, read_value
from modelyard.store import Store

__all__ = ["Replayed", "newest_failed", "replay", "user_frame"]

# How many runs are looked through for one that failed.
_BACK = 200
# What is not the user's code: Modelyard and the standard library.
_OTHERS = (Path(__file__).resolve().parents[1], Path(traceback.__file__).resolve().parent)


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
    done = _done(run, name)
    capsule = _capsule(done, store)
    step = capsule.task.step if capsule else _declared(run, name, store)
    function = (functions or {}).get(step.verb)
    with scratch(store) as overlay, _code(store, done, step, function, old=old_code) as (root, function):
        began = time.perf_counter()
        failure = None
        outputs: dict[str, Any] = {}
        task = None
        said = None
        try:
            function = function or find(step.verb, root)
            task = _task(run, done, capsule, step, function, store, root)
            _look_for_inputs(task, store)
            said = Capture(about(task), None)
            with listening():
                outputs = perform(task, overlay, function, said)
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
            notes=tuple(_notes(recorded)),
            log=said.tail if said else (),
        )


def user_frame(error: BaseException) -> tuple[TracebackType, int] | None:
    """Return the trace in which the user's own code stands deepest, and how many frames stand below it.

    What an error was raised from is looked at first. None if no code of the user's is in it.
    """
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    for one in reversed(chain):
        frames = [*traceback.walk_tb(one.__traceback__)]
        own = [i for i, (frame, _) in enumerate(frames) if _is_own(frame.f_code.co_filename)]
        if own and one.__traceback__ is not None:
            return one.__traceback__, len(frames) - 1 - own[-1]
    return None


def _is_own(file: str) -> bool:
    path = Path(file)
    library = {"site-packages", "dist-packages"} & {*path.parts}
    return path.is_file() and not library and not any(path.is_relative_to(folder) for folder in _OTHERS)


def _done(run: Run, name: str) -> StepRun:
    found = next((step for step in run.steps if step.name == name), None)
    if found is None:
        raise NotFound.of("step", name, [step.name for step in run.steps])
    if found.status not in ("succeeded", "cached", "failed"):
        why = f": {found.reason}" if found.reason else ""
        raise UserError(
            "replay-nothing",
            f"step `{name}` is {found.status} in {run.id}{why}, so there is nothing to compare with",
            hint="name a run in which it ended; `modelyard runs` lists them",
        )
    return found


def _declared(run: Run, name: str, store: Store) -> Step:
    try:
        return plan_of(run, store).step(name)
    except (NotFound, Tampered, msgspec.MsgspecError, KeyError) as error:
        raise _gone(f"the plan of {run.id}") from error


def _capsule(done: StepRun, store: Store) -> Capsule | None:
    if not done.capsule:
        return None
    try:
        return opened(store, done.capsule)
    except (NotFound, Tampered, msgspec.MsgspecError) as error:
        raise _gone(f"the capsule of step `{done.name}`, which holds its arguments,") from error


def _gone(what: str) -> NotFound:
    return NotFound(
        "replay-input-missing",
        f"{what} is not in the store any more",
        hint="run again: what made it makes it again; or replay the step of a newer run",
    )


def _task(
    run: Run,
    done: StepRun,
    capsule: Capsule | None,
    step: Step,
    function: Callable[..., Any],
    store: Store,
    root: Path,
) -> Task:
    """Return the task as it was; without a run, so that nothing of it reaches the logs of the project."""
    code = code_version(function)
    if capsule is not None:
        task = msgspec.structs.replace(capsule.task, run="", code=code)
        return msgspec.structs.replace(task, state=_here(task.state, root))
    inputs = {parameter: _input(ref, run) for parameter, ref in step.inputs.items()}
    return Task(
        step=step,
        key=f"replay:{step.name}",
        code=code,
        inputs=inputs,
        state=_state(done, step, inputs, store, root),
        previous=_previous(run, done, store) if wants(function, "previous") else None,
        fire=_fire(run, done, store) if wants(function, "fire") else None,
        trace=run.trace,
    )


def _input(ref: str | list[str], run: Run) -> Any:
    if isinstance(ref, list):
        return [_input(one, run) for one in ref]
    try:
        return run[ref]
    except (KeyError, StopIteration) as error:
        raise _gone(f"the output `{ref}` of {run.id}") from error


def _here(state: Any, root: Path) -> Any:
    """Return what a probe saw with the folder of the project where it is now."""
    if isinstance(state, dict) and isinstance(unkeyed := state.get("unkeyed"), dict) and "root" in unkeyed:
        return {**state, "unkeyed": {**unkeyed, "root": str(root)}}
    return state


def _state(done: StepRun, step: Step, inputs: dict[str, Any], store: Store, root: Path) -> Any:
    """Return what the probe saw then: recorded, or seen again if the world has not moved since."""
    if not step.probe:
        return None
    if done.state is not None:
        return _here(done.state, root)
    if named_code(step) and root != store.root:
        return {"unkeyed": {"root": str(root)}}  # the code as it was: what stands in the project now does not count
    state, keyed = probe(step, inputs, store)
    same = digest_of(keyed) == done.made_of.get("state")
    if done.made_of and not same and not named_code(step):
        raise UserError(
            "replay-world-moved",
            f"what step `{step.name}` reads outside ({step.about or step.probe}) is not what it was then",
            hint="put the files back as they were, or replay a step after it: what that one read is stored",
        )
    return _here(state, root)


def _previous(run: Run, done: StepRun, store: Store) -> Any:
    """Return the first output of the step before it was done, as the runner gave it."""
    found = None
    for event in store.ledger.events(kinds=("step.finished", "step.cached")):
        if event.step != done.name:
            continue
        if event.payload["key"] == done.key or event.run == run.id:
            return found
        found = next(iter(event.payload["outputs"].values()), None)
    return found


def _fire(run: Run, done: StepRun, store: Store) -> dict[str, Any] | None:
    if "fire" not in done.made_of:
        return None
    fire = store.ledger.fire(run.fire)
    if fire is None:
        raise _gone(f"fire `{run.fire}`")
    return fire.given


def _look_for_inputs(task: Task, store: Store) -> None:
    """Say which inputs are gone before anything is run.

    Raises:
        NotFound: One of them is (`replay-input-missing`).
    """
    for parameter, raw in task.inputs.items():
        values = read_value(raw)
        for value in values if isinstance(values, list) else [values]:
            named = f"input `{parameter}` of step `{task.step.name}`"
            try:
                if isinstance(value, TableVersion):
                    store.tables.read(value)
                elif isinstance(value, ModelVersion):
                    store.blobs.folder(value.address)
            except (NotFound, Tampered) as error:
                raise _gone(f"{named} ({_called(value)}: {error.problem.message})") from error


def _called(value: TableVersion | ModelVersion) -> str:
    kind = "table" if isinstance(value, TableVersion) else "model"
    return f"{kind} {value.address or value.name}"


@contextmanager
def _code(
    store: Store, done: StepRun, step: Step, function: Callable[..., Any] | None, *, old: bool
) -> Iterator[tuple[Path, Callable[..., Any] | None]]:
    """Give the folder that the project's code is taken from, and the function where it has to be found in a file."""
    source = read_source(done.source, store)
    path = list(sys.path)
    try:
        if old:
            if source is None:
                raise UserError(
                    "replay-no-source",
                    f"step `{step.name}` has no code of the project, or it was not kept",
                    hint="leave out --old-code",
                )
            with tempfile.TemporaryDirectory(prefix="modelyard-code-") as folder:
                root = Path(folder).resolve()
                _write(source, root, store)
                sys.path.insert(0, str(root))
                named = step.verb.startswith("modelyard.")
                yield root, None if named else find(f"{source.main}:{source.function}", root)
        else:
            sys.path.insert(0, str(store.root))
            yield store.root, function or _scripted(step, source, store.root)
    finally:
        sys.path[:] = path


def _write(source: Source, root: Path, store: Store) -> None:
    for name, digest in source.files.items():
        target = (root / name).resolve()
        if not target.is_relative_to(root):
            continue  # the record was made by us; a name that leaves the folder was not
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.write_bytes(store.blobs.get(digest))
        except (NotFound, Tampered) as error:
            raise _gone(f"the file `{name}` as it was") from error


def _scripted(step: Step, source: Source | None, root: Path) -> Callable[..., Any] | None:
    """Return a function that stands in a script; none for every other, which is found by its verb.

    Raises:
        UserError: To load the script would run it (`replay-script`).
    """
    if not step.verb.startswith("__main__:"):
        return None
    file = source.main if source else ""
    path = root / file
    if not file or not path.is_file() or "__main__" not in path.read_text("utf-8", "replace"):
        raise UserError(
            "replay-script",
            f"step `{step.name}` calls `{step.verb.partition(':')[2]}` of a script, which to load would be to run",
            where=file,
            hint='put what runs the flow under `if __name__ == "__main__":`, or the function into a module of its own',
        )
    return find(f"{file}:{step.verb.partition(':')[2]}", root)


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
    return failure.message.partition(":")[0]


def _place(failure: Failure) -> str:
    """Return the file it came from; lines move when code is edited, folders when a project is copied."""
    return Path(failure.where.rpartition(":")[0] or failure.where).name


def _changes(
    name: str, done: StepRun, step: Step, function: Callable[..., Any] | None, overlay: Store, *, old_code: bool
) -> Iterator[Change]:
    if not old_code and (then := read_source(done.source, overlay)) is not None:
        now = read_source(written_source(step, function, overlay), overlay)
        if now is not None and now.files != then.files:
            yield source_change(name, then, now, overlay)
    recorded = done.made_of.get("environment", "")
    if recorded and recorded != environment().digest:
        yield environment_change(name, recorded, environment(), overlay)


def _notes(recorded: Failure | None) -> Iterator[str]:
    if recorded is None:
        return
    limits = {"out-of-memory": "memory", "step-timeout": "time", "worker-died": "a process of its own"}
    if (limit := limits.get(recorded.code)) is not None:
        yield f"a replay runs in this process, without the limits of a run: it may go on where {limit} ended it then"
