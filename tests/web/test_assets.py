"""Files that pages carry: vendored as published, small, and with no address beyond this machine."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from modelyard._kit.digest import digest_file
from modelyard.web.assets import FOLDER, licence, vendored

TEMPLATES = FOLDER.parent / "templates"
OURS = [*TEMPLATES.rglob("*.html"), *FOLDER.glob("*.*")]


@pytest.mark.parametrize("one", vendored(), ids=lambda one: one.name)
def test_vendored_file_is_as_it_was_published(one: object) -> None:
    from modelyard.web.assets import Vendored

    assert isinstance(one, Vendored)
    file = FOLDER / "vendor" / one.file
    assert digest_file(file) == one.sha256
    assert one.sha256[:12] in one.file
    assert re.fullmatch(r"\d+\.\d+\.\d+", one.version)
    assert licence(one).strip()


def test_every_vendored_file_is_listed() -> None:
    listed = {"vendor.json"} | {name for one in vendored() for name in (one.file, one.licence_file)}
    assert {file.name for file in (FOLDER / "vendor").iterdir()} == listed


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_nothing_is_loaded_from_elsewhere(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|//[a-z0-9.-]+\.[a-z]{2,}/|@import|url\(", text)


def test_script_and_style_stay_small() -> None:
    assert len((FOLDER / "app.js").read_text().splitlines()) < 300
    scripts = [FOLDER / "app.js", *(FOLDER / "vendor" / one.file for one in vendored())]
    assert sum(file.stat().st_size for file in scripts) < 120_000


def test_script_needs_nothing_that_the_policy_forbids() -> None:
    for file in (FOLDER / "app.js", *TEMPLATES.rglob("*.html")):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"\beval\(|new Function|innerHTML|\sstyle=|hx-on|js:", text), file.name


def test_every_icon_that_is_used_is_drawn() -> None:
    drawn = {one.get("id") for one in ElementTree.parse(FOLDER / "icons.svg").getroot()}  # noqa: S314 - our own file
    from typing import get_args

    from modelyard.records import RunStatus, Status, StepStatus
    from modelyard.web.answer import SECTIONS

    needed = {*get_args(RunStatus), *get_args(Status), *get_args(StepStatus), "waiting", "never", "mark"}
    needed |= {f"nav-{name.lower()}" for name in SECTIONS.values()}
    assert needed <= drawn
