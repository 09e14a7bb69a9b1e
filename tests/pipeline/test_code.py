"""Code versions and keys: what makes a step run again, and what does not."""

from __future__ import annotations

from pathlib import Path

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


def test_the_environment_names_what_modelyard_stands_on_and_nothing_else() -> None:
    libraries = environment().libraries
    assert {"modelyard", "polars", "scikit-learn", "onnxruntime", "numpy"} <= set(libraries)
    assert not {"pytest", "ruff", "mypy"} & set(libraries)


def test_a_change_of_the_environment_is_said_in_words() -> None:
    before = Environment("3.11.7", "linux-x86_64", {"polars": "2.1.0"})
    after = Environment("3.12.0", "linux-x86_64", {"polars": "2.2.0", "new": "1"})
    assert before.changes(after) == ["python 3.11.7 -> 3.12.0", "new none -> 1", "polars 2.1.0 -> 2.2.0"]
    assert before.digest != after.digest
