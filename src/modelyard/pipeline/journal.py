"""Write down what happens in a run: its events, and what they point at.

What is written here is the run: whoever shows it, goes on with it or takes its outputs reads these events.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec

from modelyard._kit.digest import canonical
from modelyard._kit.stopping import unstopped
from modelyard.pipeline.bodies import cached_body, failed_body, finished_body, result_of, retried_body
from modelyard.pipeline.capsule import keep
from modelyard.pipeline.dead import left_running
from modelyard.pipeline.environment import Environment
from modelyard.pipeline.execute import Failure, Outcome, Task
from modelyard.pipeline.keys import Key
from modelyard.pipeline.retry import Again
from modelyard.records import Budget, Draft, Event, Fire, Plan, Step, StepRun, Usage, plain, read_value
from modelyard.store import Store

__all__ = ["Journal", "Observer"]

# Sees each event after it was written; progress displays and `--json` are observers.
Observer = Callable[[Event], None]


class Journal:
    """The events of one run.

    Args:
        store: Where they go.
        run: Id of the run.
        actor: Who asked for it.
        environment: What it runs in.
        observe: Called with each event after it was written.
    """

    def __init__(self, store: Store, run: str, actor: str, environment: Environment, observe: Observer | None) -> None:
        self._store = store
        self._run = run
        self._actor = actor
        self._environment = environment
        self._observe = observe

    def begin(self, plan: Plan, trace: str, fire: Fire | None, budget: Budget | None, backfill: str = "") -> None:
        """Close the runs whose process died, and begin this one."""
        self._write(*left_running(self._store))
        body = {
            "project": plan.project,
            "plan": self._store.blobs.put(msgspec.json.encode(plan)),
            "environment": self._store.blobs.put(canonical(self._environment)),
            "pid": os.getpid(),
            "trace": trace,
        }
        if fire is not None:
            body["fire"] = fire.id
        if budget is not None:
            body["prices"] = msgspec.to_builtins(budget.prices)
        if backfill:
            body["backfill"] = backfill
        self._write(Draft(kind="run.started", run=self._run, actor=self._actor, payload=body), durable=True)

    def end(
        self,
        status: str,
        reason: str,
        made: Mapping[str, Mapping[str, Any]],
        cut: Sequence[tuple[Task, Usage]] = (),
    ) -> None:
        """Say how the run ended.

        Args:
            status: Its status.
            reason: Why, in a sentence; empty for a success.
            made: Step -> output -> plain JSON.
            cut: Tasks that were given up, and what they had cost.
        """
        with unstopped():
            payload: dict[str, Any] = {"status": status, "reason": reason, "result": result_of(made)}
            if cut:
                # What was given up was paid for as well.
                payload["cut"] = {task.step.name: msgspec.to_builtins(used) for task, used in cut}
            self._write(Draft(kind="run.finished", run=self._run, payload=payload), durable=True)

    def started(self, task: Task) -> None:
        """Say that an attempt at a step begins."""
        self._write(Draft(kind="step.started", run=self._run, step=task.step.name, payload={"key": task.key}))

    def cached(self, step: Step, key: Key, hit: StepRun) -> None:
        """Say that the ledger has what a step would make."""
        payload = {**cached_body(key, hit), "from_seconds": hit.seconds, "seconds": 0.0, "cpu_seconds": 0.0}
        self._write(Draft(kind="step.cached", run=self._run, step=step.name, payload=payload))

    def finished(self, task: Task, outcome: Outcome, made_of: Mapping[str, str], *, source: str, beside: bool) -> None:
        """Say that a step succeeded, and move the aliases that it deploys to; see `finished_body`."""
        step = task.step.name
        body = finished_body(task, outcome, made_of, source=source, beside=beside)
        finished = Draft(kind="step.finished", run=self._run, step=step, payload=body)
        with ExitStack() as held:
            # A deployment takes effect in the same transaction in which its step is finished: never one without the
            # other. What it replaces is worked out anew under the alias's lock, since a person may have moved it.
            moves = [
                Draft(kind="alias.moved", run=self._run, step=step, actor=self._actor, payload={"deployment": now})
                for value in outcome.outputs.values()
                if isinstance(value, dict) and value.get("kind") == "deployment"
                if (now := self._settled(value, held)) is not None
            ]
            # A champion that moved has moved even after a power cut.
            self._write(finished, *moves, durable=bool(moves))

    def retried(self, task: Task, outcome: Outcome, failure: Failure, following: Again) -> None:
        """Say that an attempt failed and another follows."""
        payload = retried_body(task, outcome, failure, following)
        self._write(Draft(kind="step.retried", run=self._run, step=task.step.name, payload=payload))

    def failed(self, task: Task, outcome: Outcome, failure: Failure, made_of: dict[str, str], *, source: str) -> None:
        """Say that a step failed for good, and keep what it takes to look at it and to run it again."""
        payload = {**failed_body(task, outcome), "made_of": made_of, "source": source}
        payload["capsule"] = keep(
            self._store,
            task,
            failure,
            environment=self._environment.digest,
            made_of=made_of,
            source=source,
            log=outcome.log,
        )
        self._write(Draft(kind="step.failed", run=self._run, step=task.step.name, payload=payload))

    def unready(self, step: Step, outcome: Outcome, *, source: str) -> None:
        """Say that a step failed before there was anything to run."""
        payload = {**failed_body(None, outcome), "source": source}
        self._write(Draft(kind="step.failed", run=self._run, step=step.name, payload=payload))

    def skipped(self, steps: Iterable[Step], reason: str) -> None:
        """Say why steps did not come to run, and what the newest time they ran had cost."""
        drafts = []
        for step in steps:
            latest = self._store.ledger.latest(step.name)
            saved = msgspec.to_builtins(latest.usage) if latest else None
            payload = {"reason": reason, "saved": saved}
            drafts.append(Draft(kind="step.skipped", run=self._run, step=step.name, payload=payload))
        self._write(*drafts)

    def _settled(self, value: dict[str, Any], held: ExitStack) -> dict[str, Any] | None:
        from modelyard.deploy.aliases import settle

        deployment = held.enter_context(settle(self._store, read_value(value), actor=self._actor))
        return None if deployment is None else plain(deployment)

    def _write(self, *drafts: Draft, durable: bool = False) -> None:
        for event in self._store.ledger.append(*drafts, durable=durable):
            if self._observe is not None:
                self._observe(event)
