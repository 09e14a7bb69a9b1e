"""Find what was changed in a printed card: numbers by name, anything else by line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher
from html.parser import HTMLParser
from typing import Any

import msgspec

from modelyard.cards.view import cells
from modelyard.records import Card

__all__ = ["differences"]

# More than this many sentences help nobody; the rest is counted.
_MOST = 40
_EXCERPT = 90


def differences(form: str, expected: str, found: str, card: Card) -> list[str]:
    """Return one sentence for each difference between a card as it prints and a file.

    Args:
        form: `html`, `md` or `json`.
        expected: What the card prints.
        found: What the file holds.
        card: The card.
    """
    how: dict[str, Callable[[str, str, Card], list[str]]] = {"html": _html, "md": _markdown, "json": _json}
    told = list(dict.fromkeys(how[form](expected, found, card)))
    if len(told) > _MOST:
        told = [*told[:_MOST], f"and {len(told) - _MOST} more differences"]
    return told


def _changed(section: str, label: str, expected: str, found: str) -> str:
    return f'section "{section}": {label}: expected {expected or "nothing"}, found {found or "nothing"}'


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return f"`{line if len(line) <= _EXCERPT else line[: _EXCERPT - 1] + '…'}`"


def _edits(expected: Sequence[str], found: Sequence[str]) -> Iterator[tuple[int, int, int, int]]:
    """Yield the ranges (in expected, in found) that differ; what is equal at both ends costs nothing."""
    start, a, b = 0, len(expected), len(found)
    while start < min(a, b) and expected[start] == found[start]:
        start += 1
    while a > start and b > start and expected[a - 1] == found[b - 1]:
        a, b = a - 1, b - 1
    for tag, i, j, k, m in SequenceMatcher(None, expected[start:a], found[start:b]).get_opcodes():
        if tag != "equal":
            yield start + i, start + j, start + k, start + m


# --- HTML -------------------------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """The facts of a page by key, and everything else as tokens with their lines."""

    _LINKED = ("value", "data-value", "data-evidence", "data-path")

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.facts: dict[str, str] = {}
        self.links: dict[str, dict[str, str]] = {}
        self.twice: list[str] = []
        self.tokens: list[str] = []
        self.lines: list[int] = []
        self._open: tuple[str, str] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        place = given.get("data-fact")
        if place is None:
            self._note(self.get_starttag_text() or tag)
            return
        if place in self.facts:
            self.twice.append(place)
        self.facts[place] = ""
        self.links[place] = {name: given[name] for name in self._LINKED if name in given}
        self._open = (tag, place)
        # What is told by name is left out here, so that one change is told once.
        rest = [f"{n}={v}" for n, v in sorted(given.items()) if n not in self._LINKED]
        self._note(f"<{tag} {' '.join(rest)}>")

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[0] == tag:
            self._open = None
        self._note(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.facts[self._open[1]] += data
        else:
            first = self.getpos()[0]
            for i, line in enumerate(data.split("\n")):
                if line.strip():
                    self._note(line, first + i)

    def handle_comment(self, data: str) -> None:
        self._note(f"<!--{data}-->")

    def handle_decl(self, decl: str) -> None:
        self._note(f"<!{decl}>")

    def handle_pi(self, data: str) -> None:
        self._note(f"<?{data}>")

    def unknown_decl(self, data: str) -> None:
        self._note(f"<![{data}]>")

    def _note(self, text: str, line: int = 0) -> None:
        self.tokens.append(text)
        self.lines.append(line or self.getpos()[0])


def _html(expected: str, found: str, card: Card) -> list[str]:
    a, b = _Page(expected), _Page(found)
    told: list[str] = []
    names = {cell.key: (section.title, cell.label) for section, cell in cells(card)}
    for place, text in a.facts.items():
        section, label = names[place]
        if place not in b.facts:
            told.append(_changed(section, label, text, ""))
        elif b.facts[place] != text:
            told.append(_changed(section, label, text, b.facts[place]))
        elif b.links[place] != a.links[place]:
            key = next(k for k in _Page._LINKED if a.links[place].get(k) != b.links[place].get(k))
            what = {
                "value": "whole value",
                "data-value": "whole value",
                "data-evidence": "evidence",
                "data-path": "path in its evidence",
            }[key]
            told.append(
                _changed(section, f"{label}, its {what}", a.links[place].get(key, ""), b.links[place].get(key, ""))
            )
    told += [f"a number that the card does not have: {_excerpt(b.facts[p])}" for p in b.facts if p not in a.facts]
    told += [f"two numbers claim the place {place}" for place in b.twice]
    named = bool(told)
    for i, j, k, m in _edits(a.tokens, b.tokens):
        line = b.lines[k] if k < len(b.lines) else b.lines[-1] if b.lines else 1
        was, now = " ".join(a.tokens[i:j]), " ".join(b.tokens[k:m])
        if "data-fact" in was and not now and named:
            continue
        told.append(_other(line, was, now))
    return told or _by_line(expected, found)


def _other(line: int, was: str, now: str) -> str:
    if not was:
        return f"line {line}: {_excerpt(now)} was added"
    if not now:
        return f"line {line}: {_excerpt(was)} is gone"
    # Long lines that begin alike are told from shortly before they part.
    same = next((i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), 0)
    start = max(0, same - _EXCERPT // 3) if max(len(was), len(now)) > _EXCERPT else 0
    return f"line {line}: expected {_excerpt(was[start:])}, found {_excerpt(now[start:])}"


def _by_line(expected: str, found: str) -> list[str]:
    a, b = expected.split("\n"), found.split("\n")
    return [_other(k + 1, " ".join(a[i:j]), " ".join(b[k:m])) for i, j, k, m in _edits(a, b)]


# --- Markdown ---------------------------------------------------------------------------------------------------


def _markdown(expected: str, found: str, card: Card) -> list[str]:
    del card
    a, b = expected.split("\n"), found.split("\n")
    told: list[str] = []
    for i, j, k, m in _edits(a, b):
        # Row by row where rows stand against rows; what is left over was added or is gone.
        both = min(j - i, m - k)
        for step in range(both):
            told += _markdown_line(a, i + step, b[k + step], k + step + 1)
        told += [_other(k + both + 1, line, "") for line in a[i + both : j]]
        told += [_other(k + both + n + 1, "", line) for n, line in enumerate(b[k + both : m])]
    return told


def _markdown_line(lines: Sequence[str], index: int, found: str, number: int) -> list[str]:
    was = lines[index]
    if not (was.startswith("| ") and found.startswith("| ")):
        return [_other(number, was, found)]
    left, right = _split_row(was), _split_row(found)
    if len(left) != len(right):
        return [_other(number, was, found)]
    section = next((t.lstrip("#").strip() for t in lines[index::-1] if t.startswith("## ")), "")
    top = index
    while top > 0 and lines[top - 1].startswith("| "):
        top -= 1
    header = _split_row(lines[top])
    told = []
    for column, (old, new) in enumerate(zip(left, right, strict=True)):
        if old != new:
            label = f"{left[0]}, {header[column]}" if column else left[0]
            told.append(_changed(re.sub(r"^\d+\. ", "", section), label, old, new))
    return told


def _split_row(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


# --- JSON -------------------------------------------------------------------------------------------------------


def _json(expected: str, found: str, card: Card) -> list[str]:
    try:
        there = msgspec.json.decode(found)
    except msgspec.DecodeError as error:
        return [f"the file is not JSON: {error}"]
    told = [_json_fault(card, path, was, now) for path, was, now in _walk(msgspec.json.decode(expected), there, ())]
    return told or _by_line(expected, found)


_MISSING = object()


def _walk(a: Any, b: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            yield from _walk(a.get(key, _MISSING), b.get(key, _MISSING), (*path, key))
    elif isinstance(a, list) and isinstance(b, list):
        for i in range(max(len(a), len(b))):
            yield from _walk(a[i] if i < len(a) else _MISSING, b[i] if i < len(b) else _MISSING, (*path, i))
    elif type(a) is not type(b) or a != b:
        yield path, a, b


def _json_fault(card: Card, path: tuple[str | int, ...], was: Any, now: Any) -> str:
    old, new = (
        "" if v is _MISSING else v if isinstance(v, str) else msgspec.json.encode(v).decode() for v in (was, now)
    )
    if len(path) >= 4 and path[0] == "sections" and isinstance(path[1], int) and path[1] < len(card.sections):
        section = card.sections[path[1]]
        return _changed(section.title, _json_label(card, path), old, new)
    where = ".".join(map(str, path))
    return f"`{where}`: expected {_excerpt(old) if old else 'nothing'}, found {_excerpt(new) if new else 'nothing'}"


def _json_label(card: Card, path: tuple[str | int, ...]) -> str:
    """Return the label of the fact that a path leads to, or the path below its section."""
    node: Any = card.sections[int(path[1])]
    label = ""
    for i, part in enumerate(path[2:], start=2):
        try:
            node = node[part] if isinstance(part, int) or isinstance(node, dict) else getattr(node, str(part))
        except (AttributeError, IndexError, KeyError):
            break
        label = getattr(node, "label", "") or label
        if label:
            rest = ".".join(map(str, path[i + 1 :]))
            return label if rest == "value" else f"{label}, its {rest}"
    return ".".join(map(str, path[2:]))
