"""Plans in Python: plain functions, named and joined, with the same caching and records as the built-in steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modelyard._kit.errors import UserError
from modelyard.pipeline.code import verb_of
from modelyard.records import Plan, Resources, Step

__all__ = ["Flow", "Output"]


@dataclass(frozen=True, slots=True)
class Output:
    """What a step will return, to be handed to later steps.

    `output["name"]` is one of several outputs.
    """

    ref: str
    names: tuple[str, ...]

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
        self.functions: dict[str, Callable[..., Any]] = {}

    def step(
        self,
        function: Callable[..., Any],
        /,
        *,
        name: str = "",
        outputs: tuple[str, ...] = ("value",),
        own_process: bool = False,
        **arguments: Any,
    ) -> Output:
        """Add one call of a function and return its output.

        Args:
            function: A plain function at the top of a module, without variables from around it.
            name: Name of the step; by default that of the function, with `-2`, `-3`, ... where it is taken.
            outputs: Names of what it returns; several mean that it returns a tuple in this order.
            own_process: Run it in a worker process, beside other such steps.
            **arguments: Outputs of earlier steps, lists of them, or plain JSON.

        Raises:
            UserError: The name is taken, or an argument is no output and not plain JSON.
        """
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
                inputs[key] = value.ref
            elif isinstance(value, list | tuple) and value and all(isinstance(item, Output) for item in value):
                inputs[key] = [item.ref for item in value]
            else:
                params[key] = _plain(name, key, value)
        verb = verb_of(function)
        if function.__name__ == "<lambda>" or self.functions.setdefault(verb, function) is not function:
            raise UserError(
                "step-function-unclear",
                f"step `{name}`: `{function.__qualname__}` does not name one function",
                hint="give each function a name of its own with `def`, at the top of a file",
            )
        about = (function.__doc__ or "").strip().partition("\n")[0]
        self._steps[name] = Step(
            name=name,
            verb=verb,
            inputs=inputs,
            params=params,
            outputs=outputs,
            resources=Resources(own_process=own_process),
            about=about,
        )
        return Output(name, outputs)

    def plan(self) -> Plan:
        """Return the plan; steps stand in the order in which they were added."""
        return Plan(project=self._project, steps=tuple(self._steps.values()))


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
