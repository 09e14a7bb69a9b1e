"""What may be said of a function as a step: `@modelyard.step` marks it, `Flow.step` and `steps:` honour that."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, overload

import msgspec

from modelyard._kit.errors import UserError, near
from modelyard._kit.fields import parse_duration, parse_size
from modelyard.pipeline.partitions import Partition
from modelyard.records import Resources, Retry

__all__ = ["Settings", "said_of", "settings_of", "step"]

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__modelyard_step__"
_SETTINGS = ("name", "outputs", "retries", "timeout", "cpus", "memory", "gpus", "own_process", "network", "partition")
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What was said of a step; none where nothing was.

    Attributes:
        name: Its name.
        outputs: Names of what it returns.
        retry: What is done when it fails.
        timeout: Seconds after which an attempt is stopped.
        cpus: Cores that it may use at once.
        memory: Bytes that it may hold.
        gpus: GPUs that it has for itself.
        own_process: Whether it runs in a process of its own.
        network: Whether it may use the network.
        partition: What it is run for, one by one.
    """

    name: str | None = None
    outputs: tuple[str, ...] | None = None
    retry: Retry | None = None
    timeout: float | None = None
    cpus: float | None = None
    memory: int | None = None
    gpus: int | None = None
    own_process: bool | None = None
    network: bool | None = None
    partition: Partition | None = None

    def over(self, other: Settings) -> Settings:
        """Return these settings, and the other's where nothing is said here."""
        said = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(other, **said)

    def resources(self) -> Resources:
        """Return what is asked of the machine."""
        asked = {name: getattr(self, name) for name in Resources.__struct_fields__}
        return Resources(**{name: value for name, value in asked.items() if value is not None})


@overload
def step(function: F, /) -> F: ...


@overload
def step(
    *,
    name: str | None = None,
    outputs: Sequence[str] | str | None = None,
    retries: int | Mapping[str, Any] | Retry | None = None,
    timeout: float | str | None = None,
    cpus: float | None = None,
    memory: int | str | None = None,
    gpus: int | None = None,
    own_process: bool | None = None,
    network: bool | None = None,
    partition: str | Sequence[str] | Mapping[str, Any] | Partition | None = None,
) -> Callable[[F], F]: ...


def step(function: Any = None, /, **said: Any) -> Any:
    """Mark a plain function with how it runs as a step; it stays the plain function that it is.

    `Flow.step` and the file's `steps:` honour the mark; what they say themselves wins. For the file, values must be
    plain literals, since it is read without running yours.

    Args:
        function: The function, where nothing is said of it.
        **said: `name`: name of the step (in the file, its key there is the name). `outputs`: names of what it returns.
            `retries`: attempts after the first, or a dict as in the file. `timeout`: seconds, or a text like `10m`.
            `cpus`, `gpus`: how many. `memory`: bytes, or a text like `2GB`. `own_process`: run it in a process of its
            own. `network`: let it use the network. `partition`: `hourly`, `daily`, `weekly`, `monthly`, a list of
            values, or a dict as in the file.

    Raises:
        UserError: A setting cannot be used (`step-setting`).

    Examples:
        >>> @step(retries=5, timeout="10m", memory="2GB")
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> double(2)
        4
    """

    def mark(marked: F) -> F:
        setattr(marked, _MARK, settings_of(f"`{marked.__qualname__}`", said))
        return marked

    return mark if function is None else mark(function)


def said_of(function: Callable[..., Any]) -> Settings:
    """Return what `@modelyard.step` says of a function."""
    found = getattr(function, _MARK, None)
    return found if isinstance(found, Settings) else Settings()


