"""Execute one step: stored values in, a call of a plain function, stored values out.

The same few lines serve the runner's own process, a worker beside it and a machine far away, because a `Task`
and an `Outcome` are plain JSON.
"""

from __future__ import annotations

import inspect
import time
import traceback
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from modelyard._kit.errors import Denied, ModelyardError, Problem, Refused, Stale, UserError
from modelyard.logs import About, Capture, logs_of
from modelyard.pipeline.accounting import Meter
from modelyard.pipeline.code import find
from modelyard.pipeline.files import FileFunction
from modelyard.pipeline.lasting import lasting
from modelyard.pipeline.network import Within, hint_for
from modelyard.pipeline.there import holds
from modelyard.records import (
    CheckResult,
    Evidence,
    File,
    FileDraft,
    Gone,
    ModelVersion,
    Step,
    TableVersion,
    Usage,
    Value,
    plain,
    read_value,
)
from modelyard.security.redact import redact
from modelyard.store import Appended, Store

__all__ = ["Failure", "Outcome", "Task", "about", "execute", "perform", "wants"]

# Characters of a failure that are recorded.
_LONG_MESSAGE, _LONG_TRACE = 4_000, 40_000


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One step with everything it needs, as plain JSON.

    Attributes:
        step: The step.
        key: Its output key.
        code: Digest of its code, for the evidence it makes.
        inputs: Parameter -> plain JSON of the value (or of a list of values).
        state: What the probe saw.
        previous: The newest recorded first output of a step of this name, for functions that ask for `previous`.
        fire: What the run was fired by (`fired.given`), for functions that ask for `fire`.
        run: Id of the run.
        trace: Id that ties the run to its fire, log lines and requests.
        attempt: 1 for the first.
        fire_id: Id of the fire that asked for the run.
    """

    step: Step
    key: str
    code: str
    inputs: dict[str, Any] = {}
    state: Any = None
    previous: Any = None
    fire: dict[str, Any] | None = None
    run: str = ""
    trace: str = ""
    attempt: int = 1
    fire_id: str = ""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An error of a step as plain data.

    Attributes:
        code: Code of the error.
        message: One sentence.
        where: Place.
        hint: Next step.
        exit_code: Exit code of the command that ran the step.
        lasting: Another attempt would fail as well.
        stale: The data are too old: nothing after the step runs, and nothing is wrong.
        trace: The trace, for `--debug` and the pages.
    """

    code: str
    message: str
    where: str = ""
    hint: str = ""
    exit_code: int = 3
    lasting: bool = False
    stale: bool = False
    trace: str = ""

    @classmethod
    def of(cls, step: Step, error: BaseException) -> Failure:
        """Turn an error that left a step's function into plain data."""
        # What a step says of its failure is recorded for good: no secret in it.
        trace = _cut(redact("".join(traceback.format_exception(error))), _LONG_TRACE)
        if isinstance(error, ModelyardError):
            p: Problem = error.problem
            message = p.message if len(error.problems) == 1 else "; ".join(q.message for q in error.problems)
            return cls(
                code=p.code,
                message=_cut(redact(message), _LONG_MESSAGE),
                where=redact(p.where),
                hint=redact("; ".join(filter(None, [p.hint, hint_for(step, error)]))),
                exit_code=error.exit_code,
                lasting=isinstance(error, UserError | Refused | Denied),
                stale=isinstance(error, Stale),
                trace=trace,
            )
        last = traceback.extract_tb(error.__traceback__)[-1:]
        where = f"{last[0].filename}:{last[0].lineno}" if last else ""
        if isinstance(error, MemoryError):
            return cls(
                code="out-of-memory",
                message=redact(f"step `{step.name}` got no more memory{f': {error}' if str(error) else ''}"),
                where=where,
                hint="ask for more memory, work in smaller parts, or take a larger machine",
                trace=trace,
            )
        return cls(
            code="step-failed",
            message=_cut(redact(f"step `{step.name}` raised {type(error).__name__}: {error}"), _LONG_MESSAGE),
            where=where,
            hint=hint_for(step, error) or "run again with --debug for the trace; finished steps are kept",
            lasting=lasting(error),
            trace=trace,
        )


