"""Run a plan: steps to events, skipping what the ledger already has."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from graphlib import CycleError, TopologicalSorter
from typing import Any

import msgspec

from modelyard._kit.actor import user
from modelyard._kit.digest import canonical, digest_of
from modelyard._kit.errors import (
    Busy,
    CheckFailed,
    Denied,
    ModelyardError,
    Refused,
    StepFailed,
    UserError,
)
from modelyard._kit.ids import new_id
from modelyard.pipeline.code import code_version, find
from modelyard.pipeline.environment import environment
from modelyard.pipeline.execute import Failure, Outcome, Task, wants
from modelyard.pipeline.executors import Executor, LocalExecutor
from modelyard.pipeline.keys import Key, output_key
from modelyard.pipeline.probes import probe
from modelyard.records import Draft, Event, Plan, Run, Step, StepRun, plain, read_value
from modelyard.store import Store

__all__ = ["Observer", "Runner", "run"]

# Sees each event after it was written; progress displays and `--json` are observers.
Observer = Callable[[Event], None]

_ERRORS: dict[int, type[ModelyardError]] = {
    1: Refused,
    2: UserError,
    3: StepFailed,
    4: Busy,
    5: Denied,
}


def run(
    plan: Plan,
    store: Store,
    *,
    actor: str = "",
    executor: Executor | None = None,
    observe: Observer | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> Run:
    """Run a plan to its end.

    Args:
        plan: What to do.
        store: Where values and events go.
        actor: Who asked for it; the user of the system by default.
        executor: Where steps run; this machine by default.
        observe: Called with each event after it was written.
        functions: Verb -> function, for functions that cannot be imported by their verb.

    Returns:
        The finished run.

    Raises:
        Busy: Another run holds the project.
        CheckFailed: A blocking check failed.
        UserError: What the user gave cannot be used.
        StepFailed: A step raised another error.
        KeyboardInterrupt: Ctrl-C; the run is recorded as cancelled and its finished steps are kept.
    """
    run_id = new_id("run")
    actor = actor or user()
    with store.hold("run", who={"run": run_id, "pid": os.getpid(), "since": time.time()}):
        own = executor is None
        executor = executor or LocalExecutor(store, functions=functions)
        try:
            return Runner(plan, store, run_id, actor, executor, observe, functions or {}).run()
        finally:
            if own:
                executor.close()


class Runner:
    """One run of one plan: it decides, records and nothing else; executors do the work."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        run_id: str,
        actor: str,
        executor: Executor,
        observe: Observer | None,
        functions: Mapping[str, Callable[..., Any]],
    ) -> None:
        self._plan = plan
        self._by_name = {step.name: step for step in plan.steps}
        self._store = store
        self._id = run_id
        self._actor = actor
        self._executor = executor
        self._observe = observe
        self._functions = functions
        self._environment = environment().digest
        self._outputs: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, Key] = {}
        self._failures: list[tuple[Step, Failure]] = []

    def run(self) -> Run:
        """Run every step that can run, record how it ended, and raise what went wrong."""
        self._settle_dead_runs()
        digest = self._store.blobs.put(msgspec.json.encode(self._plan))
        started = {
            "project": self._plan.project,
            "plan": digest,
            "environment": self._store.blobs.put(canonical(environment())),
            "pid": os.getpid(),
        }
        self._write(Draft(kind="run.started", run=self._id, actor=self._actor, payload=started), durable=True)
        try:
            self._steps()
        except KeyboardInterrupt:
            self._executor.close()
            self._finish("cancelled", "stopped by Ctrl-C")
            raise
        except BaseException as error:
            self._executor.close()
            self._finish("failed", f"{type(error).__name__}: {error}")
            raise
        if self._failures:
            self._finish("failed", "; ".join(f.message for _, f in self._failures))
            raise _error_of(*self._failures[0])
        self._finish("succeeded", "")
        finished = self._store.ledger.run(self._id)
        assert finished is not None  # noqa: S101 - its start was written above
        return finished

    def _steps(self) -> None:
        """Start what is ready while nothing has failed, and take in what has ended."""
        order = _order(self._plan)
        prepared: deque[Task] = deque()
        under_way = 0
        while True:
            while not self._failures and (names := order.get_ready()):
                for name in names:
                    task = self._prepare(self._by_name[name])
                    if task is not None:
                        prepared.append(task)
                    elif name in self._outputs:
                        order.done(name)
            if self._failures:
                prepared.clear()  # nothing new starts; what is under way may end, so that its work is kept
            ended: list[tuple[Task, Outcome]] = []
            if task := next((t for t in prepared if self._executor.room(t)), None):
                prepared.remove(task)
                self._write(Draft(kind="step.started", run=self._id, step=task.step.name, payload={"key": task.key}))
                outcome = self._executor.submit(task)
                under_way += outcome is None
                ended = [(task, outcome)] if outcome else []
            elif under_way:
                ended = self._executor.wait()
                under_way -= len(ended)
            else:
                return
            for done, outcome in ended:
                if self._record(done, outcome):
                    order.done(done.step.name)

    def _prepare(self, step: Step) -> Task | None:
        """Return a task to run; none if its outputs are in the ledger, or if it failed before it began."""
        try:
            function = self._functions.get(step.verb) or find(step.verb)
            inputs = {name: self._input(ref) for name, ref in step.inputs.items()}
            state, keyed = probe(step, inputs, self._store)
            code = code_version(function)
            key = output_key(step, code=code, inputs=inputs, state=keyed, environment=self._environment)
        except Exception as error:  # noqa: BLE001 - a probe of a user's source may raise anything
            self._record_failure(step, "", Failure.of(step, error))
            return None
        self._keys[step.name] = key
        hit = self._store.ledger.output(key.digest)
        if hit is not None:
            self._outputs[step.name] = hit.outputs
            payload = {**_body(key, hit), "from_seconds": hit.seconds, "seconds": 0.0, "cpu_seconds": 0.0}
            self._write(Draft(kind="step.cached", run=self._id, step=step.name, payload=payload))
            return None
        previous = None
        if wants(function, "previous"):
            latest = self._store.ledger.latest(step.name)
            previous = next(iter(latest.outputs.values()), None) if latest else None
        return Task(step=step, key=key.digest, code=code, inputs=inputs, state=state, previous=previous)

    def _input(self, ref: str | list[str]) -> Any:
        if isinstance(ref, list):
            return [self._input(one) for one in ref]
        name, _, output = ref.partition("#")
        outputs = self._outputs[name]
        return outputs[output] if output else next(iter(outputs.values()))

    def _record(self, task: Task, outcome: Outcome) -> bool:
        if outcome.failure is not None:
            self._record_failure(task.step, task.key, outcome.failure, outcome.seconds)
            return False
        step = task.step
        self._outputs[step.name] = outcome.outputs
        body = {
            "key": task.key,
            "outputs": outcome.outputs,
            "made_of": self._keys[step.name].made_of,
            "seconds": outcome.seconds,
            "cpu_seconds": outcome.cpu_seconds,
        }
        if step.measures and task.state is not None:
            body["state"] = task.state
        finished = Draft(kind="step.finished", run=self._id, step=step.name, payload=body)
        with ExitStack() as held:
            # A deployment takes effect in the same transaction in which its step is finished: never one without the
            # other. What it replaces is worked out anew under the alias's lock, since a person may have moved it.
            moves = [
                Draft(kind="alias.moved", run=self._id, step=step.name, actor=self._actor, payload={"deployment": now})
                for value in outcome.outputs.values()
                if isinstance(value, dict) and value.get("kind") == "deployment"
                if (now := self._settled(value, held)) is not None
            ]
            # A champion that moved has moved even after a power cut.
            self._write(finished, *moves, durable=bool(moves))
        return True

    def _settled(self, value: dict[str, Any], held: ExitStack) -> dict[str, Any] | None:
        from modelyard.deploy.aliases import settle

        deployment = held.enter_context(settle(self._store, read_value(value), actor=self._actor))
        return None if deployment is None else plain(deployment)

    def _record_failure(self, step: Step, key: str, failure: Failure, seconds: float = 0.0) -> None:
        self._failures.append((step, failure))
        payload = {"key": key, "seconds": seconds, "error": msgspec.to_builtins(failure)}
        self._write(Draft(kind="step.failed", run=self._id, step=step.name, payload=payload))

    def _settle_dead_runs(self) -> None:
        """Close the runs whose process died: we hold the project, so none of them can be alive."""
        for old in self._store.ledger.runs():
            if old.status == "running":
                payload = {"status": "interrupted", "reason": "its process died"}
                self._write(Draft(kind="run.finished", run=old.id, payload=payload))

    def _finish(self, status: str, reason: str) -> None:
        payload = {"status": status, "reason": reason, "result": self._result()}
        self._write(Draft(kind="run.finished", run=self._id, payload=payload), durable=True)

    def _result(self) -> str:
        """Digest over the tables and models made: timings and places are not part of it."""
        made = {
            f"{step}#{name}": value["digest"]
            for step, outputs in sorted(self._outputs.items())
            for name, value in outputs.items()
            if isinstance(value, dict) and value.get("kind") in ("table", "model")
        }
        return digest_of(made)

    def _write(self, *drafts: Draft, durable: bool = False) -> None:
        for event in self._store.ledger.append(*drafts, durable=durable):
            if self._observe is not None:
                self._observe(event)


def _order(plan: Plan) -> TopologicalSorter[str]:
    order: TopologicalSorter[str] = TopologicalSorter({step.name: step.upstream for step in plan.steps})
    try:
        order.prepare()
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise UserError(
            "plan-cycle", f"steps wait for each other: {circle}", hint="take one of the inputs away"
        ) from error
    return order


def _body(key: Key, hit: StepRun) -> dict[str, Any]:
    body = {"key": key.digest, "outputs": hit.outputs, "made_of": key.made_of}
    return body if hit.state is None else {**body, "state": hit.state}


def _error_of(step: Step, failure: Failure) -> ModelyardError:
    kind = CheckFailed if failure.code == "check-failed" else _ERRORS.get(failure.exit_code, StepFailed)
    where = failure.where or f"step `{step.name}`"
    error = kind(failure.code, failure.message, where=where, hint=failure.hint)
    error.__notes__ = [failure.trace]
    return error
