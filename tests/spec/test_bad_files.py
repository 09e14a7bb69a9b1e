"""Files that are no declaration: one clear message each, with a line and the next step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard._kit.errors import NotFound, Problem, SpecError
from modelyard.spec import load

# A text that begins with `+` stands below a right file of three lines.
CASES = {
    "empty": ("", "spec-empty", "modelyard.yaml", "is empty"),
    "only comments": ("# nothing\n", "spec-empty", "modelyard.yaml", "is empty"),
    "only a marker": ("---\n", "spec-empty", "modelyard.yaml", "is empty"),
    "a word": ("hello\n", "spec-not-a-mapping", "modelyard.yaml:1", "one value"),
    "a list": ("- a\n- b\n", "spec-not-a-mapping", "modelyard.yaml:1", "a list"),
    "tab": ("project: p\nmodel:\n\ttarget: y\n", "spec-tab", "modelyard.yaml:3", "tab"),
    "tab after spaces": ("project: p\nmodel:\n  target: y\n  \tseed: 1\n", "spec-tab", "modelyard.yaml:4", "tab"),
    "not YAML": ("project: p\nmodel: {target: y\n", "spec-not-yaml", "modelyard.yaml:3", "not YAML"),
    "open quote": ("project: 'p\nmodel: 1\n", "spec-not-yaml", "modelyard.yaml:1", "never closed"),
    "colon": ("project: a: b\n", "spec-not-yaml", "modelyard.yaml:1", "`:`"),
    "sign": ("project: @p\n", "spec-not-yaml", "modelyard.yaml:1", '"@"'),
    "unquoted sign in a list": ("a: 1\nb: [<=50K, >50K]\n", "spec-not-yaml", "modelyard.yaml:2", '">"'),
    "two documents": ("project: p\n---\nproject: q\n", "spec-not-yaml", "modelyard.yaml:2", "second document"),
    "control character": ("project: p\npurpose: \x01\n", "spec-not-yaml", "modelyard.yaml:2", "U+0001"),
    "alias to nothing": ("project: *p\n", "spec-not-yaml", "modelyard.yaml:1", "*p"),
    "alias in itself": ("a: &a {b: *a}\n", "spec-not-yaml", "modelyard.yaml:1", "inside itself"),
    "star": ("project: p\nx: *.csv\n", "spec-not-yaml", "modelyard.yaml:2", 'begins with "*" needs quotes'),
    "merge of a word": ("+<<: x\n", "spec-not-yaml", "modelyard.yaml:4", "`<<` takes"),
    "very deep": ("a: " + "[" * 200_000, "spec-not-yaml", "modelyard.yaml:1", "levels"),
    "a list as key": ("+? [1, 2]\n: 3\n", "spec-not-yaml", "modelyard.yaml:4", "a key must be text"),
    "tag": ("+purpose: !!python/object:os.system {}\n", "spec-unsafe-tag", "modelyard.yaml:4", "python/object"),
    "own tag": ("+purpose: !secret x\n", "spec-unsafe-tag", "modelyard.yaml:4", "!secret"),
    "twice": ("+project: q\n", "spec-duplicate-key", "modelyard.yaml:4", "line 1"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_message(case: str, problems: Callable[[str], list[Problem]], small: str) -> None:
    text, code, where, words = CASES[case]
    found = problems(small + text[1:] if text.startswith("+") else text)
    assert [p.code for p in found][:1] == [code]
    assert found[0].where == where
    assert words in found[0].message
    assert found[0].hint


def test_not_utf8_names_the_line(project: Path) -> None:
    (project / "modelyard.yaml").write_bytes(b"project: p\npurpose: caf\xe9\n")
    with pytest.raises(SpecError) as error:
        load()
    assert error.value.code == "spec-not-utf8"
    assert error.value.problem.where == "modelyard.yaml:2"
    assert "0xe9" in error.value.problem.message


def test_utf16_is_not_utf8(project: Path, small: str) -> None:
    (project / "modelyard.yaml").write_bytes(small.encode("utf-16"))
    with pytest.raises(SpecError) as error:
        load()
    assert error.value.code == "spec-not-utf8"


def test_a_byte_order_mark_and_windows_lines_are_fine(project: Path, small: str) -> None:
    (project / "modelyard.yaml").write_bytes(b"\xef\xbb\xbf" + small.replace("\n", "\r\n").encode())
    assert load().project == "p"


def test_too_large(project: Path) -> None:
    (project / "modelyard.yaml").write_bytes(b"#" * (1 << 21))
    with pytest.raises(SpecError) as error:
        load()
    assert error.value.code == "spec-too-large"


def test_no_file_names_the_near_one(project: Path, small: str) -> None:
    (project / "modelyard.yml").write_text(small)
    with pytest.raises(NotFound) as error:
        load()
    assert error.value.code == "spec-not-found"
    assert error.value.exit_code == 2
    assert "`modelyard.yml`" in error.value.problem.hint


def test_no_file_and_none_near(project: Path) -> None:
    with pytest.raises(NotFound) as error:
        load()
    assert "modelyard init" in error.value.problem.hint


def test_no_folder(project: Path) -> None:
    with pytest.raises(NotFound):
        load(project / "nowhere" / "modelyard.yaml")
