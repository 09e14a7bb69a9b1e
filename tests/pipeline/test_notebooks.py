"""Notebooks as steps: parameters and tables in, the executed copy and variables out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import modelyard
from modelyard._kit.errors import MissingExtra, ModelyardError, SpecError, UserError
from modelyard.api import open_project
from modelyard.cli.main import main
from modelyard.pipeline.compose import compose
from modelyard.pipeline.notebooks import execute_notebook
from modelyard.pipeline.preview import preview
from modelyard.records import File, TableVersion, read_value

CELLS = [
    ("least = 0", ["parameters"]),
    ("import polars as pl\nfrom helper import DOUBLE\n%precision 2\ntable = pl.read_parquet(people)", []),
    ("kept = table.filter(pl.col('age') >= least)\nmean = kept['age'].mean() * DOUBLE\nprint('mean', mean)", []),
]
FILE = """\
project: notes
data: {people: {from: people.csv, key: id}}
steps:
  report:
    notebook: notes/report.ipynb
    inputs: {people: contract.people#accepted}
    params: {least: 18}
    outputs: [kept, mean]
    retries: 0
  after:
    function: steps.py:half
    inputs: {mean: report#mean, book: report}
"""


def notebook(cells: list[tuple[str, list[str]]], kernel: str = "python3") -> str:
    made: list[dict[str, Any]] = [
        {"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# Report"},
        *(
            {
                "cell_type": "code",
                "id": f"cell-{n}",
                "execution_count": 7,
                "metadata": {"tags": tags},
                "outputs": [],
                "source": source.splitlines(keepends=True),
            }
            for n, (source, tags) in enumerate(cells)
        ),
    ]
    spec = {"name": kernel, "display_name": kernel, "language": "python"}
    return json.dumps({"cells": made, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "notes").mkdir()
    (tmp_path / "people.csv").write_text("id,age\n1,30\n2,17\n3,50\n")
    (tmp_path / "notes" / "report.ipynb").write_text(notebook(CELLS))
    (tmp_path / "notes" / "helper.py").write_text("DOUBLE = 2\n")
    (tmp_path / "steps.py").write_text("def half(mean, book):\n    return [mean / 2, book.name]\n")
    (tmp_path / "modelyard.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_plan_of_a_notebook(project: Path) -> None:
    step = compose(modelyard.load()).step("report")
    assert step.outputs == ("notebook", "kept", "mean")
    assert step.params == {"notebook": "notes/report.ipynb", "params": {"least": 18}, "kept": ["kept", "mean"]}
    assert step.resources.own_process


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("{", "spec-bad-notebook", "not a notebook"),
        ("[]", "spec-bad-notebook", "not a notebook"),
        ('{"nbformat": 3, "worksheets": [], "cells": []}', "spec-bad-notebook", "format 3"),
        (None, "spec-missing-file", "no file"),
    ],
)
def test_what_is_no_notebook_is_found_before_anything_runs(
    content: str | None, code: str, words: str, project: Path
) -> None:
    place = project / "notes" / "report.ipynb"
    place.unlink() if content is None else place.write_text(content)
    with pytest.raises(SpecError) as error:
        modelyard.load()
    assert (error.value.code, error.value.problem.where) == (code, "modelyard.yaml:5")
    assert words in error.value.problem.message


def test_what_the_key_is_made_of(project: Path) -> None:
    def keys() -> Any:
        from modelyard.pipeline.notebooks import notebook_probe
        from modelyard.pipeline.probes import Context

        with open_project(project) as store:
            state = notebook_probe(Context(project, store, "report"), notebook="notes/report.ipynb")
        del state["unkeyed"]
        return state

    before = keys()
    saved = json.loads((project / "notes" / "report.ipynb").read_text())
    saved["cells"][1] |= {"execution_count": 12, "outputs": [{"output_type": "stream", "name": "stdout", "text": "x"}]}
    (project / "notes" / "report.ipynb").write_text(json.dumps(saved))
    assert keys() == before, "what a cell showed when it was saved is not its content"
    (project / "notes" / "helper.py").write_text("DOUBLE = 3\n")
    assert keys()["imports"] != before["imports"]
    saved["cells"][1]["source"] = "least = 1"
    (project / "notes" / "report.ipynb").write_text(json.dumps(saved))
    assert keys()["cells"] != before["cells"]


def test_without_the_extra_the_cure_is_said(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "papermill", None)
    with pytest.raises(MissingExtra) as error:
        execute_notebook(notebook="notes/report.ipynb", params={}, kept=[], state={"unkeyed": {"root": str(project)}})
    assert error.value.problem.hint == "pip install 'modelyard[notebooks]'"


@pytest.mark.slow
def test_a_notebook_runs_with_its_inputs_and_leaves_copy_and_variables(
    project: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    run = modelyard.run()
    table = read_value(run["report#kept"])
    assert isinstance(table, TableVersion)
    assert table.rows == 2
    assert run["report#mean"] == 80.0
    assert run["after"] == [40.0, "report.ipynb"]
    book = read_value(run["report#notebook"])
    assert isinstance(book, File)
    capfdbinary.readouterr()
    assert main(["show", "report.notebook"]) == 0
    executed = json.loads(capfdbinary.readouterr().out)
    shown = [output.get("text") for cell in executed["cells"] for output in cell.get("outputs", [])]
    assert "mean 80.0\n" in shown
    sources = ["".join(cell["source"]) for cell in executed["cells"]]
    assert not any("_modelyard_keep" in source for source in sources)
    assert any("least = 18" in source for source in sources)
    assert {step.status for step in modelyard.run().steps} == {"cached"}
    with open_project(project) as store:
        assert {f.verdict for f in preview(compose(modelyard.load()), store)} == {"cached"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cells", "code", "words"),
    [
        ([("x = 1", []), ("\n1 / 0  # boom", [])], "notebook-failed", "[3] `1 / 0  # boom`: ZeroDivisionError"),
        ([("def broken(:", [])], "notebook-failed", "SyntaxError"),
        ([("kept = 1", [])], "notebook-output", "no variable `mean`"),
        ([("kept = mean = object()", [])], "notebook-output", "cannot keep"),
    ],
)
def test_a_failure_names_the_cell_and_its_error(
    cells: list[tuple[str, list[str]]], code: str, words: str, project: Path
) -> None:
    (project / "notes" / "report.ipynb").write_text(notebook(cells))
    with pytest.raises(ModelyardError) as error:
        modelyard.run()
    assert error.value.code == code
    assert words in error.value.problem.message
    assert isinstance(error.value, UserError), "it would come again, so it is not tried again"


CLOSED = """\
import ctypes, subprocess, sys
kept = ctypes.CDLL(None).socket(2, 1, 0) >= 0
child = [sys.executable, "-c", "import socket; socket.socket()"]
mean = subprocess.run(child, capture_output=True, text=True).stderr.splitlines()[-1:]
"""


@pytest.mark.slow
@pytest.mark.parametrize("network", [False, True])
def test_a_cell_reaches_the_network_if_the_step_says_so(network: bool, project: Path) -> None:
    (project / "notes" / "report.ipynb").write_text(notebook([(CLOSED, [])]))
    asked = f"retries: 0\n    resources: {{network: {str(network).lower()}}}"
    (project / "modelyard.yaml").write_text(FILE.partition("  after")[0].replace("retries: 0", asked))
    run = modelyard.run()
    assert run["report#kept"] is network
    assert run["report#mean"] == ([] if network else ["PermissionError: [Errno 13] Permission denied"])


@pytest.mark.slow
def test_a_cell_that_wanted_the_network_is_told_how_to_get_it(project: Path) -> None:
    text = "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9/')"
    (project / "notes" / "report.ipynb").write_text(notebook([(text, [])]))
    with pytest.raises(ModelyardError) as error:
        modelyard.run()
    assert error.value.code == "notebook-failed"
    assert error.value.problem.hint.startswith("correct the cell")
    assert "give it `network: true`" in error.value.problem.hint


@pytest.mark.slow
def test_no_folder_is_too_long_for_the_sockets_of_a_kernel(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = project / ("deep" * 30)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    assert modelyard.run()["report#mean"] == 80.0


@pytest.mark.slow
def test_an_error_that_may_pass_is_tried_again(project: Path) -> None:
    text = "import pathlib\nmark = pathlib.Path('mark')\nonce = mark.exists()\nmark.touch()\n"
    text += "if not once:\n    raise ConnectionError('gone')\nkept = mean = least"
    (project / "notes" / "report.ipynb").write_text(notebook([(text, [])]))
    (project / "modelyard.yaml").write_text(FILE.replace("retries: 0", "retries: {times: 1, wait: 1ms}"))
    run = modelyard.run()
    (attempt,) = run.step("report").attempts
    assert attempt.error["code"] == "notebook-failed"
    assert attempt.error["where"] == "notes/report.ipynb, cell 3"
    assert run["report#mean"] == 18


@pytest.mark.slow
def test_a_kernel_that_is_not_there(project: Path) -> None:
    (project / "notes" / "report.ipynb").write_text(notebook(CELLS, kernel="nope"))
    with pytest.raises(UserError, match="nope") as error:
        modelyard.run()
    assert error.value.code == "notebook-kernel"
