"""Turn the recorded failure of a step back into the error that the command ends with."""

from __future__ import annotations

from modelyard._kit.errors import Busy, CheckFailed, Denied, ModelyardError, Refused, Stale, StepFailed, UserError
from modelyard.pipeline.execute import Failure
from modelyard.records import Step

__all__ = ["error_of"]

_ERRORS: dict[int, type[ModelyardError]] = {
    1: Refused,
    2: UserError,
    3: StepFailed,
    4: Busy,
    5: Denied,
}


def error_of(step: Step, failure: Failure) -> ModelyardError:
    """Return the error to raise for a failed step; its trace is in the notes."""
    kind = CheckFailed if failure.code == "check-failed" else _ERRORS.get(failure.exit_code, StepFailed)
    if failure.stale:
        kind = Stale
    where = failure.where or f"step `{step.name}`"
    error = kind(failure.code, failure.message, where=where, hint=failure.hint)
    error.__notes__ = [failure.trace]
    return error
