"""Steps that run once a partition: an hour, a day, a week, a month, or one of a list of values.

A partitioned step `clean` stands in a plan as `clean@2026-11-20`, once a partition, so that each has its own key, table
and record. Steps that take from it and are partitioned alike take the same partition.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from modelyard._kit.errors import UserError
from modelyard._kit.periods import EVERY, bounds, first_of, last_of, newest_complete, periods
from modelyard.records import Step

__all__ = ["MARK", "MOST", "PARAMETER", "Partition", "base_name", "current", "expand", "newest", "requested", "starts"]

# Between the name of a step and that of its partition.
MARK = "@"
# Parameter of a function that takes the name of its partition.
PARAMETER = "partition"
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
# More than these in one go is a mistake in the range, not a wish.
MOST = 10_000


class Partition(msgspec.Struct, frozen=True):
    """What a step is run for, one by one.

    Attributes:
        every: `hourly`, `daily`, `weekly` or `monthly`; empty where `values` are given.
        start: Name of the first period; empty: there is no first.
        values: The partitions themselves; empty for periods.
    """

    every: str = ""
    start: str = ""
    values: tuple[str, ...] = ()

    @classmethod
    def of(cls, every: str = "", start: str = "", values: Sequence[str] = ()) -> Partition:
        """Return a partition as it is written.

        Raises:
            ValueError: It is neither periods nor values, or both, or one of them cannot be read.
        """
        values = tuple(values)
        if bool(every) == bool(values) or (values and start):
            raise ValueError("either `every` or `values`")
        if values and (len(set(values)) < len(values) or not all(_VALUE.fullmatch(str(v)) for v in values)):
            raise ValueError(values)
        if every and every not in EVERY:
            raise ValueError(every)
        return cls(every, first_of(every, str(start)) if start else "", tuple(map(str, values)))

    def alike(self, other: Partition | None) -> bool:
        """Say whether each of the partitions is one of the other's too, whatever their starts."""
        return other is not None and (self.every, self.values) == (other.every, other.values)


def base_name(step: str) -> str:
    """Return the name of a step without its partition."""
    return step.partition(MARK)[0]


def starts(steps: Sequence[Step], partitions: Mapping[str, Partition]) -> dict[str, str]:
    """Return the first period of each partitioned step: none begins before what it takes.

    Args:
        steps: Steps in an order in which they may run, by their bare names.
        partitions: Name of a step -> what it is partitioned by.
    """
    found: dict[str, str] = {}
    for step in steps:
        if (own := partitions.get(step.name)) is not None:
            above = [found[name] for name in step.upstream if name in found and own.alike(partitions[name])]
            found[step.name] = max([own.start, *above])
    return found


def newest(steps: Sequence[Step], partitions: Mapping[str, Partition], now: float) -> list[Step]:
    """Return the steps of a normal run: of each partitioned one its newest complete period, or all values.

    Args:
        steps: Steps in an order in which they may run, by their bare names.
        partitions: Name of a step -> what it is partitioned by.
        now: Seconds since 1970 UTC.

    Raises:
        UserError: No period of a step has ended yet (`partition-none`).
    """
    keys = current(steps, partitions, now)
    return expand(steps, partitions, keys, keys)


def current(
    steps: Sequence[Step], partitions: Mapping[str, Partition], now: float, *, needed: bool = True
) -> dict[str, list[str]]:
    """Return of each partitioned step its newest complete period, or all its values.

    Args:
        steps: Steps in an order in which they may run, by their bare names.
        partitions: Name of a step -> what it is partitioned by.
        now: Seconds since 1970 UTC.
        needed: Refuse a step without a complete period; else it has none.

    Raises:
        UserError: No period of a step has ended yet (`partition-none`).
    """
    first = starts(steps, partitions)
    return {name: _newest(p, first[name], now, name, needed=needed) for name, p in partitions.items()}


def _newest(partition: Partition, start: str, now: float, name: str, *, needed: bool) -> list[str]:
    if partition.values:
        return list(partition.values)
    latest = newest_complete(partition.every, now)
    if latest < start:
        if not needed:
            return []
        ends = bounds(partition.every, start)[1]
        raise UserError(
            "partition-none",
            f"no partition of step `{name}` is complete yet: the first, {start}, ends at {ends:%Y-%m-%d %H:%M} UTC",
            where=f"step `{name}`",
            hint="wait, or let it start earlier",
        )
    return [latest]


