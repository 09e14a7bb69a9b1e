"""Run a plan: what comes next, from what the ledger already has and from what has ended."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from graphlib import TopologicalSorter
from heapq import heappop, heappush
from itertools import count
from typing import Any

from modelyard._kit.actor import command, user
from modelyard._kit.errors import Spent
from modelyard._kit.ids import new_id
from modelyard._kit.stopping import stopped
from modelyard.logs import listening
from modelyard.pipeline.bodies import order_of
from modelyard.pipeline.cancel import ending
from modelyard.pipeline.code import code_version, find
from modelyard.pipeline.environment import environment
from modelyard.pipeline.execute import Failure, Outcome, Task, wants
from modelyard.pipeline.executors import Executor, LocalExecutor
from modelyard.pipeline.fired import given
from modelyard.pipeline.journal import Journal, Observer
from modelyard.pipeline.keys import Key, output_key
from modelyard.pipeline.network import Within
from modelyard.pipeline.probes import probe
from modelyard.pipeline.raised import error_of
from modelyard.pipeline.ready import Ready
from modelyard.pipeline.retry import again
from modelyard.pipeline.sources import kept_source, written_source
from modelyard.pipeline.there import gone
from modelyard.records import Budget, Fire, Plan, Run, RunStatus, Step, Usage
from modelyard.security.redact import redact
from modelyard.store import Held, Store

__all__ = ["run"]

# Seconds between two looks whether the run is to end, is still ours, and at what the tasks under way have cost.
_TICK = 0.5


def run(
    plan: Plan,
    store: Store,
    *,
    actor: str = "",
    executor: Executor | None = None,
    observe: Observer | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    fire: Fire | None = None,
    budget: Budget | None = None,
    keep_going: bool = False,
    backfill: str = "",
) -> Run:
    """Run a plan to its end.

    Args:
        plan: What to do.
        store: Where values and events go.
        actor: Who asked for it; the user of the system by default.
        executor: Where steps run; this machine by default.
        observe: Called with each event after it was written.
        functions: Verb -> function, for functions that cannot be imported by their verb.
        fire: What asked for the run; it is started once, and again only if its run was cut off.
        budget: What it may cost, and what the machine costs.
        keep_going: After a failure, still start what does not depend on it.
        backfill: The step whose older partitions are run; empty for the project as it stands now.

    Returns:
        The finished run.

    Raises:
        Busy: Another run holds the project, or has taken it over while this one was cut off (`lease-lost`).
        Taken: The fire was run already.
        CheckFailed: A blocking check failed.
        Stale: The data are too old; the run is recorded as skipped.
        Spent: The budget is used up; the run is recorded as stopped and its finished steps are kept.
        UserError: What the user gave cannot be used.
        StepFailed: A step raised another error.
        KeyboardInterrupt: Ctrl-C; the run is recorded as cancelled and its finished steps are kept.
    """
    run_id = new_id("run")
    actor = actor or user()
    about = {"run": run_id, "command": command(), "pid": os.getpid()}
    who = {**about, "host": socket.gethostname(), "since": time.time()}
    with store.hold("run", who=who) as held, listening():
        own = executor is None
        executor = executor or LocalExecutor(store, functions=functions)
        try:
            runner = _Runner(
                plan,
                store,
                run_id,
                actor,
                executor,
                observe,
                functions or {},
                fire=fire,
                budget=budget,
                held=held,
                keep_going=keep_going,
                backfill=backfill,
            )
            return runner.run()
        finally:
            if own:
                executor.close()


class _Runner:
    """One run of one plan: it decides what comes next; executors do the work, and the journal has what came of it."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        run_id: str,
        actor: str,
        executor: Executor,
        observe: Observer | None,
        functions: Mapping[str, Callable[..., Any]],
        *,
        fire: Fire | None = None,
        budget: Budget | None = None,
        held: Held | None = None,
        keep_going: bool = False,
        backfill: str = "",
    ) -> None:
        self._plan = plan
        self._by_name = {step.name: step for step in plan.steps}
        self._store = store
        self._id = run_id
        self._executor = executor
        self._functions = functions
        self._fire = fire
        self._trace = (fire and fire.trace) or secrets.token_hex(16)
        self._budget = budget
        self._held = held
        self._keep_going = keep_going
        self._backfill = backfill
        self._environment = environment()
        self._journal = Journal(store, run_id, actor, self._environment, observe)
        self._outputs: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, Key] = {}
        self._sources: dict[str, str] = {}
        self._failures: list[tuple[Step, Failure]] = []
        self._used = Usage()
        # Attempts that wait for their time: when, a number that breaks ties, the task.
        self._later: list[tuple[float, int, Task]] = []
        self._numbers = count()

    def run(self) -> Run:
        """Run every step that can run, record how it ended, and raise what went wrong."""
        try:
            try:
                self._journal.begin(self._plan, self._trace, self._fire, self._budget, self._backfill)
                self._steps()
            except Exception:
                # What a stop has broken is no failure of the run.
                stopped()
                raise
            return self._ended()
        except KeyboardInterrupt as stop:
            self._break_off(*ending(stop, self._id, self._store))
            raise
        except Spent as spent:
            self._break_off("stopped", spent.problem.message)
            raise
        except BaseException as error:
            self._break_off("failed", redact(f"{type(error).__name__}: {error}"))
            raise

    def _break_off(self, status: RunStatus, reason: str) -> None:
        """Record that the run ended early, unless it had not begun yet or its end stands there already."""
        cut = self._executor.close()
        known = self._store.ledger.run(self._id)
        if known is not None and known.status == "running":
            self._journal.end(status, reason, self._outputs, cut)

    def _ended(self) -> Run:
        """Record how the run ended and return it, or raise what went wrong."""
        if self._failures:
            step, failure = self._failures[0]
            if failure.stale:
                known = {*self._outputs, *(step.name for step, _ in self._failures)}
                self._journal.skipped([step for step in self._plan.steps if step.name not in known], failure.message)
            reason = "; ".join(f.message for _, f in self._failures)
            self._journal.end("skipped" if failure.stale else "failed", reason, self._outputs)
            raise error_of(step, failure)
        self._journal.end("succeeded", "", self._outputs)
        finished = self._store.ledger.run(self._id)
        assert finished is not None  # noqa: S101 - its start was written above
        return finished

    def _steps(self) -> None:
        """Start what is ready while nothing has failed, and take in what has ended."""
        order = order_of(self._plan)
        prepared = Ready(self._executor)
        under_way = 0
        while True:
            stopped()
            self._take_ready(order, prepared)
            while self._later and self._later[0][0] <= time.monotonic():
                prepared.add(heappop(self._later)[2])
            if self._ends:
                # Nothing new starts; what is under way may end, so that its work is kept.
                prepared.clear()
                self._later.clear()
            if self._held is not None:
                # Whoever has taken the project over begins anew what this run has not recorded.
                self._held.check()
            if (under_way or prepared or self._later) and not self._failures:
                # What is done is paid for: a budget can only stop what is still to come.
                self._check_budget()
            ended: list[tuple[Task, Outcome]] = []
            if task := prepared.take():
                self._journal.started(task)
                outcome = self._executor.submit(task)
                under_way += outcome is None
                ended = [(task, outcome)] if outcome else []
                if outcome and under_way:
                    # While the runner was busy itself, others may have ended.
                    ended += (others := self._executor.wait(0.0))
                    under_way -= len(others)
            elif under_way or prepared:
                # Where nothing of ours is under way, other programs have what the task needs.
                ended = self._executor.wait(self._patience())
                under_way -= len(ended)
            elif self._later:
                time.sleep(self._patience())
            else:
                return
            for done, outcome in ended:
                if self._record(done, outcome):
                    order.done(done.step.name)

    @property
    def _ends(self) -> bool:
        """Whether nothing new is begun any more."""
        return bool(self._failures) and not self._keep_going

    def _take_ready(self, order: TopologicalSorter[str], prepared: Ready) -> None:
        """Prepare every step that waits for nothing more; those that are cached free the next ones at once."""
        while not self._ends and (names := order.get_ready()):
            for name in names:
                task = self._prepare(self._by_name[name])
                if task is not None:
                    prepared.add(task)
                elif name in self._outputs:
                    order.done(name)

    def _patience(self) -> float:
        """Return for how many seconds nothing has to be looked at, unless a task ends."""
        return min(_TICK, max(0.0, self._later[0][0] - time.monotonic())) if self._later else _TICK

    def _check_budget(self) -> None:
        over = self._budget.over(self._used + self._executor.used()) if self._budget else ""
        if over:
            raise Spent("budget-spent", over, where="cost", hint="raise the budget, or see `modelyard cost`")

    def _prepare(self, step: Step) -> Task | None:
        """Return a task to run; none if its outputs are in the ledger, or if it failed before it began."""
        try:
            with Within(step, loading=True):
                function = self._functions.get(step.verb) or find(step.verb, self._store.root)
            inputs = {name: self._input(ref) for name, ref in step.inputs.items()}
            state, keyed = probe(step, inputs, self._store)
            code = code_version(function)
            # A function that asks for the fire runs once a fire, whatever else stayed the same.
            fire = self._fire if self._fire is not None and wants(function, "fire") else None
            key = output_key(
                step,
                code=code,
                inputs=inputs,
                state=keyed,
                environment=self._environment.digest,
                fire=fire.id if fire else "",
            )
        except Exception as error:  # noqa: BLE001 - a probe of a user's source may raise anything
            self._record_failure(step, None, Outcome(failure=Failure.of(step, error)))
            return None
        self._keys[step.name] = key
        hit = self._store.ledger.output(key.digest)
        if hit is not None and not gone(hit.outputs, self._store):
            self._outputs[step.name] = hit.outputs
            self._journal.cached(step, key, hit)
            return None
        if source := kept_source(step, function, key.made_of, self._store):
            self._sources[step.name] = source
        previous = None
        if wants(function, "previous"):
            latest = self._store.ledger.latest(step.name)
            # Nothing is appended to what is gone: it begins anew.
            if latest is not None and not gone(latest.outputs, self._store):
                previous = next(iter(latest.outputs.values()), None)
        return Task(
            step=step,
            key=key.digest,
            code=code,
            inputs=inputs,
            state=state,
            previous=previous,
            fire=given(fire, self._store) if fire else None,
            run=self._id,
            trace=self._trace,
            fire_id=self._fire.id if self._fire else "",
        )

    def _input(self, ref: str | list[str]) -> Any:
        if isinstance(ref, list):
            return [self._input(one) for one in ref]
        name, _, output = ref.partition("#")
        outputs = self._outputs[name]
        return outputs[output] if output else next(iter(outputs.values()))

    def _record(self, task: Task, outcome: Outcome) -> bool:
        self._used += outcome.usage
        if outcome.failure is not None:
            if not self._retried(task, outcome, outcome.failure):
                self._record_failure(task.step, task, outcome)
            return False
        step = task.step
        self._outputs[step.name] = outcome.outputs
        self._journal.finished(
            task,
            outcome,
            self._keys[step.name].made_of,
            source=self._sources.get(step.name, ""),
            beside=self._executor.beside(task),
        )
        return True

    def _retried(self, task: Task, outcome: Outcome, failure: Failure) -> bool:
        """Queue another attempt if the failure may pass, and say so; nothing new is begun once a step has failed."""
        following = None if self._ends else again(task, failure)
        if following is None:
            return False
        heappush(self._later, (time.monotonic() + following.wait, next(self._numbers), following.task))
        self._journal.retried(task, outcome, failure, following)
        return True

    def _record_failure(self, step: Step, task: Task | None, outcome: Outcome) -> None:
        failure = outcome.failure
        assert failure is not None  # noqa: S101 - the caller looked
        self._failures.append((step, failure))
        if task is None:
            # It may have failed because its file cannot be read as code: what stood there is worth keeping.
            source = written_source(step, self._functions.get(step.verb), self._store)
            self._journal.unready(step, outcome, source=source)
        else:
            source = self._sources.get(step.name, "")
            self._journal.failed(task, outcome, failure, self._keys[step.name].made_of, source=source)
