"""What is called when `modelyard` is typed: Ctrl-C ends it at once, and quietly, until the verb is at work.

Python's own handler raises `KeyboardInterrupt` wherever it comes. While modules are loaded that gives a trace that says
nothing, or breaks native code that is half set up. So it is taken away before anything else is loaded, and put back
right before the verb is run. Who imports Modelyard keeps what they have: only the call does this.
"""

from __future__ import annotations

# `signal` takes long enough to load to be interrupted meanwhile.
import _signal  # type: ignore[import-not-found]

__all__ = ["main"]


def main() -> int:
    """Run the command line of this process, and return its exit code."""
    # A caller who has Ctrl-C ignored, or handled, wants it so.
    ours = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
    if ours:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

    def ready() -> None:
        if ours:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)

    from modelyard.cli.main import main as run

    return run(ready=ready)
