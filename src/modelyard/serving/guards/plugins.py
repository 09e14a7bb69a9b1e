"""Find the check that the file names: built in, brought by an installed package, or a function of the project.

Nothing else is ever loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

from modelyard._kit.errors import ServeError, near
from modelyard._kit.usercode import Neighbours, importable, module_of
from modelyard.inference import Bundle
from modelyard.serving.guards.base import ENTRY_POINTS, Check
from modelyard.serving.guards.policy import OutputCheck
from modelyard.serving.guards.rules import BUILT_IN, built_in

__all__ = ["check_of", "named"]


def named() -> list[str]:
    """Return the names of checks that there are, built-in ones first; none is loaded."""
    return [*BUILT_IN, *sorted({point.name for point in entry_points(group=ENTRY_POINTS)} - BUILT_IN.keys())]


def check_of(declared: OutputCheck, project: Path, bundle: Bundle) -> Check:
    """Return a check, ready to be called with a batch.

    Args:
        declared: What is declared.
        project: Folder that paths begin at.
        bundle: The model whose answers it looks at.

    Raises:
        ServeError: There is none, it cannot be loaded, or it does not suit the model (`guard-unusable`).
    """
    if ":" in declared.use:
        file, _, function = declared.use.rpartition(":")
        found = _own((project / Path(file).expanduser()).resolve(), function, project)
    elif declared.use in BUILT_IN:
        return built_in(declared.use, declared.params).made(bundle)
    else:
        found = _brought(declared.use)
    return partial(found, **declared.params) if declared.params else found


@lru_cache(maxsize=64)
def _own(file: Path, function: str, project: Path) -> Check:
    """Return a function of the project; a file is run once in a process, whatever versions of a model come by."""
    try:
        with importable(Neighbours.of(file, project)):
            found = getattr(_module(file), function)
    except Exception as error:
        raise _unloaded(f"{file.name}:{function}", error, "mend the file, and start the server again") from error
    return _callable(found, f"{file.name}:{function}")


_module = lru_cache(maxsize=64)(module_of)


def _brought(name: str) -> Check:
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in points:
        close = near(name, named())
        hint = f"did you mean `{close[0]}`?" if close else f"there is: {', '.join(named())}"
        raise ServeError("guard-unusable", f"there is no check `{name}` of answers", hint=hint)
    try:
        found = points[name].load()
    except Exception as error:
        raise _unloaded(name, error, "mend the package that brings it, or install it again") from error
    return _callable(found, name)


def _callable(found: Any, name: str) -> Check:
    if not callable(found):
        raise ServeError("guard-unusable", f"the check `{name}` is no function", hint="name a function of a batch")
    return cast("Callable[..., Any]", found)


def _unloaded(name: str, error: Exception, hint: str) -> ServeError:
    what = f"the check `{name}` cannot be loaded: {type(error).__name__}: {error}"
    return ServeError("guard-unusable", what, hint=hint)
