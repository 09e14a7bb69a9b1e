"""Why a daemon's run was cut off is recorded, whenever the signal comes."""

from __future__ import annotations

import signal

import pytest

from modelyard._kit.stopping import HeldBack, forget
from modelyard.automation.runner import Runner
from modelyard.pipeline.cancel import CutOff


@pytest.mark.parametrize(("number", "why"), [(signal.SIGTERM, CutOff("the daemon was stopped")), (signal.SIGINT, None)])
def test_a_stop_that_was_held_back_is_of_its_own_kind(number: signal.Signals, why: CutOff | None) -> None:
    runner = object.__new__(Runner)
    runner._under_way, runner._told = True, False
    try:
        with pytest.raises(KeyboardInterrupt) as caught, HeldBack():
            runner._interrupted(number, None)
    finally:
        forget()
    assert (type(caught.value), caught.value.args) == ((CutOff, why.args) if why else (KeyboardInterrupt, ()))
