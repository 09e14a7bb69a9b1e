from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from modelyard._kit.errors import DataError
from modelyard.data import steps
from modelyard.data.features import features_probe

ROWS = pl.DataFrame({"id": [1, 2, 3], "x": [1.0, 2.0, 3.0]})


def run(project, code: str, *, tables: Any = None, function: str = "features.py:build") -> pl.DataFrame:
    (project.root / "features.py").write_text(code)
    state = features_probe(project.ctx(), function=function)
    names = [f"t{i}" for i in range(len(tables or [0]))]
    return steps.features(tables=tables or [ROWS.lazy()], names=names, function=function, state=state).lazy().collect()


def failed(project, code: str, **more: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        run(project, code, **more)
    return caught.value


@pytest.mark.parametrize(
    "body",
    [
        "tables['t0'].with_columns(y=nw.col('x') * 2)",
        "tables['t0'].collect().with_columns(y=nw.col('x') * 2)",
        "tables['t0'].to_native().with_columns(y=pl.col('x') * 2)",
        "tables['t0'].to_native().collect().with_columns(y=pl.col('x') * 2)",
        "__import__('pandas').DataFrame({'y': [2.0, 4.0, 6.0]})",
    ],
)
def test_lazy_and_eager_frames_of_narwhals_polars_and_others_are_taken(project, body: str) -> None:
    code = f"import narwhals as nw\nimport polars as pl\ndef build(tables):\n    return {body}\n"
    assert run(project, code)["y"].to_list() == [2.0, 4.0, 6.0]


def test_tables_come_by_name(project) -> None:
    other = pl.DataFrame({"id": [1, 3], "z": ["a", "c"]})
    code = "def build(tables):\n    return tables['t0'].join(tables['t1'], on='id', how='left').sort('id')\n"
    assert run(project, code, tables=[ROWS.lazy(), other.lazy()])["z"].to_list() == ["a", None, "c"]


def test_without_a_function_one_table_passes_and_more_need_one(project) -> None:
    state = features_probe(project.ctx())
    assert steps.features(tables=[ROWS], names=["t"], state=state) is ROWS
    with pytest.raises(DataError) as caught:
        steps.features(tables=[ROWS, ROWS], names=["t", "u"], state=state)
    assert caught.value.code == "features-missing"
    assert "features.py:build" in caught.value.problem.hint


@pytest.mark.parametrize(
    ("code", "said", "where"),
    [
        ("def build(tables):\n    rows = tables['t0']\n    return 1 / 0\n", "ZeroDivisionError", "features.py:3"),
        ("import helper\ndef build(tables):\n    return helper.go(tables)\n", "KeyError: 'nothing'", "helper.py:2"),
        ("def build(tables):\n    return tables['t0'\n", "SyntaxError", "features.py:2"),
        ("import nowhere\ndef build(tables):\n    return 1\n", "ModuleNotFoundError", "features.py:1"),
        ("def build():\n    return 1\n", "TypeError", "features.py"),
        (
            "import narwhals as nw\ndef build(tables):\n    return tables['t0'].select(nw.col('nope'))\n",
            "nope",
            "features.py",
        ),
        ("def build(tables):\n    return 42\n", "returned `int`, not rows", "features.py:build"),
        ("def build(tables):\n    return tables['t0'].head(0)\n", "returned no rows", "features.py:build"),
        (
            "import polars as pl\ndef build(t):\n    return t['t0'].to_native().select(pl.lit('x').cast(pl.Int64))\n",
            "InvalidOperationError",
            "features.py",
        ),
    ],
)
def test_an_error_names_the_line_of_the_users_code(project, code: str, said: str, where: str) -> None:
    (project.root / "helper.py").write_text("def go(tables):\n    return tables['nothing']\n")
    error = failed(project, code)
    assert error.code == "features-failed"
    assert error.exit_code == 2
    assert said in error.problem.message
    assert error.problem.where.startswith(where)


def test_missing_file_and_function_name_what_is_near(project) -> None:
    code = "def build(tables):\n    return tables['t0']\n"
    assert "`build`" in failed(project, code, function="features.py:bild").problem.hint
    error = failed(project, code, function="feature.py:build")
    assert (error.code, error.problem.hint) == ("features-missing", "did you mean `features.py:build`?")


def test_probe_sees_every_project_file_the_function_is_made_of(project) -> None:
    root: Path = project.root
    (root / "pack").mkdir()
    (root / "pack/__init__.py").write_text("from pack.deep import go\n")
    (root / "pack/deep.py").write_text("go = 1\n")
    (root / "other.py").write_text("x = 1\n")
    (root / "features.py").write_text("import os\nfrom pack import go\n")

    def seen() -> str:
        return features_probe(project.ctx(), function="features.py:build")["code"]

    first = seen()
    (root / "other.py").write_text("x = 2\n")
    assert seen() == first
    (root / "pack/deep.py").write_text("go = 2\n")
    second = seen()
    assert second != first
    (root / "features.py").write_text("import os\n\nfrom pack import go  # new\n")
    assert seen() == second
    (root / "features.py").write_text("import os\nfrom pack import go as new\n")
    assert len({first, second, seen()}) == 3


def test_the_users_modules_leave_no_trace_and_are_never_stale(project) -> None:
    before, path = set(sys.modules), list(sys.path)
    code = "from helper import F\nimport narwhals as nw\ndef build(t):\n    return t['t0'].with_columns(y=nw.lit(F))\n"
    for factor in (1, 2):
        helper = project.root / "helper.py"
        helper.write_text(f"F = {factor}\n")
        os.utime(helper, (1_000_000_000, 1_000_000_000))
        assert run(project, code)["y"].to_list() == [factor] * 3
    assert sys.path == path
    assert "helper" not in sys.modules
    assert not [n for n in set(sys.modules) - before if n.startswith("_modelyard_user")]
    assert not list(project.root.rglob("*.pyc"))


def test_a_module_of_the_same_name_elsewhere_is_neither_used_nor_lost(project) -> None:
    stranger = type(sys)("helper")
    sys.modules["helper"] = stranger
    try:
        (project.root / "helper.py").write_text("def go(t):\n    return t\n")
        code = "def build(tables):\n    from helper import go\n    return go(tables['t0'])\n"
        assert run(project, code).height == 3
        assert sys.modules["helper"] is stranger
    finally:
        del sys.modules["helper"]