def _cut(text: str, most: int) -> str:
    """Leave out the middle of a text that is too long to be recorded: some errors print all their data."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}\n… ({len(text) - most} characters) …\n{text[-half:]}"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a task: outputs as plain JSON, or a failure.

    Attributes:
        outputs: Output name -> plain JSON.
        seconds: Wall time.
        cpu_seconds: CPU time of the process that ran it.
        usage: What it used of the machine.
        log: The last lines that it logged or printed, for the capsule of a failure.
        notes: What was done otherwise than asked, in sentences: a CPU instead of a GPU, fewer cores.
        failure: Why there are no outputs.
    """

    outputs: dict[str, Any] = {}
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    usage: Usage = Usage()
    log: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    failure: Failure | None = None


def execute(task: Task, store: Store, function: Callable[..., Any] | None = None) -> Outcome:
    """Run a task and store what it returns; errors come back as a `Failure`, interrupts are raised.

    Args:
        task: What to run.
        store: Where tables and models are read and written.
        function: The function itself where it is at hand; found by the step's verb otherwise.
    """
    began, meter = time.perf_counter(), Meter()
    outputs: dict[str, Any] = {}
    failure = None
    said = Capture(about(task), logs_of(store.root) if task.run else None)
    try:
        outputs = perform(task, store, function, said)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - any error of a user's function becomes a recorded failure
        failure = Failure.of(task.step, error)
    seconds = time.perf_counter() - began
    usage = meter.usage(seconds)
    return Outcome(
        outputs=outputs, seconds=seconds, cpu_seconds=usage.cpu_seconds, usage=usage, log=said.tail, failure=failure
    )


def perform(
    task: Task, store: Store, function: Callable[..., Any] | None = None, said: Capture | None = None
) -> dict[str, Any]:
    """Run a task, store what it returns and return that as plain JSON; whatever is raised is raised.

    Args:
        task: What to run.
        store: Where tables and models are read and written.
        function: The function itself where it is at hand; found by the step's verb otherwise.
        said: Takes what the function prints and logs.

    Raises:
        NetworkOff: It wanted the network and has none (`step-network`).
    """
    with Within(task.step):
        return _performed(task, store, function, said or Capture(about(task), None))


def _performed(task: Task, store: Store, function: Callable[..., Any] | None, said: Capture) -> dict[str, Any]:
    function = function or _as_prepared(task, store)
    arguments = dict(task.step.params)
    for name, raw in task.inputs.items():
        value = read_value(raw)
        if name in _asking_for(function, "TableVersion", "ModelVersion"):
            arguments[name] = value
        elif name in _asking_for(function, "Gone") and isinstance(value, ModelVersion) and not holds(value, store):
            arguments[name] = Gone(model=value)
        else:
            arguments[name] = _resolve(value, store)
    if task.step.probe:
        arguments["state"] = task.state
    if wants(function, "previous"):
        arguments["previous"] = read_value(task.previous)
    if wants(function, "fire"):
        arguments["fire"] = task.fire
    # What a step prints is talk: stdout may be somebody's stream of data.
    with said:
        # A lazy frame runs the user's functions only while it is stored.
        return _materialise(task, function(**arguments), store)


def _as_prepared(task: Task, store: Store) -> Callable[..., Any]:
    """Return the function of a step, in the version that its key was made of: for that the result will be taken."""
    function = find(task.step.verb, store.root)
    if isinstance(function, FileFunction) and function.version != task.code:
        raise UserError(
            "step-code-changed",
            f"the code of step `{task.step.name}` was changed while the run was on",
            where=task.step.verb,
            hint="run again: finished steps are kept",
        )
    return function


def about(task: Task) -> About:
    """Return what the log lines of a task belong to."""
    return About(trace=task.trace, run=task.run, step=task.step.name, attempt=task.attempt, fire=task.fire_id)


@cache
def wants(function: Callable[..., Any], parameter: str) -> bool:
    """Say whether a function has a parameter of this name."""
    return parameter in inspect.signature(function).parameters


@cache
def _asking_for(function: Callable[..., Any], *types: str) -> frozenset[str]:
    """Name the parameters that want one of some types of ours, rather than rows or the opened bundle.

    A function says so by its annotation: `table: TableVersion`, `model: ModelVersion | None`, `model: Bundle | Gone`.
    """
    parameters = inspect.signature(function).parameters.values()
    return frozenset(p.name for p in parameters if any(t in str(p.annotation) for t in types))


