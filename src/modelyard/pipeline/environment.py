"""The environment a step runs in: interpreter, machine type and the libraries Modelyard stands on."""

from __future__ import annotations

import os
import platform
import re
import sys
from functools import cache
from pathlib import Path

import msgspec

from modelyard._kit.digest import digest_of

__all__ = ["Environment", "environment"]

_NAME = re.compile(r"[-_.]+")


class Environment(msgspec.Struct, frozen=True):
    """What may change a result without any change of code, data or parameters.

    Attributes:
        python: Version of the interpreter, e.g. `3.11.7`.
        platform: System and processor, e.g. `linux-x86_64`.
        libraries: Distribution -> version, for Modelyard and everything it requires.
    """

    python: str
    platform: str
    libraries: dict[str, str]

    @property
    def digest(self) -> str:
        """Digest over all of it."""
        return digest_of(self)

    def changes(self, other: Environment) -> list[str]:
        """Say in words what differs in `other`, e.g. `polars 2.1.0 -> 2.2.0`."""
        said = []
        for what in ("python", "platform"):
            a, b = getattr(self, what), getattr(other, what)
            if a != b:
                said.append(f"{what} {a} -> {b}")
        for name in sorted({*self.libraries, *other.libraries}):
            a, b = self.libraries.get(name, "none"), other.libraries.get(name, "none")
            if a != b:
                said.append(f"{name} {a} -> {b}")
        return said


@cache
def environment() -> Environment:
    """Return the environment of this process.

    The versions are read from the names of the `*.dist-info` folders, and the requirements from the head of their
    METADATA: asking `importlib.metadata` for the same costs ten times more at every start.
    """
    installed = _installed()
    wanted = ["modelyard"]
    libraries: dict[str, str] = {}
    while wanted:
        name = wanted.pop()
        if name in libraries or name not in installed:
            continue
        version, folder = installed[name]
        libraries[name] = version
        wanted.extend(_requires(folder))
    return Environment(
        python=platform.python_version(),
        platform=f"{sys.platform}-{platform.machine()}",
        libraries=dict(sorted(libraries.items())),
    )


def _installed() -> dict[str, tuple[str, Path]]:
    found: dict[str, tuple[str, Path]] = {}
    for place in sys.path:
        try:
            entries = list(os.scandir(place or "."))
        except OSError:
            continue  # a path entry may be missing or a zip file
        for entry in entries:
            if entry.name.endswith(".dist-info"):
                name, _, version = entry.name.removesuffix(".dist-info").partition("-")
                found.setdefault(_NAME.sub("-", name).lower(), (version, Path(entry.path)))
    return found


def _requires(folder: Path) -> list[str]:
    names = []
    try:
        with (folder / "METADATA").open(encoding="utf-8") as lines:
            for line in lines:
                if not line.strip():
                    break  # the headers end here, the description begins
                if line.startswith("Requires-Dist:") and "extra ==" not in line:
                    match = re.match(r"[A-Za-z0-9._-]+", line[14:].strip())
                    if match:
                        names.append(_NAME.sub("-", match.group()).lower())
    except OSError:
        return []  # an installation without METADATA requires nothing that we could name
    return names
