"""Code versions and keys: what makes a step run again, and what does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import modelyard
from modelyard._kit.source import local_sources, source_digest
from modelyard.pipeline.environment import Environment, environment


def test_helpers_that_a_file_imports_count_and_other_files_do_not(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "features.py").write_text("import helper\nfrom pack import deep\nimport json\n")
    (tmp_path / "helper.py").write_text("x = 1\n")
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "deep.py").write_text("import helper\n")
    (tmp_path / "other.py").write_text("y = 1\n")
    names = {p.relative_to(tmp_path).as_posix() for p in local_sources(tmp_path / "features.py", tmp_path)}
    assert names == {"features.py", "helper.py", "pack/__init__.py", "pack/deep.py"}
    before = source_digest(tmp_path / "features.py", tmp_path)
    (tmp_path / "other.py").write_text("y = 2\n")
    assert source_digest(tmp_path / "features.py", tmp_path) == before
    (tmp_path / "helper.py").write_text("x = 2\n")
    assert source_digest(tmp_path / "features.py", tmp_path) != before


WRITTEN = """
import helper

def step(x, y=(1, 2.0)):
    'Says what it does.'
    return f"{x!r:>{y[0]}}", "a\\ud800", b"a", 0x10, 1_000, ...
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def step", "# why\n\n\ndef step  "),
        ("    return", "    # a word\n    return"),
        ("1_000", "1000"),
        ("0x10", "(16)"),
        ("'Says what it does.'", '"Says what " "it does."'),
    ],
)
def test_what_changes_nothing_that_runs_is_no_change(tmp_path: Path, old: str, new: str) -> None:
    assert digests(tmp_path, old, new)[0] == digests(tmp_path, old, new)[1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Says what it does.", "Says it."),  # a function may read its docstring
        ("1_000", "1_000.0"),
        ("1_000", "True"),
        ("1_000", "'1000'"),
        ('b"a"', '"a"'),
        ("2.0", "2"),
        ("(1, 2.0)", "[1, 2.0]"),
        ("1_000, ...", "(1_000, ...)"),
        ("{x!r:", "{x!s:"),
        (":>{", ":<{"),
        ("a\\ud800", "a\\ud801"),
        ("import helper", "import helper as h"),
        ("def step", "async def step"),
        ("x, y=", "x, *, y="),
        ("x, y=", "x, /, y="),
        ("0x10", f"0x{'1' * 9999}"),
    ],
)
def test_what_runs_otherwise_is_a_change(tmp_path: Path, old: str, new: str) -> None:
    assert digests(tmp_path, old, new)[0] != digests(tmp_path, old, new)[1]


def digests(folder: Path, old: str, new: str) -> list[str]:
    found = []
    for text in (WRITTEN, WRITTEN.replace(old, new)):
        (folder / "steps.py").write_text(text)
        found.append(source_digest(folder / "steps.py", folder))
    assert text != WRITTEN
    return found


def test_code_that_is_deeply_nested_has_a_digest(tmp_path: Path) -> None:
    file = tmp_path / "steps.py"
    file.write_text(f"x = {' + '.join(['1'] * 1500)}\n")
    before = source_digest(file, tmp_path)
    file.write_text(f"x = {' + '.join(['1'] * 1499)} + 2\n")
    assert source_digest(file, tmp_path) != before


def test_a_comment_runs_no_step_again(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    (tmp_path / "modelyard.yaml").write_text("project: p\nsteps:\n  one: {function: own.py:one}\n")
    file.write_text("def one(): return 1\n")
    first = modelyard.run(tmp_path / "modelyard.yaml")
    file.write_text("# The first number.\n\n\ndef one():\n    return 1  # as ever\n")
    assert modelyard.run(tmp_path / "modelyard.yaml").step("one").status == "cached"
    file.write_text("def one(): return 2\n")
    last = modelyard.run(tmp_path / "modelyard.yaml")
    assert (first["one"], last["one"], last.step("one").status) == (1, 2, "succeeded")


def test_the_environment_names_what_modelyard_stands_on_and_nothing_else() -> None:
    libraries = environment().libraries
    assert {"modelyard", "polars", "scikit-learn", "onnxruntime", "numpy"} <= set(libraries)
    assert not {"pytest", "ruff", "mypy"} & set(libraries)


def test_a_change_of_the_environment_is_said_in_words() -> None:
    before = Environment("3.11.7", "linux-x86_64", {"polars": "2.1.0"})
    after = Environment("3.12.0", "linux-x86_64", {"polars": "2.2.0", "new": "1"})
    assert before.changes(after) == ["python 3.11.7 -> 3.12.0", "new none -> 1", "polars 2.1.0 -> 2.2.0"]
    assert before.digest != after.digest


def test_relative_imports_and_packages_are_followed(tmp_path: Path) -> None:
    (tmp_path / "proj" / "deep").mkdir(parents=True)
    for name in ("proj/__init__.py", "proj/deep/__init__.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "proj" / "util.py").write_text("x = 1\n")
    (tmp_path / "proj" / "deep" / "near.py").write_text("y = 1\n")
    (tmp_path / "proj" / "steps.py").write_text("from proj.util import x\n")
    (tmp_path / "proj" / "deep" / "more.py").write_text("from ..util import x\nfrom . import near\n")

    def names(file: str) -> set[str]:
        return {p.relative_to(tmp_path).as_posix() for p in local_sources(tmp_path / file, tmp_path)}

    assert {"proj/util.py", "proj/__init__.py"} <= names("proj/steps.py")
    assert {"proj/util.py", "proj/deep/near.py"} <= names("proj/deep/more.py")


def test_a_step_of_a_package_sees_its_neighbours_change(tmp_path: Path) -> None:
    (tmp_path / "proj").mkdir()
    (tmp_path / "proj" / "__init__.py").write_text("")
    (tmp_path / "proj" / "steps.py").write_text("from proj.util import one\ndef step(): return one()\n")
    code = "from modelyard.pipeline.code import code_version; from proj.steps import step; print(code_version(step))"

    def version(number: int) -> str:
        (tmp_path / "proj" / "util.py").write_text(f"def one(): return {number}\n")
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    assert version(1) == version(1) != version(2)


def test_a_function_typed_into_a_session_is_refused() -> None:
    code = (
        "from modelyard import Flow, run\n"
        "def f(x): return x\n"
        "flow = Flow('f'); flow.step(f, x=1)\n"
        "import tempfile\n"
        "run(flow, project=tempfile.mkdtemp())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "step-without-file" in done.stderr
