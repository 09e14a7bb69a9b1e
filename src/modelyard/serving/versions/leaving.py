"""Versions that have been replaced: closed once nothing of them is under way, and their memory given back."""

from __future__ import annotations

import asyncio
import gc
from collections import deque

from modelyard._kit.memory import give_back
from modelyard.serving.models import Models
from modelyard.serving.service import Service

__all__ = ["Leaving"]

# Seconds between two looks whether a version that was replaced has answered all that it took.
_EVERY = 0.05


class Leaving:
    """Lets go of versions of one endpoint.

    They were made in a thread and are closed there: what one thread takes from the allocator and another gives back
    leaves holes, and to free a large model takes longer than an answer may.

    Args:
        models: The models at work.

    Attributes:
        gone: Versions that nobody asks any more, and that are to be closed.
    """

    def __init__(self, models: Models) -> None:
        self._models = models
        self.gone: deque[Service] = deque()

    def retire(self, service: Service) -> None:
        """Let go of a version once nothing of it is under way; one that came back stays. To be called in the loop."""
        models = self._models
        trial = models.rollout
        if models.known(models.name) is service or (trial is not None and trial.challenger is service):
            return
        if service.in_flight:
            asyncio.get_running_loop().call_later(_EVERY, self.retire, service)
            return
        service.closed = True
        models.drop(service)
        self.gone.append(service)

    def close(self) -> None:
        """Close the versions that are gone, and let go of the memory that they took. To be called in the thread."""
        if self.gone:
            while self.gone:
                self.gone.popleft().close()
            # The types that rows are read into are circles.
            gc.collect()
            give_back()