def _resolve(value: Any, store: Store) -> Any:
    """Turn plain JSON into what a step's function takes: frames, opened bundles, records."""
    value = read_value(value)
    if isinstance(value, list):
        return [_resolve(item, store) for item in value]
    if isinstance(value, TableVersion):
        return store.tables.read(value)
    if isinstance(value, ModelVersion):
        from modelyard.inference import open_bundle
        from modelyard.security.keys import trusted_keys

        return open_bundle(store.blobs.folder(value.address), trusted=trusted_keys(store.root), version=value)
    return value


def _materialise(task: Task, returned: Any, store: Store) -> dict[str, Any]:
    names = task.step.outputs
    if len(names) == 1:
        returned = (returned,)
    elif not isinstance(returned, tuple) or len(returned) != len(names):
        raise UserError(
            "step-outputs",
            f"step `{task.step.name}` declares {len(names)} outputs ({', '.join(names)}) and returned "
            f"{f'a tuple of {len(returned)}' if isinstance(returned, tuple) else type(returned).__name__}",
            hint="return a tuple with one value an output",
        )
    parents = tuple(v.digest for v in _values(task.inputs.values()) if isinstance(v, TableVersion))
    return {name: _keep(task, name, value, parents, store) for name, value in zip(names, returned, strict=True)}


def _keep(task: Task, output: str, value: Any, parents: tuple[str, ...], store: Store) -> Any:
    """Store one returned value where it belongs and return it as plain JSON."""
    name = f"{task.step.name}.{output}"
    if isinstance(value, Appended):
        return plain(store.tables.append(name, value, key=task.key))
    if type(value).__module__.startswith("polars.") and type(value).__name__ in ("DataFrame", "LazyFrame"):
        return plain(store.tables.write(name, value, key=task.key, parents=parents))
    if isinstance(value, CheckResult):
        return plain(msgspec.structs.replace(value, evidence=_stamp(task, value.evidence)))
    if isinstance(value, Evidence):
        return plain(_stamp(task, value))
    if isinstance(value, list | tuple):
        return [_keep(task, output, item, parents, store) for item in value]
    if isinstance(value, FileDraft):
        digest = store.blobs.put(value.data)
        return plain(File(name=value.name, digest=digest, size=len(value.data), media=value.media))
    if isinstance(value, Value):
        return plain(value)
    if type(value).__name__ == "BundleDraft":
        tables = _trained_on(task)
        return plain(_seal(value.trained_on(tables) if tables else value, store))
    try:
        return plain(value)
    except TypeError as error:
        raise UserError(
            "step-value",
            f"step `{task.step.name}` returned a `{type(value).__name__}`, which cannot be stored",
            hint="return a Polars frame, a record of modelyard.records or plain JSON (dict, list, text, number)",
        ) from error


def _trained_on(task: Task) -> tuple[str, ...]:
    """Return what a model was trained on: the input called `table`; any other is there to look at."""
    table = read_value(task.inputs.get("table"))
    return (table.digest,) if isinstance(table, TableVersion) else ()


def _seal(draft: Any, store: Store) -> ModelVersion:
    from modelyard._kit.digest import digest_bytes
    from modelyard.security.keys import signing_key
    from modelyard.security.seal import seal

    files = seal(draft.files, signing_key(store.root))
    address = digest_bytes(files["manifest.json"])
    store.blobs.put_folder(address, files)
    version: ModelVersion = draft.version
    return msgspec.structs.replace(version, address=address)


def _stamp(task: Task, evidence: Evidence) -> Evidence:
    """Say in the evidence which data, model and code it was measured with."""
    values = list(_values(task.inputs.values()))
    model = next((v.digest for v in values if isinstance(v, ModelVersion)), evidence.model)
    data = tuple(v.digest for v in values if isinstance(v, TableVersion)) or evidence.data
    return msgspec.structs.replace(evidence, data=data, model=model, code=task.code)


def _values(inputs: Any) -> list[Any]:
    found: list[Any] = []
    for item in inputs:
        value = read_value(item)
        found.extend(value if isinstance(value, list) else [value])
    return found
