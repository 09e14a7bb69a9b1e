"""Which GPUs this machine has."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from modelyard._kit.errors import UserError

__all__ = ["VARIABLE", "inventory", "missing"]

# A number of GPUs, or their names: for tests, and where they can't be counted. 0 hides those that are there.
VARIABLE = "MODELYARD_GPUS"
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_DRIVER = Path("/proc/driver/nvidia/gpus")
# One of these is there wherever the driver is: on Linux, and in Linux on Windows.
_DEVICES = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg")


def inventory(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them.

    Args:
        environ: The environment.

    Raises:
        UserError: `MODELYARD_GPUS` is neither a number nor a list of names.
    """
    given = environ.get(VARIABLE, "").strip()
    if given.isdecimal():
        return tuple(map(str, range(int(given))))
    if given:
        names = tuple(name.strip() for name in given.split(","))
        if not all(map(_NAME.fullmatch, names)) or len(set(names)) < len(names):
            raise UserError(
                "machine-gpus",
                f"{VARIABLE} is `{given}`",
                hint="give how many there are, e.g. 8, or their names, e.g. 0,1,4",
            )
        return names
    present = _present()
    if _VISIBLE not in environ:
        return present
    # As CUDA does: what follows a name that is not there does not count.
    chosen = []
    for name in map(str.strip, environ[_VISIBLE].split(",")):
        found = present[int(name)] if name.isdecimal() and int(name) < len(present) else _named(name, present)
        if not found:
            break
        chosen.append(found)
    return tuple(dict.fromkeys(chosen))


def missing() -> str:
    """Say why GPUs that are there can't be leased, in half a sentence; empty if nothing is wrong."""
    if _DRIVER.is_dir() and any(_DRIVER.iterdir()) and not _present():
        return "GPUs are there, but can't be counted: pip install 'modelyard[gpu]'"
    return ""


def _named(name: str, present: tuple[str, ...]) -> str:
    return next((uuid for uuid in present if name and uuid.startswith(name)), "")


@cache
def _present() -> tuple[str, ...]:
    """Return the UUIDs of the GPUs in the order of the bus: a number means different devices to different programs."""
    if not any(map(os.path.exists, _DEVICES)):
        return ()  # no driver: the library, which takes 50 ms to import, would say no more
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()  # no driver, no GPUs
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return tuple(_text(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles)
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
