"""What the verbs share that start a server of their own and ask it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from modelyard._kit.errors import UserError

if TYPE_CHECKING:
    from modelyard.inference import Bundle
    from modelyard.store import Store

__all__ = ["in_loop", "rows_of"]

T = TypeVar("T")

# Rows of a table at most.
_MOST = 20_000


def rows_of(table: str, bundle: Bundle, store: Store, *, count: int, seed: int) -> list[dict[str, Any]]:
    """Return rows to send: those of a table, or so many that are drawn as in training.

    Raises:
        UserError: The table has no row, or lacks a column (`loadtest-rows`).
    """
    if not table:
        from modelyard.serving.load.requests import drawn

        return drawn(bundle.signature, bundle.profile, count, seed=seed)
    from modelyard.pipeline.scoring import open_rows

    names = [feature.name for feature in bundle.signature.features]
    opened = open_rows(table, bundle.signature, store=store)
    missing = [name for name in names if name not in opened.columns]
    frame = next(opened.read(0, _MOST), None) if not missing else None
    if frame is None or not frame.height:
        what = f"no column `{missing[0]}`" if missing else "no row"
        raise UserError("loadtest-rows", f"`{table}` has {what}", hint=f"the model takes {', '.join(names)}")
    rows: list[dict[str, Any]] = frame.select(names).head(_MOST).to_dicts()
    return rows


def in_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run in the fastest loop there is; SIGTERM ends it as politely as Ctrl-C does."""

    async def until_told() -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we run in one
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        import uvloop
    except ImportError:  # not on every system
        run: Callable[..., T] = asyncio.run
    else:
        run = uvloop.run
    try:
        return run(until_told())
    except asyncio.CancelledError:
        raise KeyboardInterrupt(signal.SIGTERM.name) from None
