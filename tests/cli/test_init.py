"""`modelyard init`: a project that is right, or nothing at all."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from modelyard.cli import init as verb
from modelyard.cli.main import main
from modelyard.spec import load, paths


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("template", "table", "rows", "target"),
    [("classification", "samples", 569, "diagnosis"), ("regression", "patients", 442, "progression")],
)
def test_an_example_is_a_right_project(
    template: str, table: str, rows: int, target: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "my-model", "--template", template]) == 0
    out, err = capsys.readouterr()
    assert out.split() == [
        "my-model/modelyard.yaml",
        "my-model/README.md",
        "my-model/.gitignore",
        f"my-model/data/{table}.csv",
    ]
    assert "cd my-model && modelyard run" in err
    spec = load(here / "my-model")
    assert spec.project == "my-model"
    assert spec.model.target == target
    with (here / "my-model" / "data" / f"{table}.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == rows
    assert set(spec.data[table].contract) <= set(read[0])
    assert set(spec.card.factors) <= set(read[0])
    assert sorted(p.name for p in here.iterdir()) == ["my-model"]
    # Released, it must not lack a word that only a person can write.
    assert spec.purpose
    assert spec.owners
    assert all((spec.card.intended_use.for_, spec.card.intended_use.users, spec.card.intended_use.not_for))
    assert all((spec.card.ethics, spec.card.caveats))


@pytest.mark.parametrize("template", ["classification", "regression"])
def test_the_readme_names_every_section(template: str, here: Path) -> None:
    main(["init", "p", "--template", template])
    readme = (here / "p" / "README.md").read_text()
    for section in (path for path in paths() if "." not in path):
        assert f"`{section}`" in readme
    assert "$" not in readme


def test_nothing_is_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "modelyard.yaml").write_text("mine")
    assert main(["init"]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert [p.name for p in here.iterdir()] == ["modelyard.yaml"]
    assert (here / "modelyard.yaml").read_text() == "mine"


def test_what_is_not_in_the_way_is_kept(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "README.md").write_text("mine")
    (here / ".gitignore").write_text("*.pyc\n")
    assert main(["init"]) == 0
    assert (here / "README.md").read_text() == "mine"
    assert "add `.modelyard/`" in capsys.readouterr().err
    assert load(here).data


def test_a_file_in_place_of_the_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "p").write_text("")
    assert main(["init", "p"]) == 2
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_half_way_leaves_nothing(
    existing: bool, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if existing:
        (here / "deep" / "p").mkdir(parents=True)
    before = sorted(here.rglob("*"))
    done: list[Path] = []

    def full(self: Path, content: bytes) -> int:
        if len(done) == 3:
            raise OSError(28, "No space left on device")
        done.append(self)
        with self.open("wb") as file:
            return file.write(content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["init", "deep/p"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert sorted(here.rglob("*")) == before


def test_a_name_that_is_taken_meanwhile_leaves_nothing_of_ours(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "p").mkdir()
    placed: list[Path] = []
    place = verb._place

    def racing(whole: Path, path: Path) -> None:
        if len(placed) == 2:
            path.write_text("somebody else's")
        placed.append(path)
        place(whole, path)

    monkeypatch.setattr(verb, "_place", racing)
    assert main(["init", "p"]) == 2
    left = [p for p in (here / "p").rglob("*") if p.is_file()]
    assert [p.read_text() for p in left] == ["somebody else's"]


def test_a_file_system_without_links(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    (here / "p").mkdir()
    assert main(["init", "p"]) == 0
    assert load(here / "p").data


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "closed").mkdir(mode=0o500)
    assert main(["init", "closed/p"]) == 2
    assert "cannot be written" in capsys.readouterr().err


# --- own data


def test_own_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "Customers 2026.csv").write_text("id;age;left\n1;30;yes\n")
    assert main(["init", "churn", "--from", "Customers 2026.csv", "--target", "left"]) == 0
    spec = load(here / "churn")
    (source,) = spec.data.values()
    assert list(spec.data) == ["customers_2026"]
    assert source.from_ == (str(here / "Customers 2026.csv"),)
    assert source.delimiter == ";"
    assert spec.model.target == "left"
    assert "modelyard check" in capsys.readouterr().err


def test_own_data_in_the_folder_is_found_and_named_from_there(here: Path) -> None:
    (here / "data").mkdir()
    (here / "data" / "1.csv").write_text("a, b, >50K\n1, 2, 3\n")
    assert main(["init", "--template", "own", "--target", ">50K"]) == 0
    spec = load(here)
    source = spec.data["rows"]
    assert source.from_ == ("data/1.csv",)
    assert source.delimiter == ", "
    assert spec.model.target == ">50K"


def test_own_parquet(here: Path) -> None:
    import polars as pl

    pl.DataFrame({"a": [1], "y": [2]}).write_parquet(here / "rows.parquet")
    assert main(["init", "p", "--from", "rows.parquet", "--target", "y"]) == 0
    assert load(here / "p").model.target == "y"


@pytest.mark.parametrize(
    ("values", "delimiter", "task", "metric", "positive"),
    [
        ([f"{n}.5" for n in range(30)], ",", "regression", "r2", False),
        ([str(n) for n in range(30)], ", ", "regression", "r2", False),
        (["a", "b", ""] * 10, ",", "auto", "roc_auc", True),
        (["a", "b", "c"] * 10, ";", "auto", "roc_auc", False),
    ],
)
def test_what_the_file_proposes_fits_the_target(
    here: Path, values: list[str], delimiter: str, task: str, metric: str, *, positive: bool
) -> None:
    rows = "".join(f"{n}{delimiter}{value}\n" for n, value in enumerate(values))
    (here / "rows.csv").write_text(f"x{delimiter}y\n{rows}")
    assert main(["init", "p", "--from", "rows.csv", "--target", "y"]) == 0
    file = here / "p" / "modelyard.yaml"
    text = file.read_text()
    assert load(file).model.task == task
    assert (f"- {metric}: " in text, "positive" in text) == (True, positive)
    # The check that it proposes can be taken as it stands.
    file.write_text(text.replace("  # - ", "  - "))
    assert load(file, files=False).check_list()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--from", "of-another-name.csv", "--target", "y"],
            "beside it there is: broken.parquet, empty.csv, latin.csv, rows.csv",
        ),
        (["--from", "nowhere/nope.csv", "--target", "y"], "there is no folder"),
        (["--template", "own"], "which file holds your rows"),
        (["--from", "rows.csv"], "which column is to be predicted"),
        (["--from", "rows.csv", "--target", "yy"], "did you mean `y`?"),
        (["--from", "row.csv", "--target", "y"], "did you mean `rows.csv`?"),
        (["--from", "empty.csv", "--target", "y"], "has no header line"),
        (["--from", "latin.csv", "--target", "y"], "UTF-8"),
        (["--from", "broken.parquet", "--target", "y"], "not a Parquet file"),
        (["--template", "regression", "--target", "y"], "brings its own data"),
    ],
)
def test_own_data_that_will_not_do(
    arguments: list[str], words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "rows.csv").write_text("x,y\n1,2\n")
    (here / "empty.csv").write_text("")
    (here / "latin.csv").write_bytes(b"caf\xe9,y\n")
    (here / "broken.parquet").write_text("PAR")
    assert main(["init", "p", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not (here / "p").exists()


@pytest.mark.parametrize(
    ("folder", "name"),
    [("My Model!", "My-Model"), ("2026", "model-2026"), ("_x", "x"), ("ümlaut", "mlaut"), ("a" * 80, "a" * 63)],
)
def test_the_project_is_called_after_its_folder(folder: str, name: str, here: Path) -> None:
    assert main(["init", folder]) == 0
    assert load(here / folder).project == name


def test_what_cannot_be_learned_from_is_dropped_from_the_start(tmp_path: Path) -> None:
    lines = ["customer id,sign up date,age,notes,bought"]
    lines += [f"C{i:05d},2025-01-{1 + i % 28:02d},{20 + i % 50},note {i},{'yes' if i % 2 else 'no'}" for i in range(40)]
    (tmp_path / "people.csv").write_text("\n".join(lines) + "\n")
    assert main(["init", str(tmp_path), "--from", str(tmp_path / "people.csv"), "--target", "bought"]) == 0
    spec = load(tmp_path / "modelyard.yaml")
    assert spec.model.drop == ("customer id", "sign up date", "notes")
