"""The `cost` section: what the machine costs, and how much of it may be spent."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from modelyard._kit.fields import Section

__all__ = ["Cost", "PriceTable"]

_Amount = Annotated[float, Meta(ge=0)]


class PriceTable(Section, frozen=True, kw_only=True):
    """What the machine costs, by what is used of it; the kernel's own accounting says how much that was."""

    cpu_hour: Annotated[_Amount, Meta(description="Of one core for an hour.", examples=[0.04])] = 0.0
    gb_hour: Annotated[
        _Amount, Meta(description="Of 10^9 bytes of memory for an hour, while they are held.", examples=[0.005])
    ] = 0.0
    gpu_hour: Annotated[_Amount, Meta(description="Of one GPU for an hour, while it is leased.", examples=[2.5])] = 0.0
    gb_read: Annotated[_Amount, Meta(description="Of 10^9 bytes read from disks.", examples=[0.01])] = 0.0
    gb_written: Annotated[_Amount, Meta(description="Of 10^9 bytes written to disks.", examples=[0.01])] = 0.0


class Cost(Section, frozen=True, kw_only=True):
    """What runs cost, and what they may cost."""

    currency: Annotated[
        str,
        Meta(
            description="What the prices are in: the three letters of ISO 4217, or a unit like `gCO2` for a table of "
            "carbon.",
            examples=["EUR"],
            pattern=r"^[A-Za-z0-9]{1,8}\Z",
            extra_json_schema={"say": "one to eight letters and digits"},
        ),
    ] = "EUR"
    prices: Annotated[
        PriceTable,
        Meta(
            description="What the machine costs. A run keeps the prices it was started with, so that a new table does "
            "not change what was.",
            examples=[{"cpu_hour": 0.04, "gb_hour": 0.005}],
        ),
    ] = PriceTable()
    per_run: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(
            description="What one run may cost; past it the run is stopped, and its finished steps are kept. Left out, "
            "there is no limit.",
            examples=[5.0],
        ),
    ] = None
    per_month: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(
            description="What all runs of a calendar month (UTC) may cost together. Left out, there is no limit.",
            examples=[100.0],
        ),
    ] = None
