"""Every error code that a user can meet has a section in `docs/errors.md`, and every section a code that is raised."""

from __future__ import annotations

import json
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from tests.once import once

from modelyard.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^## `(.+)`$", PAGE, re.MULTILINE)


@pytest.fixture(scope="session")
def codes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    def scan(folder: Path) -> None:
        spec = spec_from_file_location("codes", ROOT / "tools" / "codes.py")
        assert spec
        assert spec.loader
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        (folder / "codes.json").write_text(json.dumps(module.codes()))

    found: dict[str, list[str]] = json.loads((once(tmp_path_factory, "codes", scan) / "codes.json").read_text())
    return found


def test_every_code_has_a_section_and_every_section_a_code(codes: dict[str, list[str]]) -> None:
    unexplained = {code: codes[code] for code in codes.keys() - set(SECTIONS)}
    assert not unexplained
    assert not set(SECTIONS) - codes.keys()


def test_the_scan_finds_codes_in_each_way_they_are_made(codes: dict[str, list[str]]) -> None:
    # Raised as it is; by a helper; with a gap that callers fill; as a default; yielded; and in a text.
    for code in (
        "check-failed",
        "column-unknown",
        "model-too-few-groups",
        "folder-not-found",
        "run-not-found",
        "spec-contradiction",
        "spec-missing-file",
        "strange-host",
        "internal",
    ):
        assert codes[code]
    assert not {"mini-bar", "run-1", "utf-8", "of-class", "missing-extra"} & codes.keys()


def test_sections_stand_once_in_the_order_of_the_alphabet() -> None:
    assert sorted(set(SECTIONS)) == SECTIONS


def test_explain_prints_each_section(capsys: pytest.CaptureFixture[str]) -> None:
    for code in ("strange-host", "internal", "spec-unknown-field"):
        assert main(["explain", code]) == 0
        said = capsys.readouterr().out
        assert said.startswith(code)
        assert "##" not in said
        assert len(said) > len(code) + 40


def test_the_page_goes_into_the_wheel_where_explain_looks_for_it() -> None:
    import tomllib

    from modelyard.cli import explain

    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    inside = build["targets"]["wheel"]["force-include"]["docs/errors.md"]
    assert 'parents[1] / "docs" / "errors.md"' in Path(explain.__file__).read_text(encoding="utf-8")
    assert inside == "modelyard/docs/errors.md"