def settings_of(where: str, said: Mapping[str, Any]) -> Settings:
    """Return settings as they were written in Python.

    Args:
        where: Where they stand, for errors.
        said: Keyword -> value, as `step` takes them.

    Raises:
        UserError: There is no such setting, or its value cannot be used (`step-setting`).
    """
    for keyword in said:
        if keyword not in _SETTINGS:
            close = near(keyword, _SETTINGS)
            hint = f"did you mean `{close[0]}`?" if close else f"there is: {', '.join(_SETTINGS)}"
            raise UserError("step-setting", f"`{keyword}` is not a setting of a step", where=where, hint=hint)
    name, outputs, cpus, gpus = (said.get(keyword) for keyword in ("name", "outputs", "cpus", "gpus"))
    own_process, network = said.get("own_process"), said.get("network")
    _hold(where, "name", name, isinstance(name, str) and bool(name), "a text")
    names = (outputs,) if isinstance(outputs, str) else outputs
    texts = isinstance(names, list | tuple) and bool(names) and all(isinstance(n, str) for n in names)
    _hold(where, "outputs", outputs, texts, "names")
    _hold(where, "cpus", cpus, isinstance(cpus, int | float) and not isinstance(cpus, bool) and cpus > 0, "more than 0")
    _hold(where, "gpus", gpus, type(gpus) is int and gpus >= 0, "0 or more")
    _hold(where, "own_process", own_process, isinstance(own_process, bool), "`True` or `False`")
    _hold(where, "network", network, isinstance(network, bool), "`True` or `False`")
    return Settings(
        name=name,
        outputs=None if names is None else tuple(names),
        retry=_retry(where, said.get("retries")),
        timeout=_measured(where, "timeout", said.get("timeout"), parse_duration, "seconds, or a text like `10m`"),
        cpus=cpus,
        memory=_bytes(where, "memory", said.get("memory")),
        gpus=gpus,
        own_process=own_process,
        network=network,
        partition=_partition(where, said.get("partition")),
    )


def _hold(where: str, setting: str, value: Any, holds: bool, takes: str) -> None:
    if value is not None and not holds:
        raise _wrong(where, setting, value, takes)


def _wrong(where: str, setting: str, value: Any, takes: str) -> UserError:
    return UserError(
        "step-setting", f"`{setting}={value!r}` of a step cannot be used", where=where, hint=f"give {takes}"
    )


def _measured(where: str, setting: str, value: Any, parse: Callable[[str], float], takes: str) -> float | None:
    if value is None:
        return None
    try:
        number = parse(value) if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        raise _wrong(where, setting, value, takes) from None
    if isinstance(value, bool) or not 0 < number < float("inf"):
        raise _wrong(where, setting, value, f"more than 0: {takes}")
    return number


def _bytes(where: str, setting: str, value: Any) -> int | None:
    number = _measured(where, setting, value, parse_size, "bytes, or a text like `2GB`")
    return None if number is None else int(number)


def _retry(where: str, given: Any) -> Retry | None:
    if given is None or isinstance(given, Retry):
        return given
    fields = {"times": given} if type(given) is int else given
    takes = "a number of attempts, or a dict with `times`, `wait`, `most`, `memory`, `not_before`"
    if not isinstance(fields, Mapping) or not set(fields) <= set(Retry.__struct_fields__):
        raise _wrong(where, "retries", given, takes)
    times = fields.get("times", 3)
    _hold(where, "retries", given, type(times) is int and 0 <= times <= 100, "0 to 100 attempts")
    not_before: Any = fields.get("not_before", "")
    clock = isinstance(not_before, str) and (not not_before or _CLOCK.fullmatch(not_before) is not None)
    _hold(where, "not_before", not_before, clock, "a time of day: `HH:MM`")
    return Retry(
        times=times,
        wait=_measured(where, "wait", fields.get("wait", 1.0), parse_duration, "seconds, or a text like `2s`") or 0.0,
        most=_measured(where, "most", fields.get("most", 60.0), parse_duration, "seconds, or a text like `1m`") or 0.0,
        memory=_bytes(where, "memory", fields.get("memory")) or 0,
        not_before=not_before,
    )


def _partition(where: str, given: Any) -> Partition | None:
    if given is None or isinstance(given, Partition):
        return given
    takes = "`hourly`, `daily`, `weekly`, `monthly`, a list of values, or a dict with `every` and `start`, or `values`"
    try:
        if isinstance(given, str):
            return Partition.of(every=given)
        if isinstance(given, Mapping):
            return Partition.of(**given)
        return Partition.of(values=given)
    except (TypeError, ValueError):
        raise _wrong(where, "partition", given, takes) from None
