"""Have triggers look at the world when they are due or woken, and write down what they find."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec

from modelyard._kit.clock import Clock, as_text
from modelyard._kit.errors import ModelyardError
from modelyard.automation.apart import apart, pause
from modelyard.automation.base import Look, Trigger
from modelyard.automation.fires import write
from modelyard.automation.notes import Say, note
from modelyard.automation.state import TriggerState
from modelyard.records import Fire
from modelyard.store import Store

__all__ = ["Looker"]

# Real seconds after which the time is looked at anew: a clock that was set, or a machine that slept, moves what is due.
_ANEW = 20.0
# Real seconds between two looks, at least.
_REST = 0.02


class Looker:
    """Looks after one trigger.

    Args:
        trigger: It.
        store: Where its fires go.
        say: Takes what happens.
        project: Name of the project.
        fired: Called in the loop's thread when there are new fires.
        clock: Source of the time.
        pace: Seconds of that clock in one real second.
    """

    def __init__(
        self,
        trigger: Trigger,
        store: Store,
        say: Say,
        *,
        project: str,
        fired: Callable[[], None],
        clock: Clock,
        pace: float = 1.0,
    ) -> None:
        self._trigger = trigger
        self._store = store
        self._say = say
        self._project = project
        self._fired = fired
        self._clock = clock
        self._pace = pace
        self._woken = asyncio.Event()
        self._failures = 0
        self.state = TriggerState(name=trigger.name, kind=trigger.kind)

    async def keep(self) -> None:
        """Look, again and again, until cancelled."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._woken.set)

        started = False
        try:
            while True:
                self._woken.clear()
                try:
                    if not started:
                        await apart(lambda: self._trigger.start(wake))
                        started = True
                    again = self._looked(*await apart(self._look))
                except Exception as error:  # noqa: BLE001 - a source may raise anything; the board shows it
                    again = self._failed(error)
                await self._until(again)
        finally:
            self._trigger.close()

    def _look(self) -> tuple[float, Look, list[Fire]]:
        now = self._clock()
        look = self._trigger.look(now)
        return now, look, write(self._trigger, look, self._store)

    def _looked(self, now: float, look: Look, new: list[Fire]) -> float:
        self._failures = 0
        again = look.again if look.again != float("inf") else 0.0
        self.state = msgspec.structs.replace(self.state, looked=now, again=again, error="", failing=0.0)
        for fire in new:
            what = f"dropped: {fire.why}" if fire.state == "dropped" else f"due {as_text(fire.due)}"
            self._tell("fire", f"{fire.trigger}: {what}", fire=fire.id, state=fire.state)
        if new:
            self._fired()
        return look.again

    def _failed(self, error: Exception) -> float:
        """Keep why the look failed, say it when it is new, and return when to try again."""
        self._failures += 1
        text = error.problem.message if isinstance(error, ModelyardError) else f"{type(error).__name__}: {error}"
        now = self._clock()
        if self.state.error != text:
            self._tell("trigger", f"{self.state.name} cannot look: {text}")
        again = now + pause(self._failures) * self._pace
        self.state = msgspec.structs.replace(
            self.state, looked=now, again=again, error=text, failing=self.state.failing or now
        )
        return again

    async def _until(self, again: float) -> None:
        # A trigger that always wants to look at once must not keep everybody else from their turn.
        await asyncio.sleep(_REST)
        while (left := (again - self._clock()) / self._pace) > 0:
            try:
                async with asyncio.timeout(min(left, _ANEW)):
                    await self._woken.wait()
            except TimeoutError:
                continue
            return

    def _tell(self, what: str, text: str, **more: Any) -> None:
        self._say(note(what, text, name=self.state.name, project=self._project, **more))
