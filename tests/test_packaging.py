"""Compiled kernels are in the wheel where they can be compiled; where they cannot, all goes on without, and says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMPILED = "modelyard/inference/_kernels.abi3.so"
SWITCH = "MODELYARD_BUILD_KERNELS"
EARLIER = b"of an earlier build"
HEADER = "#include <Python.h>\nextern int answer;\n"
MODULE = """
#include "module.h"
static int fill(PyObject *module) { return PyModule_AddIntConstant(module, "answer", answer); }
static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_kernels", .m_slots = slots};
PyMODINIT_FUNC PyInit__kernels(void) { return PyModuleDef_Init(&definition); }
"""

_headers = Path(sysconfig.get_path("include"), "Python.h").exists()
compiles = pytest.mark.skipif(
    not (_headers and shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0])),
    reason="no compiler here, or no headers of Python",
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a project that is packed as ours is, with a kernel of a few lines and one left from an earlier build."""
    root = tmp_path / "tree"
    for folder in ("docs", "src/kernels", "src/modelyard/inference"):
        (root / folder).mkdir(parents=True)
    for name in ("pyproject.toml", "hatch_build.py", ".gitignore", "README.md", "LICENSE", "docs/errors.md"):
        shutil.copy(ROOT / name, root / name)
    (root / "src/modelyard/__init__.py").touch()
    (root / "src/modelyard/inference/__init__.py").touch()
    (root / "src/kernels/module.h").write_text(HEADER)
    (root / "src/kernels/module.c").write_text(MODULE)
    (root / "src/kernels/answer.c").write_text("int answer = 42;\n")
    (root / "src" / COMPILED).write_bytes(EARLIER)
    return root


def python(tree: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    own = {"CC", "CFLAGS", "LDFLAGS", "LDSHARED", SWITCH}
    env = {name: value for name, value in os.environ.items() if name not in own} | variables
    return subprocess.run([sys.executable, *words], cwd=tree, env=env, capture_output=True, text=True, check=False)


def packed(tree: Path, kind: str, **variables: str) -> Path:
    done = python(tree, "-m", "hatchling", "build", "-t", kind, **variables)
    assert done.returncode == 0, done.stderr
    (made,) = (tree / "dist").iterdir()
    return made


def lying(tree: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in (tree / "src").rglob("*") if file.is_file()}


def answer(path: Path) -> str:
    """Return what a program finds that has this folder on its path."""
    code = "import modelyard.inference._kernels as k; print(k.answer, k.__file__)"
    done = python(path, "-c", code, PYTHONPATH=str(path))
    assert done.returncode == 0, done.stderr
    number, file = done.stdout.split()
    assert file == str(path / COMPILED)
    return number


@compiles
def test_a_wheel_holds_the_kernels_for_this_python_and_later_ones_and_no_c(tree: Path, tmp_path: Path) -> None:
    wheel = packed(tree, "wheel", **{SWITCH: "must"})
    assert "-cp311-abi3-" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if name.endswith((".c", ".h", ".so", "hatch_build.py"))] == [COMPILED]
    shutil.unpack_archive(wheel, tmp_path / "installed", "zip")
    assert answer(tmp_path / "installed") == "42"


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({SWITCH: "must"}, marks=compiles, id="compiled"),
        pytest.param({SWITCH: "no"}, id="asked for"),
        pytest.param({"CC": "/bin/false"}, id="failing compiler"),
    ],
)
def test_making_a_wheel_leaves_the_tree_as_it_is(tree: Path, variables: dict[str, str]) -> None:
    """An editable install of the same tree is using what lies there."""
    before = lying(tree)
    packed(tree, "wheel", **variables)
    assert lying(tree) == before


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_what_lies_in_the_tree_is_never_packed_also_where_git_does_not_say_so(tree: Path, kind: str) -> None:
    (tree / ".gitignore").unlink()
    (tree / "src" / COMPILED).with_suffix(".new").write_bytes(EARLIER)
    made = packed(tree, kind, **{SWITCH: "no"})
    if kind == "wheel":
        shutil.unpack_archive(made, tree / "unpacked", "zip")
    else:
        shutil.unpack_archive(made, tree / "unpacked", filter="data")
    assert not list((tree / "unpacked").rglob("_kernels.*"))


