"""Put back what a recorded step had: its arguments, what it saw of the world, and the project's code.

Whatever of it is not in the store any more is said by name, before anything is run.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from modelyard._kit.digest import digest_of
from modelyard._kit.errors import NotFound, Tampered, UserError
from modelyard.pipeline.capsule import Capsule, opened
from modelyard.pipeline.code import code_version, find
from modelyard.pipeline.execute import Task, wants
from modelyard.pipeline.fired import given
from modelyard.pipeline.network import Within
from modelyard.pipeline.probes import probe
from modelyard.pipeline.recompute import plan_of
from modelyard.pipeline.retry import OUT_OF_MEMORY, enlarged
from modelyard.pipeline.sources import Source, named_code, read_source
from modelyard.records import ModelVersion, Run, Step, StepRun, TableVersion, read_value
from modelyard.store import Store

__all__ = ["Recorded"]


class Recorded:
    """A step as a run recorded it.

    Args:
        store: Where its inputs are.
        run: The run.
        name: The step.

    Attributes:
        done: How it ended.
        step: What was to be done.

    Raises:
        NotFound: The run has no such step (`step-not-found`), or what it was called with is gone
            (`replay-input-missing`).
        UserError: The step did not run there (`replay-nothing`).
    """

    def __init__(self, store: Store, run: Run, name: str) -> None:
        self._store = store
        self._run = run
        self.done = _done(run, name)
        self._capsule = self._opened()
        self.step = self._capsule.task.step if self._capsule else self._declared()

    def task(self, function: Callable[..., Any], root: Path) -> Task:
        """Return the task as it was; without a run, so that nothing of it reaches the logs of the project.

        Args:
            function: What the step calls.
            root: Folder of the code.

        Raises:
            NotFound: Something that the step had is gone (`replay-input-missing`).
            UserError: The world outside is not what it was then (`replay-world-moved`).
        """
        code = code_version(function)
        if self._capsule is not None:
            task = msgspec.structs.replace(self._capsule.task, run="", code=code)
            task = msgspec.structs.replace(task, state=_here(task.state, root))
        else:
            inputs = {parameter: self._input(ref) for parameter, ref in self.step.inputs.items()}
            before = self._errors_before()
            task = Task(
                step=enlarged(self.step) if OUT_OF_MEMORY in before else self.step,
                key=f"replay:{self.step.name}",
                code=code,
                inputs=inputs,
                state=self._state(inputs, root),
                previous=self._previous() if wants(function, "previous") else None,
                fire=self._fire() if wants(function, "fire") else None,
                trace=self._run.trace,
                attempt=len(before) + 1,
            )
        self._look_for_inputs(task)
        return task

    @contextmanager
    def code(
        self, function: Callable[..., Any] | None, *, old: bool
    ) -> Iterator[tuple[Path, Callable[..., Any] | None]]:
        """Give the folder that the project's code is taken from, and the function where it has to be found in a file.

        Args:
            function: What the step calls, where only the caller knows it.
            old: The code as it was then, in a folder of its own, instead of as it is now.

        Raises:
            NotFound: A file of it is gone (`replay-input-missing`).
            UserError: It was not kept (`replay-no-source`), or to load it would run a script (`replay-script`).
        """
        step = self.step
        source = read_source(self.done.source, self._store)
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
                    _write(source, root, self._store)
                    sys.path.insert(0, str(root))
                    named = step.verb.startswith("modelyard.")
                    with Within(step, loading=True):
                        function = None if named else find(f"{source.main}:{source.function}", root)
                    yield root, function
            else:
                sys.path.insert(0, str(self._store.root))
                yield self._store.root, function or _scripted(step, source, self._store.root)
        finally:
            sys.path[:] = path

    def _opened(self) -> Capsule | None:
        if not self.done.capsule:
            return None
        try:
            return opened(self._store, self.done.capsule)
        except (NotFound, Tampered, msgspec.MsgspecError) as error:
            raise _gone(f"the capsule of step `{self.done.name}`, which holds its arguments,") from error

    def _declared(self) -> Step:
        try:
            return plan_of(self._run, self._store).step(self.done.name)
        except (NotFound, Tampered, msgspec.MsgspecError, KeyError) as error:
            raise _gone(f"the plan of {self._run.id}") from error

    def _input(self, ref: str | list[str]) -> Any:
        if isinstance(ref, list):
            return [self._input(one) for one in ref]
        try:
            return self._run[ref]
        except (KeyError, StopIteration) as error:
            raise _gone(f"the output `{ref}` of {self._run.id}") from error

    def _state(self, inputs: dict[str, Any], root: Path) -> Any:
        """Return what the probe saw then: recorded, or seen again if the world has not moved since."""
        done, step = self.done, self.step
        if not step.probe:
            return None
        if done.state is not None:
            return _here(done.state, root)
        if named_code(step) and root != self._store.root:
            return {"unkeyed": {"root": str(root)}}  # the code as it was: what stands in the project now does not count
        state, keyed = probe(step, inputs, self._store)
        same = digest_of(keyed) == done.made_of.get("state")
        if done.made_of and not same and not named_code(step):
            raise UserError(
                "replay-world-moved",
                f"what step `{step.name}` reads outside ({step.about or step.probe}) is not what it was then",
                hint="put the files back as they were, or replay a step after it: what that one read is stored",
            )
        return _here(state, root)

    def _previous(self) -> Any:
        """Return the first output of the step before it was done, as the runner gave it."""
        found = None
        for event in self._store.ledger.events(kinds=("step.finished", "step.cached")):
            if event.step != self.done.name:
                continue
            if event.payload["key"] == self.done.key or event.run == self._run.id:
                return found
            found = next(iter(event.payload["outputs"].values()), None)
        return found

    def _errors_before(self) -> list[str]:
        """Return how each attempt ended before the one that succeeded; of a cached step, where it was run."""
        if self.done.status != "cached":
            return [str(attempt.error.get("code")) for attempt in self.done.attempts]
        return [
            str(event.payload["error"].get("code"))
            for event in self._store.ledger.events(kinds=("step.retried",))
            if event.step == self.done.name and event.payload["key"] == self.done.key
        ]

    def _fire(self) -> dict[str, Any] | None:
        if "fire" not in self.done.made_of:
            return None
        fire = self._store.ledger.fire(self._run.fire)
        if fire is None:
            raise _gone(f"fire `{self._run.fire}`")
        return given(fire, self._store)

    def _look_for_inputs(self, task: Task) -> None:
        """Say which inputs are gone before anything is run."""
        for parameter, raw in task.inputs.items():
            values = read_value(raw)
            for value in values if isinstance(values, list) else [values]:
                named = f"input `{parameter}` of step `{task.step.name}`"
                try:
                    if isinstance(value, TableVersion):
                        self._store.tables.read(value)
                    elif isinstance(value, ModelVersion):
                        self._store.blobs.folder(value.address)
                except (NotFound, Tampered) as error:
                    raise _gone(f"{named} ({_called(value)}: {error.problem.message})") from error


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


def _gone(what: str) -> NotFound:
    return NotFound(
        "replay-input-missing",
        f"{what} is not in the store any more",
        hint="run again: what made it makes it again; or replay the step of a newer run",
    )


def _here(state: Any, root: Path) -> Any:
    """Return what a probe saw with the folder of the project where it is now."""
    if isinstance(state, dict) and isinstance(unkeyed := state.get("unkeyed"), dict) and "root" in unkeyed:
        return {**state, "unkeyed": {**unkeyed, "root": str(root)}}
    return state


def _called(value: TableVersion | ModelVersion) -> str:
    kind = "table" if isinstance(value, TableVersion) else "model"
    return f"{kind} {value.address or value.name}"


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
    with Within(step, loading=True):
        return find(f"{file}:{step.verb.partition(':')[2]}", root)
