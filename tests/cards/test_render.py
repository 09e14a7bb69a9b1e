"""A card as HTML, Markdown and JSON."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from modelyard._kit.errors import NotFound
from modelyard.cards.build import build
from modelyard.cards.printed import differences
from modelyard.cards.render import render
from modelyard.cards.view import cells, prose
from modelyard.records import Card

VOID = {"meta", "br", "wbr"}


class Page(HTMLParser):
    """Tags that balance, headings, and the numbers with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.outside: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if "h2" in self.open and "span" not in self.open:
            self.headings.append(data)
        if self.open[-1:] == ["td"] and re.search(r"\d", data):
            self.outside.append(data)


@pytest.fixture
def page(card: Card) -> Page:
    return Page(render(card, "html"))


def test_a_long_name_breaks_after_its_dots_and_nothing_else_changes(facts: dict[str, Any]) -> None:
    rule = facts["contracts"][0][0]
    check = msgspec.structs.replace(rule.check, name="contract.samples.mean_<b>.range")
    card = build(**{**facts, "contracts": [[msgspec.structs.replace(rule, check=check)]]})
    text = render(card, "html")
    assert "contract.<wbr>samples.<wbr>mean_<wbr>&lt;b&gt;.<wbr>range</span>" in text
    assert differences("html", text, text, card) == []
    changed = text.replace("samples.<wbr>mean_", "samples.<wbr>some_")
    assert any("contract.samples.some_" in one for one in differences("html", text, changed, card))


def test_the_page_is_whole_and_has_the_nine_sections(page: Page) -> None:
    assert page.open == []
    assert page.headings == [
        "Model details",
        "Intended use",
        "Factors",
        "Metrics",
        "Evaluation data",
        "Training data",
        "Quantitative analyses",
        "Ethical considerations",
        "Caveats and recommendations",
        "Evidence",
    ]


def test_ids_are_unique_and_every_link_leads_somewhere(page: Page) -> None:
    ids = [a["id"] for _, a in page.tags if "id" in a]
    charts = [i for i in ids if re.fullmatch("[td][0-9a-f]{10}", str(i))]
    assert len(ids) - len(charts) == len(set(ids) - set(charts))
    links = [str(a["href"]) for tag, a in page.tags if tag == "a"]
    assert links
    assert all(link.startswith("#") and link[1:] in ids for link in links)


def test_the_page_needs_nothing_from_outside(card: Card) -> None:
    text = render(card, "html")
    assert not re.search(r"https?://|//[a-z]|<script|<link|@import|url\(|javascript:", text)
    assert "default-src 'none'" in text


def test_every_number_on_the_page_has_its_evidence(page: Page, card: Card) -> None:
    numbers = [a for tag, a in page.tags if tag == "data"]
    assert len(numbers) > 100
    assert page.outside == []
    shown = {cell.key: cell for _, cell in cells(card)}
    linked = [a for a in numbers if "data-evidence" in a]
    for attrs in linked:
        cell = shown[str(attrs["data-fact"])]
        assert cell.evidence.startswith(str(attrs["data-evidence"]))
        assert attrs["data-path"] == cell.path
        assert str(attrs["data-evidence"]) in str(attrs["title"])
        assert attrs["value"] == cell.value
    # The rest stand in a figure, which names the evidence of all its numbers.
    figures = [a for tag, a in page.tags if tag == "figure"]
    assert all(a["data-evidence"] in card.evidence for a in figures)
    assert all(not shown[str(a["data-fact"])].path for a in numbers if "data-evidence" not in a)


def test_every_figure_has_a_title_a_description_and_its_numbers(card: Card) -> None:
    figures = re.findall(r"<figure.*?</figure>", render(card, "html"), re.S)
    assert len(figures) >= 14
    for figure in figures:
        assert re.search(r'<svg [^>]*role="img" aria-labelledby="t\w+', figure)
        assert "<title id=" in figure
        assert "<details><summary>" in figure
        assert "<table>" in figure


