"""Changed numbers are found and named, in the card and in its files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard.cards.build import build
from modelyard.cards.render import FORMATS, render
from modelyard.cards.verify import compare, compare_file
from modelyard.records import Card, Evidence

replace = msgspec.structs.replace


def changed(card: Card, label: str, value: Any) -> Card:
    """Return the card with the first fact of this label changed."""
    raw = msgspec.json.decode(msgspec.json.encode(card))
    for section in raw["sections"]:
        for block in section["blocks"]:
            for fact in [*block.get("facts", ()), *(f for row in block.get("rows", ()) for f in row)]:
                if fact["label"] == label:
                    fact["value"] = value
                    return msgspec.convert(raw, Card)
    raise AssertionError(label)


def test_a_card_of_its_evidence_holds(card: Card, evidence: dict[str, Evidence]) -> None:
    assert compare(card, evidence) == []


def test_a_changed_fact_is_named_with_what_was_expected(card: Card, evidence: dict[str, Evidence]) -> None:
    (fault,) = compare(changed(card, "ROC AUC", 0.99), evidence)
    assert fault.startswith('section "Model details": ROC AUC: expected 0.9234567')
    assert fault.endswith("found 0.99")


def test_a_fact_of_the_model_or_of_a_result_is_compared_too(card: Card, evidence: dict[str, Evidence]) -> None:
    assert "expected 31" in compare(changed(card, "num_leaves", 63), evidence)[0]
    assert "expected failed" in compare(changed(card, "f1, status", "passed"), evidence)[0]
    assert "expected passed" in compare(changed(card, "Gate", "failed"), evidence)[0]


def test_evidence_that_is_not_on_record_is_named(card: Card, evidence: dict[str, Evidence]) -> None:
    digest = next(d for d, e in evidence.items() if e.measure == "group_rates")
    del evidence[digest]
    assert compare(card, evidence) == [f"evidence {digest[:12]} (group_rates) stands in the card but is not on record"]


def test_evidence_measured_again_must_give_the_same_number(card: Card, evidence: dict[str, Evidence]) -> None:
    digest = next(d for d, e in evidence.items() if e.measure == "roc_auc" and e.n == 2000)
    evidence[digest] = replace(evidence[digest], value=0.91)
    assert any("ROC AUC: expected 0.91" in fault for fault in compare(card, evidence))


def test_a_timing_that_was_measured_again_is_compared_with_its_record(
    card: Card, evidence: dict[str, Evidence]
) -> None:
    digest = next(d for d, e in evidence.items() if e.volatile)
    evidence[digest] = replace(evidence[digest], value=0.6)
    assert compare(card, evidence) == []
    assert any("latency" in fault for fault in compare(changed(card, "latency", 0.1), evidence))


def test_a_changed_copy_of_the_evidence_is_named(card: Card, evidence: dict[str, Evidence]) -> None:
    for kind in ("evidence", "check_result", "gate"):
        raw = msgspec.json.decode(msgspec.json.encode(card))
        digest = next(d for d, r in sorted(raw["evidence"].items()) if r["kind"] == kind)
        record = raw["evidence"][digest]
        record["n" if kind == "evidence" else "reason" if kind == "check_result" else "passed"] = (
            "all is well" if kind == "check_result" else 99
        )
        faults = compare(msgspec.convert(raw, Card), evidence)
        assert any(f"copy of {kind} {digest[:12]} was changed" in fault for fault in faults), kind


def test_a_changed_chart_is_named(card: Card, evidence: dict[str, Evidence]) -> None:
    raw = msgspec.json.decode(msgspec.json.encode(card))
    block = next(b for s in raw["sections"] for b in s["blocks"] if b["title"] == "ROC curve")
    block["chart"]["series"][0]["y"][1] = 0.99
    (fault,) = compare(msgspec.convert(raw, Card), evidence)
    assert fault.startswith('section "Quantitative analyses": chart "ROC curve" is not what evidence')


def test_a_fact_that_points_nowhere_is_named(card: Card, evidence: dict[str, Evidence]) -> None:
    raw = msgspec.json.decode(msgspec.json.encode(card))
    raw["sections"][0]["blocks"][0]["facts"][0]["path"] = "details.nowhere"
    assert "nothing stands at `details.nowhere`" in compare(msgspec.convert(raw, Card), evidence)[0]


@pytest.fixture
def written(card: Card, tmp_path: Path) -> dict[str, Path]:
    """The card as files, by format."""
    files = {form: tmp_path / f"income.{form}" for form in FORMATS}
    for form, path in files.items():
        path.write_text(render(card, form))
    return files


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_as_printed_holds(form: str, written: dict[str, Path], card: Card) -> None:
    assert compare_file(written[form], card) == []


@pytest.mark.parametrize("form", FORMATS)
def test_a_changed_number_in_a_file_is_named(form: str, written: dict[str, Path], card: Card) -> None:
    path = written[form]
    text = path.read_text()
    old, new = ("0.9234567", "0.9534567") if form == "json" else ("0.9235", "0.9535")
    at = text.index(f">{old}<") + 1 if form == "html" else text.index(old)
    path.write_text(text[:at] + new + text[at + len(old) :])
    (fault,) = compare_file(path, card)
    assert "Model details" in fault
    assert "ROC AUC" in fault
    assert old in fault
    assert new in fault


def test_a_changed_number_behind_a_chart_is_named(written: dict[str, Path], card: Card) -> None:
    path = written["html"]
    text = path.read_text()
    at = text.index(">0.7</data>", text.index("ROC curve, numbers"))
    path.write_text(text[:at] + ">0.8</data>" + text[at + 11 :])
    (fault,) = compare_file(path, card)
    assert fault == ('section "Quantitative analyses": ROC curve, row 2, True positive rate: expected 0.7, found 0.8')


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("Credit officers", "Anybody", "Credit officers"),
        ("</footer>", "</footer><script>alert(1)</script>", "script"),
        ("<h1>", "<!-- note --><h1>", "note"),
        ('class="badge passed"', 'class="badge failed"', "badge"),
        ("--pass: #1e7d53", "--pass: #b8342f", "--pass"),
        (" cy=", " cy='0' cy=", "cy"),
    ],
)
def test_any_other_change_of_a_page_is_told(
    old: str, new: str, told: str, written: dict[str, Path], card: Card
) -> None:
    path = written["html"]
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    faults = compare_file(path, card)
    assert faults
    assert any(told in fault and re.search(r"line \d+", fault) for fault in faults)


def test_the_link_of_a_number_to_its_evidence_is_held(written: dict[str, Path], card: Card) -> None:
    path = written["html"]
    text = path.read_text()
    place = text.index('data-path="interval.low"')
    path.write_text(text[:place] + text[place:].replace("interval.low", "interval.high", 1))
    (fault,) = compare_file(path, card)
    assert "path in its evidence" in fault
    assert "expected interval.low, found interval.high" in fault


def test_a_whole_value_behind_a_rounded_one_is_held(written: dict[str, Path], card: Card) -> None:
    path = written["html"]
    path.write_text(path.read_text().replace('value="0.9234567"', 'value="0.9934567"', 1))
    assert "its whole value: expected 0.9234567, found 0.9934567" in compare_file(path, card)[0]


def test_a_removed_number_and_one_told_twice_are_named(written: dict[str, Path], card: Card) -> None:
    path = written["html"]
    text = path.read_text()
    number = re.search(r'<data value="0.062".*?</data>', text)
    assert number
    path.write_text(text.replace(number[0], "", 1))
    assert "found nothing" in compare_file(path, card)[0]
    path.write_text(text.replace(number[0], number[0] * 2, 1))
    assert any("two numbers claim the place" in fault for fault in compare_file(path, card))


def test_lines_added_and_gone_in_markdown_are_told(written: dict[str, Path], card: Card) -> None:
    path = written["md"]
    text = path.read_text()
    path.write_text(text.replace("## 8. Ethical considerations\n", "## 8. Ethical considerations\n\nAll is well.\n"))
    assert "`All is well.` was added" in " ".join(compare_file(path, card))
    path.write_text(text.replace("The data are from 1994.\n", ""))
    assert "is gone" in " ".join(compare_file(path, card))


def test_other_changes_of_the_json_are_told_by_their_path(written: dict[str, Path], card: Card) -> None:
    path = written["json"]
    text = path.read_text()
    path.write_text(text.replace('"missing": []', '"missing": ["card.ethics"]'))
    assert compare_file(path, card) == ["`missing.0`: expected nothing, found `card.ethics`"]
    path.write_text(text[:-3])
    assert compare_file(path, card)[0].startswith("the file is not JSON")
    path.write_text(text + "\n")
    assert compare_file(path, card)


def test_bytes_that_are_no_text_are_told(written: dict[str, Path], card: Card) -> None:
    written["html"].write_bytes(b"\xff\xfe")
    assert compare_file(written["html"], card)[0].startswith("the file is not text")


def test_line_ends_alone_are_told(written: dict[str, Path], card: Card) -> None:
    for path in written.values():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
        assert compare_file(path, card)


def test_a_card_of_another_run_is_not_this_one(written: dict[str, Path], facts: dict[str, Any]) -> None:
    facts["human"]["caveats"] = ["Others."]
    other = build(**facts)
    assert all(compare_file(path, other) for path in written.values())