@compiles
def test_a_source_distribution_holds_all_that_the_same_wheel_is_made_of(tree: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(packed(tree, "sdist"), tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert not (unpacked / "src" / COMPILED).exists()
    shutil.rmtree(tree / "dist")
    theirs, ours = (packed(place, "wheel", **{SWITCH: "must"}) for place in (unpacked, tree))
    assert theirs.name == ours.name
    assert theirs.read_bytes() == ours.read_bytes()


@compiles
def test_an_editable_install_finds_them_beside_their_python_and_again_after_a_change(tree: Path) -> None:
    packed(tree, "wheel:editable", **{SWITCH: "must"})
    assert answer(tree / "src") == "42"
    with (tree / "src" / COMPILED).open("rb") as used:
        before = used.read()
        (tree / "src/kernels/answer.c").write_text("int answer = 43;\n")
        assert python(tree, "hatch_build.py").stderr == ""
        used.seek(0)
        assert used.read() == before, "a running process would have lost the code that it runs"
    assert answer(tree / "src") == "43"


WITHOUT = {
    "asked for": ({SWITCH: "no"}, "", f"{SWITCH}=no"),
    "failing compiler": ({"CC": "/bin/false"}, "", "/bin/false"),
    "no compiler": ({"CC": "a-compiler-that-is-nowhere"}, "", "a-compiler-that-is-nowhere"),
    "no header": ({}, "#include <of_no_python.h>", "src/kernels/answer.c:1:10: fatal error: "),
    "mistake": ({}, "int answer = 42", "src/kernels/answer.c:1:"),
    "cannot be loaded": ({}, "int beyond(void); int answer; void f(void) { answer = beyond(); }", "beyond"),
}


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=[] if variables else compiles) for name, (variables, _, _) in WITHOUT.items()]
)
def test_where_they_cannot_be_compiled_a_pure_wheel_is_made_and_one_line_says_why(tree: Path, case: str) -> None:
    variables, code, why = WITHOUT[case]
    if code:
        (tree / "src/kernels/answer.c").write_text(code + "\n")
    done = python(tree, "-m", "hatchling", "build", "-t", "wheel", **variables)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tree / "dist").iterdir()
    line, path = (done.stdout + done.stderr).splitlines()
    assert line.startswith("modelyard: the kernels are not compiled, the pure Python form is used: ")
    assert why in line
    assert path == f"dist/{wheel.name}"
    assert wheel.name.endswith("-py3-none-any.whl")
    assert COMPILED not in zipfile.ZipFile(wheel).namelist()


@pytest.mark.parametrize("line", ["hatch_build.py", "-m hatchling build -t wheel:editable"])
def test_where_a_tree_is_used_as_it_lies_an_earlier_build_goes(tree: Path, line: str) -> None:
    done = python(tree, *line.split(), **{SWITCH: "no"})
    assert done.returncode == 0, done.stderr
    assert f"modelyard: the kernels are not compiled, the pure Python form is used: {SWITCH}=no\n" in done.stderr
    assert not (tree / "src" / COMPILED).exists(), "what an earlier build left would be used"


def test_who_makes_wheels_can_have_the_failure_instead(tree: Path) -> None:
    done = python(tree, "-m", "hatchling", "build", "-t", "wheel", **{SWITCH: "must"}, CC="/bin/false")
    assert done.returncode != 0
    assert "the kernels are not compiled: " in done.stderr
    assert "/bin/false" in done.stderr
    assert not (tree / "dist").exists() or not list((tree / "dist").iterdir())


def test_a_word_that_the_switch_does_not_have_is_refused(tree: Path) -> None:
    done = python(tree, "hatch_build.py", **{SWITCH: "yes"})
    assert done.returncode != 0
    assert done.stderr == f"modelyard: {SWITCH} is `no`, `must` or empty, not `yes`\n"


def test_what_an_earlier_build_left_and_nobody_can_remove_is_no_reason_to_fail(tree: Path) -> None:
    """As in a tree that is mounted read-only; here a folder stands for it."""
    (tree / "src" / COMPILED).unlink()
    (tree / "src" / COMPILED).mkdir()
    done = python(tree, "-m", "hatchling", "build", "-t", "wheel:editable", **{SWITCH: "no"})
    assert done.returncode == 0, done.stderr
    assert "modelyard: an earlier build stays in place: " in done.stderr