@pytest.mark.parametrize("form", ["html", "md"])
def test_what_people_and_data_say_is_never_markup(facts: dict[str, Any], form: str) -> None:
    facts["project"]["purpose"] = '<script>alert("p")</script> & "quotes"'
    facts["human"]["ethics"] = ["<img src=x onerror=alert(1)>", "a | b\n## not a heading"]
    facts["project"]["owners"] = [{"team": "</style><script>x</script>", "contact": None}]
    text = render(build(**facts), form)
    assert "<script" not in text
    assert "<img" not in text
    assert "<b>" not in text
    assert "\n## not" not in text
    assert "&lt;script&gt;" in text


def test_a_missing_field_is_named_at_the_top_and_nothing_is_made_up(facts: dict[str, Any]) -> None:
    facts["human"]["ethics"] = []
    card = build(**facts)
    for form in ("html", "md"):
        text = render(card, form)
        assert "card.ethics" in text
        assert "Not complete" in text
    assert "Not complete" not in render(build(**{**facts, "human": {**facts["human"], "ethics": "x"}}), "html")


def test_intervals_and_limits_stand_beside_their_number(card: Card) -> None:
    text = re.sub(r"<[^>]+>", "", render(card, "html"))
    assert "0.9235 0.9135 to 0.9335 limit ≥ 0.9" in text
    assert "| ROC AUC | 0.9235 (0.9135 to 0.9335), limit ≥ 0.9 |" in render(card, "md")
    assert "too few rows" in text


def test_the_whole_card_comes_back_out_of_its_json(card: Card) -> None:
    assert msgspec.json.decode(render(card, "json"), type=Card) == card


def test_a_card_prints_the_same_before_and_after_the_ledger(facts: dict[str, Any], card: Card) -> None:
    fresh = build(**facts)
    for form in ("html", "md", "json"):
        assert render(fresh, form) == render(card, form)


def test_tables_in_markdown_are_even(card: Card) -> None:
    text = render(card, "md")
    for block in re.findall(r"(?:^\|.*\|$\n?)+", text, re.M):
        widths = {len(re.split(r"(?<!\\)\|", line)) for line in block.strip().split("\n")}
        assert len(widths) == 1, block


def test_every_table_in_markdown_names_its_evidence(card: Card) -> None:
    text = render(card, "md")
    heads = re.findall(r"^(\|.*\|)\n\| -", text, re.M)
    assert heads
    assert all("Evidence" in head for head in heads)


def test_an_unknown_format_is_refused_with_the_ones_there_are(card: Card) -> None:
    with pytest.raises(NotFound, match="htlm"):
        render(card, "htlm")


def test_prose_is_paragraphs_and_lists() -> None:
    assert prose("a\nb\n\nc\n- d\n- e\nf") == [
        {"type": "p", "lines": ["a", "b"]},
        {"type": "p", "lines": ["c"]},
        {"type": "ul", "lines": ["d", "e"]},
        {"type": "p", "lines": ["f"]},
    ]


def test_other_problems_have_their_own_curves(facts: dict[str, Any], problem: Any) -> None:
    curves = facts["curves"]
    numbers = {
        "residuals": {"edges": [-1.0, 0.0, 1.0], "counts": [5, 7]},
        "predicted": {"predicted": [1.0, 2.0], "observed": [1.1, 1.9], "low": [0.9, 1.5], "high": [1.3, 2.4]},
        "points": {"predicted": [1.0, 2.0], "truth": [1.1, 1.8], "residual": [0.1, -0.2]},
    }
    facts["curves"] = msgspec.structs.replace(curves, details=numbers)
    facts["problem"] = msgspec.structs.replace(problem, task="regression", metric="rmse", classes=(), positive="")
    text = render(build(**facts), "html")
    assert all(title in text for title in ("Residuals by prediction", "Truth by prediction"))
    several = [{"name": name, "fpr": [0.0, 1.0], "tpr": [0.0, 1.0]} for name in ("a", "b")]
    facts["curves"] = msgspec.structs.replace(curves, details={"roc": several})
    assert "ROC curve" in render(build(**facts), "html")


def test_names_between_backticks_are_set_as_code_and_stay_safe(facts: dict[str, Any]) -> None:
    facts["human"]["caveats"] = ["see `<b>age</b>` and more", "one ` alone <i>"]
    text = render(build(**facts), "html")
    assert "see <code>&lt;b&gt;age&lt;/b&gt;</code> and more" in text
    assert "one ` alone &lt;i&gt;" in text
    assert "<code>lightgbm</code> scored best" in text