def requested(partition: Partition, start: str, first: str, last: str, now: float, name: str) -> list[str]:
    """Return the partitions of a range that somebody asks for.

    Args:
        partition: Of the step.
        start: Its first period.
        first: Where the range begins, e.g. `2026-01-01` or `2026-01`; empty: at the start.
        last: Where it ends, included; empty: at the newest complete period.
        now: Seconds since 1970 UTC.
        name: Name of the step, for errors.

    Raises:
        UserError: The range cannot be used (`partition-range`).
    """
    if partition.values:
        if first or last:
            raise _bad(name, f"is partitioned by values ({', '.join(partition.values)})", "leave --from and --to out")
        return list(partition.values)
    latest = newest_complete(partition.every, now)
    if not first and not start:
        raise _bad(name, "has no `start`", "say from when with --from, or give its `partition` a `start`")
    begin = _read(name, "--from", first, partition.every) if first else start
    end = _read(name, "--to", last, partition.every) if last else latest
    if begin > end:
        raise _bad(
            name, f"has no partition from {first or start} to {last or latest}", "give the earlier one to --from"
        )
    if begin < start:
        raise _bad(name, f"starts at {start}, and {begin} is before it", f"give --from {start} or later")
    if end > latest:
        raise _bad(name, f"has no complete partition after {latest}, and --to is {end}", f"give --to {latest}")
    found = list(periods(partition.every, begin, end))
    if len(found) > MOST:
        raise _bad(name, f"has {len(found):,} partitions from {begin} to {end}", f"ask for at most {MOST:,} at once")
    return found


def _read(name: str, option: str, text: str, every: str) -> str:
    try:
        return (first_of if option == "--from" else last_of)(every, text)
    except (ValueError, OverflowError):
        raise _bad(
            name,
            f"cannot be run for {option} `{text}`",
            "give a day, a month or an hour: 2026-11-20, 2026-11, 2026-11-20T13",
        ) from None


def _bad(name: str, message: str, hint: str) -> UserError:
    return UserError("partition-range", f"step `{name}` {message}", where=f"step `{name}`", hint=hint)


def expand(
    steps: Sequence[Step],
    partitions: Mapping[str, Partition],
    wanted: Mapping[str, Sequence[str]],
    recent: Mapping[str, Sequence[str]],
) -> list[Step]:
    """Return the steps with each partitioned one once a partition.

    A step that is not partitioned takes the newest period of one that is, or the list of all its values.

    Args:
        steps: Steps in an order in which they may run, by their bare names.
        partitions: Name of a step -> what it is partitioned by.
        wanted: Name of a partitioned step -> the partitions to run; one left out does not run.
        recent: Name of a partitioned step -> what a step takes of it that is not partitioned.
    """
    done: list[Step] = []
    for step in steps:
        own = partitions.get(step.name)
        if own is None:
            done.append(_joined(step, partitions, recent))
            continue
        alike = {name for name in step.upstream if own.alike(partitions.get(name))}
        for key in wanted.get(step.name, ()):
            one = _joined(step, {n: p for n, p in partitions.items() if n not in alike}, recent)
            done.append(
                msgspec.structs.replace(
                    one,
                    name=f"{step.name}{MARK}{key}",
                    inputs={name: _of_partition(ref, alike, key) for name, ref in one.inputs.items()},
                    after=tuple(f"{name}{MARK}{key}" if name in alike else name for name in one.after),
                    params={**step.params, PARAMETER: key},
                )
            )
    return done


def _of_partition(ref: str | list[str], alike: set[str], key: str) -> str | list[str]:
    if isinstance(ref, list):
        return [str(_of_partition(one, alike, key)) for one in ref]
    name, mark, output = ref.partition("#")
    return f"{name}{MARK}{key}{mark}{output}" if name in alike else ref


def _joined(step: Step, partitions: Mapping[str, Partition], recent: Mapping[str, Sequence[str]]) -> Step:
    """Let a step take the partitions of what it takes: the newest period, or each value."""
    inputs: dict[str, str | list[str]] = {}
    for parameter, ref in step.inputs.items():
        many = [found for one in ([ref] if isinstance(ref, str) else ref) for found in _parts(one, partitions, recent)]
        by_value = isinstance(ref, str) and (p := partitions.get(ref.partition("#")[0])) is not None and p.values
        inputs[parameter] = many if isinstance(ref, list) or by_value else many[0]
    after = tuple(found for name in step.after for found in _parts(name, partitions, recent))
    return msgspec.structs.replace(step, inputs=inputs, after=after)


def _parts(ref: str, partitions: Mapping[str, Partition], recent: Mapping[str, Sequence[str]]) -> list[str]:
    name, mark, output = ref.partition("#")
    own = partitions.get(name)
    if own is None:
        return [ref]
    keys = list(recent[name])
    return [f"{name}{MARK}{key}{mark}{output}" for key in (keys if own.values else keys[-1:])]
