"""The `schedule` section: when runs are due, when they may be at work, and what an hour costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta, field

from modelyard._kit.fields import Duration, Name, Section, Texts

__all__ = ["KINDS", "Schedule", "kinds_of", "names_of"]

# The fields that say when it is due; each schedule has one.
KINDS = ("at", "every", "once", "calendar")


class Schedule(Section, frozen=True, kw_only=True):
    """When runs are due by themselves while `modelyard up` is at work, and when they start."""

    name: Annotated[
        Name | None,
        Meta(
            description="Its name among the triggers. Left out, `schedule`, and `schedule-2` for the second of a list.",
            examples=["nightly"],
        ),
    ] = None
    at: Annotated[
        str | None,
        Meta(
            description="When it is due, as a cron line: minute, hour, day of the month, month, day of the week; or "
            "`@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.",
            examples=["0 3 * * *"],
        ),
    ] = None
    every: Annotated[
        Duration | None,
        Meta(
            description="Interval at which it is due, in real time; one of whole days keeps its time of day. It is "
            "counted from `from`, else from a midnight of the zone (of a Monday).",
            examples=["15m"],
        ),
    ] = None
    once: Annotated[
        str | None,
        Meta(
            description="The one moment at which it is due, by the clocks of the zone unless it has an offset.",
            examples=["2026-12-01T03:00"],
        ),
    ] = None
    calendar: Annotated[
        str | None,
        Meta(
            description="Day and time in words: `last day`, `last weekday`, `first monday`, `3rd friday`, `15th`, "
            "`nearest weekday to the 15th`, `quarter end`, `every monday`; `of jan, jul`; a time, else midnight.",
            examples=["last weekday 18:00", "first monday of jan, apr, jul, oct 06:00"],
        ),
    ] = None
    from_: Annotated[
        str | None,
        Meta(
            description="Moment before which nothing is due; an interval is counted from it. Left out, there is none.",
            examples=["2026-12-01T00:00"],
        ),
    ] = field(name="from", default=None)
    zone: Annotated[
        str,
        Meta(
            description="Time zone whose clocks all times of this section are read by, as the IANA database names it.",
            examples=["Europe/Berlin"],
        ),
    ] = "UTC"
    skip: Annotated[
        Texts,
        Meta(
            description="Days on which nothing is due, and which are no weekdays: dates (`2026-12-25`, every year "
            "`12-25`), or files with such a date at the beginning of each line.",
            examples=[["12-25", "holidays.txt"]],
        ),
    ] = ()
    avoid: Annotated[
        Texts,
        Meta(
            description="Windows of the week in which no run starts, or is still at work by what it `takes`: days, "
            "times, or both.",
            examples=["Mon-Fri 08:00-18:00"],
        ),
    ] = ()
    prefer: Annotated[
        Texts,
        Meta(
            description="Windows of the week in which a run is rather at work, where that is possible before the "
            "deadline.",
            examples=["Sat-Sun, 22:00-06:00"],
        ),
    ] = ()
    prices: Annotated[
        str | None,
        Meta(
            description="CSV file with what an hour costs, in money or carbon: `time,EUR/kWh`, the times being "
            "moments, or `Mon 06:00` for every week, or `06:00` for every day. The cheapest start is chosen.",
            examples=["prices.csv"],
        ),
    ] = None
    finish_by: Annotated[
        str | None,
        Meta(
            description="Deadline: a duration after the due time, or a time of day. Left out, a run starts before the "
            "next one is due, within a week.",
            examples=["6h", "07:00"],
        ),
    ] = None
    takes: Annotated[
        Duration | None,
        Meta(
            description="How long a run is expected to take. Left out, nine in ten of the newest runs took no longer; "
            "10 minutes before the first one.",
            examples=["30m"],
        ),
    ] = None
    idle: Annotated[
        bool,
        Meta(
            description="Whether a run waits until the machine is idle (load of less than half a core a core), at the "
            "longest until it must start.",
            examples=[True],
        ),
    ] = False
    catch_up: Annotated[
        Literal["latest", "all", "none"],
        Meta(
            description="What happens with the times that were missed while nothing ran: the `latest` is run, `all` "
            "are run one after another (366 at most), or `none`.",
            examples=["latest"],
        ),
    ] = "latest"
    jitter: Annotated[
        Duration | None,
        Meta(
            description="Starts are put off by up to so much, each by its own and always the same amount. Left out, "
            "not at all.",
            examples=["2m"],
        ),
    ] = None
    owner: Annotated[
        str | None,
        Meta(description="Who answers for it, as the board of triggers shows. Left out, nobody.", examples=["credit"]),
    ] = None


def kinds_of(schedule: Schedule) -> list[str]:
    """Return which of `at`, `every`, `once` and `calendar` a schedule has."""
    return [name for name in KINDS if getattr(schedule, name) is not None]


def names_of(schedules: Sequence[Schedule]) -> list[str]:
    """Return the name of each schedule, as it stands or by its place."""
    return [one.name or ("schedule" if n == 1 else f"schedule-{n}") for n, one in enumerate(schedules, 1)]
