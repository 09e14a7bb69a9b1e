"""Steps and plans: what will be done, before anything is done."""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.records.base import Value

__all__ = ["Plan", "Resources", "Retry", "Step"]


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What a step asks of the machine.

    Attributes:
        cpus: Cores it may use at once.
        memory: Bytes that it may hold at once; more is "out of memory". 0: as much as there is.
        gpus: GPUs that it has for itself while it runs.
        own_process: Run in a worker process beside its neighbours; short steps stay in the runner's own. A step that
            asks for memory, GPUs or a timeout has one in any case: nothing else can be held to a limit.
        network: It may reach other machines, and this one over TCP and UDP.
    """

    cpus: float = 1.0
    memory: int = 0
    gpus: int = 0
    own_process: bool = False
    network: bool = False


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """What is done when an attempt at a step fails for a reason that may pass.

    The n-th wait is drawn evenly from 0 to `min(most, wait * 2 ** (n - 1))` ("full jitter": Brooker, Exponential
    Backoff And Jitter, AWS Architecture Blog, 2015), so that steps which failed together do not come back together.

    Attributes:
        times: Attempts after the first one.
        wait: Seconds that the first wait may last.
        most: Seconds that any wait may last.
        memory: Bytes that the one attempt after "out of memory" may hold; 0: it is not tried again.
        not_before: Local time of day `HH:MM` before which no further attempt starts; empty: at any time.
    """

    times: int = 3
    wait: float = 1.0
    most: float = 60.0
    memory: int = 0
    not_before: str = ""


class Step(Value, frozen=True, kw_only=True, tag="step"):
    """One call of one plain function.

    Attributes:
        name: Unique name in the plan, e.g. `train.lightgbm`.
        verb: Dotted path of the function, e.g. `modelyard.models.steps:train`.
        inputs: Parameter of the function -> output of an earlier step, as `step` or `step#output`; a list of
            those gives the function a list.
        params: Parameter of the function -> plain JSON.
        after: Steps that must have ended before, although nothing is taken from them.
        outputs: Names of what it returns; one name means the value itself, several a tuple in this order.
        probe: Dotted path of a function that looks at the world outside (files, aliases) and returns plain
            JSON; it is part of the key and is handed to the function as `state`. Empty: nothing outside matters.
        resources: What it asks of the machine.
        retry: What is done when it fails.
        timeout: Seconds after which an attempt is stopped; 0: never.
        measures: It only measures values that are stored, so `modelyard verify` can do it again and compare.
        about: One line for the plan and the pages.
    """

    name: str
    verb: str
    inputs: dict[str, str | list[str]] = {}
    params: dict[str, Any] = {}
    after: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ("value",)
    probe: str = ""
    resources: Resources = Resources()
    retry: Retry = Retry()
    timeout: float = 0.0
    measures: bool = False
    about: str = ""

    @property
    def upstream(self) -> tuple[str, ...]:
        """Names of the steps that must have ended before it, each once, in order."""
        refs: list[str] = list(self.after)
        for ref in self.inputs.values():
            refs.extend([ref] if isinstance(ref, str) else ref)
        return tuple(dict.fromkeys(ref.partition("#")[0] for ref in refs))


class Plan(Value, frozen=True, kw_only=True, tag="plan"):
    """Ordered steps: each stands after everything it takes.

    Attributes:
        project: Name of the project.
        steps: The steps, in an order in which they may run one by one.
    """

    project: str
    steps: tuple[Step, ...]

    def step(self, name: str) -> Step:
        """Return the step called `name`.

        Raises:
            KeyError: There is none.
        """
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)
