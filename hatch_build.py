"""Compile `src/kernels` where that can be done; where it cannot, say why and leave the pure Python form.

Every build of a wheel and every editable install comes here through hatchling; `python hatch_build.py` compiles again.
Only the last two touch the tree: it may be in use where somebody makes a wheel of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from textwrap import shorten
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

NAME = "modelyard.inference._kernels"
FILE = "modelyard/inference/_kernels.abi3.so"
SWITCH = "MODELYARD_BUILD_KERNELS"
# One file for CPython 3.11 and all later ones: it uses nothing but the stable interface of that version.
TAG, LIMITED_API = "cp311-abi3", "0x030B0000"
# A product and a sum are rounded one after the other on every machine, so that both forms give the same bits; and no
# folder's name is left in the file (-g0), so that equal sources give equal wheels.
FLAGS = ["-O3", "-ffp-contract=off", "-fvisibility=hidden", "-g0", "-Wall", "-Wextra"]


class Kernels(BuildHookInterface[Any]):
    """Put the compiled kernels into the wheel, or beside their Python where the install is editable."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and tell hatchling what wheel that makes."""
        root = Path(self.root)
        if version == "editable":
            compiled = build(root)
        else:
            # Kept until hatchling has packed it.
            self._folder = tempfile.TemporaryDirectory()
            made = Path(self._folder.name, "kernels.so")
            compiled = _told(_made(root, made))
            if compiled:
                build_data["force_include"][str(made)] = FILE
        if compiled:
            # The names that promise an old C library are for those who have looked whether it is so (auditwheel).
            platform = next(tag for tag in platform_tags() if not tag.startswith(("manylinux", "musllinux")))
            build_data["pure_python"] = False
            build_data["tag"] = f"{TAG}-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what is in the wheel by now."""
        if version != "editable":
            self._folder.cleanup()


def build(root: Path) -> bool:
    """Compile into the tree; where that is not done, say why in one line and leave no older build in place.

    Raises:
        SystemExit: It must be done (`MODELYARD_BUILD_KERNELS=must`) and cannot; or that variable holds another word.
    """
    place = root / "src" / FILE
    said = _made(root, place)
    if said:
        try:
            place.unlink(missing_ok=True)
        except OSError as error:
            print(f"modelyard: an earlier build stays in place: {error}", file=sys.stderr)
    return _told(said)


def _made(root: Path, place: Path) -> str:
    """Compile into a file; where that is not done, return why."""
    wish = os.environ.get(SWITCH, "")
    if wish not in ("", "no", "must"):
        sys.exit(f"modelyard: {SWITCH} is `no`, `must` or empty, not `{wish}`")
    sources = sorted(root.glob("src/kernels/*.c"))
    return f"{SWITCH}=no" if wish == "no" else _unfit(sources) or _compile(root, sources, place)


def _told(said: str) -> bool:
    """Whether it was compiled; where it was not, say why in one line."""
    if not said:
        return True
    if os.environ.get(SWITCH) == "must":
        sys.exit(f"modelyard: the kernels are not compiled: {said}")
    lines = said.splitlines()
    why = shorten(next((line for line in lines if "error:" in line), lines[-1]), 200)
    print(f"modelyard: the kernels are not compiled, the pure Python form is used: {why}", file=sys.stderr)
    return False


def _unfit(sources: list[Path]) -> str:
    """Say why there is nothing to compile here."""
    if not sources:
        return "src/kernels holds no C"
    if sys.implementation.name != "cpython" or os.name != "posix":
        return f"they are for CPython on POSIX, not for {sys.implementation.name} on {sys.platform}"
    if sys.byteorder != "little":
        return "they take arrays as bundles hold them, with the lowest byte first"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "a free-threaded Python has no stable interface"
    return ""


def _compile(root: Path, sources: list[Path], place: Path) -> str:
    """Compile into a file; where that fails, return all that was said."""
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own, because the compiler writes its mistakes past Python, where they could not be read.
        command = [sys.executable, __file__, folder, *map(str, sources)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        said = done.stdout.replace(f"{root}/", "").strip()
        if done.returncode:
            return said or f"error: ended with {done.returncode}"
        if said:
            print(said, file=sys.stderr)  # warnings
        try:
            # Renamed and never written over: a process may be running from the older one.
            new = shutil.copy(Path(folder, *NAME.split(".")).with_suffix(".abi3.so"), place.with_suffix(".new"))
            Path(new).replace(place)
        except OSError as error:
            return f"error: {error}"
    return ""


def _compile_here(folder: str, *sources: str) -> None:
    """Compile with setuptools, which knows how the extensions of this Python are made."""
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    macros: list[tuple[str, str | None]] = [("Py_LIMITED_API", LIMITED_API)]
    module = Extension(NAME, [*sources], define_macros=macros, extra_compile_args=FLAGS, py_limited_api=True)
    command = build_ext(Distribution({"ext_modules": [module]}))
    command.build_lib = command.build_temp = folder
    command.ensure_finalized()
    try:
        command.run()
        # What cannot be loaded is as good as not compiled: a function that is nowhere is missed no sooner.
        (made,) = command.get_outputs()
        loader = ExtensionFileLoader(NAME, made)
        loader.exec_module(module_from_spec(ModuleSpec(NAME, loader, origin=made)))
    except Exception as error:  # noqa: BLE001 - whatever a compiler that we do not know may do
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    if sys.argv[1:]:
        _compile_here(*sys.argv[1:])
    else:
        build(Path(__file__).resolve().parent)
