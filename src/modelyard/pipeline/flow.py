"""Plans in Python: plain functions, named and joined, with the same caching and records as the built-in steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

from modelyard._kit.clock import system_clock
from modelyard._kit.errors import UserError
from modelyard.pipeline.code import verb_of
from modelyard.pipeline.partitions import PARAMETER, Partition, newest
from modelyard.pipeline.settings import said_of, settings_of
from modelyard.records import Plan, Retry, Step

__all__ = ["Flow", "Output"]


@dataclass(frozen=True, slots=True)
class Output:
    """What a step will return, to be handed to later steps.

    `output["name"]` is one of several outputs.
    """

    ref: str
    names: tuple[str, ...]

    @property
    def taken(self) -> str:
        """What a step takes that is given all of it: the first of several outputs, by its name."""
        return self.ref if len(self.names) == 1 else f"{self.ref}#{self.names[0]}"

    def __getitem__(self, name: str) -> Output:
        if name not in self.names:
            raise UserError(
                "step-output-unknown",
                f"step `{self.ref}` has no output `{name}`",
                hint=f"it has: {', '.join(self.names)}",
            )
        return Output(f"{self.ref}#{name}", (name,))


class Flow:
    """Steps joined in Python.

    Args:
        project: Name of the project.

    Examples:
        >>> def double(x: int) -> int:
        ...     return 2 * x
        >>> flow = Flow("example")
        >>> four = flow.step(double, x=2)
        >>> eight = flow.step(double, name="again", x=four)
        >>> [step.name for step in flow.plan().steps]
        ['double', 'again']
    """

    def __init__(self, project: str) -> None:
        self._project = project
        self._steps: dict[str, Step] = {}
        self._partitions: dict[str, Partition] = {}
        self.functions: dict[str, Callable[..., Any]] = {}

    def step(
        self,
        function: Callable[..., Any],
        /,
        *,
        name: str = "",
        outputs: Sequence[str] | str | None = None,
        retries: int | Mapping[str, Any] | Retry | None = None,
        timeout: float | str | None = None,
        cpus: float | None = None,
        memory: int | str | None = None,
        gpus: int | None = None,
        own_process: bool | None = None,
        network: bool | None = None,
        partition: str | Sequence[str] | Mapping[str, Any] | Partition | None = None,
        **arguments: Any,
    ) -> Output:
        """Add one call of a function and return its output.

        What is left out is as `@modelyard.step` says of the function, else the default.

        Args:
            function: A plain function at the top of a module, without variables from around it.
            name: Name of the step; by default that of the function, with `-2`, `-3`, ... where it is taken.
            outputs: Names of what it returns; several mean that it returns a tuple in this order.
            retries: Attempts after the first (3 by default), or a dict as in the file.
            timeout: Seconds after which an attempt is stopped, or a text like `10m`.
            cpus: Cores that it may use at once.
            memory: Bytes that it may hold, or a text like `2GB`.
            gpus: GPUs that it has for itself.
            own_process: Run it in a worker process, beside other such steps.
            network: Let it use the network.
            partition: `hourly`, `daily`, `weekly`, `monthly`, a list of values, or a dict as in the file: it runs once
                a partition, which it takes as `partition`. A plan has the newest complete period, or all values.
            **arguments: Outputs of earlier steps, lists of them, or plain JSON.

        Raises:
            UserError: The name is taken, a setting cannot be used, or an argument is no output and not plain JSON.
        """
        given = {
            "name": name or None,
            "outputs": outputs,
            "retries": retries,
            "timeout": timeout,
            "cpus": cpus,
            "memory": memory,
            "gpus": gpus,
            "own_process": own_process,
            "network": network,
            "partition": partition,
        }
        said = settings_of(f"step `{name or function.__name__}`", given).over(said_of(function))
        name = said.name or ""
        if not name:
            base = name = function.__name__
            count = 1
            while name in self._steps:
                count += 1
                name = f"{base}-{count}"
        if name in self._steps:
            raise UserError("step-name-taken", f"there is a step `{name}` already", hint="give each step its own name")
        inputs: dict[str, str | list[str]] = {}
        params: dict[str, Any] = {}
        for key, value in arguments.items():
            if isinstance(value, Output):
                inputs[key] = value.taken
            elif isinstance(value, list | tuple) and value and all(isinstance(item, Output) for item in value):
                inputs[key] = [item.taken for item in value]
            else:
                params[key] = _plain(name, key, value)
        verb = verb_of(function)
        if function.__name__ == "<lambda>" or self.functions.setdefault(verb, function) is not function:
            raise UserError(
                "step-function-unclear",
                f"step `{name}`: `{function.__qualname__}` does not name one function",
                hint="give each function a name of its own with `def`, at the top of a file",
            )
        if said.partition is not None:
            self._partitions[name] = said.partition
            if PARAMETER not in signature(function).parameters:
                raise UserError(
                    "step-parameter",
                    f"step `{name}` is partitioned, and `{function.__qualname__}` takes no `{PARAMETER}`",
                    hint=f"give it a parameter `{PARAMETER}: str`",
                )
        names = said.outputs or ("value",)
        about = (function.__doc__ or "").strip().partition("\n")[0]
        self._steps[name] = Step(
            name=name,
            verb=verb,
            inputs=inputs,
            params=params,
            outputs=names,
            resources=said.resources(),
            retry=said.retry or Retry(),
            timeout=said.timeout or 0.0,
            about=about,
        )
        return Output(name, names)

    def plan(self, *, now: float | None = None) -> Plan:
        """Return the plan; steps stand in the order in which they were added.

        Args:
            now: Seconds since 1970 UTC, which says what the newest complete partition is; the clock's by default.

        Raises:
            UserError: No partition of a step is complete yet (`partition-none`).
        """
        steps = list(self._steps.values())
        if self._partitions:
            steps = newest(steps, self._partitions, system_clock() if now is None else now)
        return Plan(project=self._project, steps=tuple(steps))


def _plain(step: str, name: str, value: Any) -> Any:
    """Return an argument as the plain JSON that it is, or say that it is not."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(step, name, item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(step, name, item) for key, item in value.items()}
    raise UserError(
        "step-argument",
        f"step `{step}`: argument `{name}` holds a `{type(value).__name__}`, which is neither an output nor plain JSON",
        hint="give numbers, texts, lists and dicts, or outputs of earlier steps (alone or in a list of outputs)",
    )
