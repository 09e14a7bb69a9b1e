"""Turn the text of a YAML file into nodes that know their line.

The rules for plain words are those of YAML 1.2: `yes` and `12:30` are text, `010` is ten. Nothing is ever built but
text, numbers, truth values, lists and mappings, whatever a tag asks for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from modelyard.spec.report import Report

__all__ = ["Entry", "Listing", "Mapping", "Node", "Scalar", "read"]

_MOST_BYTES = 1 << 20
# libyaml's composer recurses in C and a thousand brackets end the process; events do not, and no file needs more.
_MOST_DEPTH = 40
_TAGS = {"str", "int", "float", "bool", "null", "seq", "map"}
_CORE = "tag:yaml.org,2002:"

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]{1,40}")
_BASED = re.compile(r"0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(slots=True)
class Node:
    """A value of the file, with the line and column (from 1) where it begins."""

    line: int
    column: int


@dataclass(slots=True)
class Scalar(Node):
    """Text, a number, a truth value or nothing; `text` is how it was written."""

    value: str | int | float | bool | None
    text: str


@dataclass(slots=True)
class Listing(Node):
    """A list."""

    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Entry:
    """A key's place, and its value."""

    line: int
    column: int
    value: Node


@dataclass(slots=True)
class Mapping(Node):
    """Keys and their values, in order."""

    entries: dict[str, Entry] = field(default_factory=dict)


def read(data: bytes, report: Report) -> Mapping:
    """Return the mapping that the file holds.

    Args:
        data: Bytes of the file.
        report: Takes mistakes that leave the rest readable (a key that stands twice, a tag).

    Raises:
        SpecError: The file cannot be read at all.
    """
    text = _text(data, report)
    root = _Reader(text, report).document()
    if root is None:
        _fail(report, "spec-empty", "the file is empty", 0, hint="`modelyard init` writes one that runs")
    if not isinstance(root, Mapping):
        what = "a list" if isinstance(root, Listing) else "one value"
        _fail(
            report,
            "spec-not-a-mapping",
            f"the file holds {what}, not fields with values",
            root.line,
            hint="begin it with `project: NAME`",
        )
    return root


def _fail(report: Report, code: str, message: str, line: int, *, hint: str = "") -> NoReturn:
    report.add(code, message, line, hint=hint)
    report.stop_if_any()
    raise AssertionError  # pragma: no cover


def _text(data: bytes, report: Report) -> str:
    if len(data) > _MOST_BYTES:
        _fail(
            report,
            "spec-too-large",
            f"the file has {len(data):,} bytes; a declaration has at most {_MOST_BYTES:,}",
            0,
            hint="data belongs in files of its own, named by `from`",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        _fail(
            report,
            "spec-not-utf8",
            f"byte 0x{data[error.start]:02x} is not UTF-8",
            line,
            hint="save the file as UTF-8",
        )


def _resolve(text: str) -> str | int | float | bool | None:
    """Return what a plain word means in YAML 1.2."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", ""))
    return text


class _Reader:
    """Builds nodes from the parser's events, one at a time."""

    def __init__(self, text: str, report: Report) -> None:
        self._text = text
        self._report = report
        self._anchors: dict[str, Node | None] = {}
        self._parser = _parser(text)

    def document(self) -> Node | None:
        """Return the one document of the file; none if there is none."""
        try:
            self._parser.get_event()
            if isinstance(self._parser.get_event(), yaml.StreamEndEvent):
                return None
            root = self._node(self._parser.get_event(), 0)
            self._parser.get_event()
            after = self._parser.get_event()
        except yaml.MarkedYAMLError as error:
            self._syntax(error)
        except yaml.reader.ReaderError as error:
            code = error.character if isinstance(error.character, int) else ord(error.character)
            line = self._text.count("\n", 0, self._text.find(chr(code))) + 1
            _fail(
                self._report,
                "spec-not-yaml",
                f"the character U+{code:04X} may not stand in YAML",
                line,
                hint="delete it; it is often invisible",
            )
        if not isinstance(after, yaml.StreamEndEvent):
            _fail(
                self._report,
                "spec-not-yaml",
                "`---` begins a second document",
                after.start_mark.line + 1,
                hint="keep one document a file",
            )
        if isinstance(root, Scalar) and root.text == "":
            return None
        return root

    def _node(self, event: Any, depth: int) -> Node:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if depth > _MOST_DEPTH:
            _fail(
                self._report,
                "spec-not-yaml",
                f"more than {_MOST_DEPTH} levels stand in each other here",
                line,
                hint="close the brackets",
            )
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, line)
        self._check_tag(event, line, column)
        if event.anchor:
            # Not whole yet: an alias to it from inside would have no end.
            self._anchors[event.anchor] = None
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, line, column)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = Listing(line, column)
            while not isinstance(inner := self._parser.get_event(), yaml.SequenceEndEvent):
                node.items.append(self._node(inner, depth + 1))
        else:
            node = self._mapping(line, column, depth)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any, line: int) -> Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            what = "stands inside itself" if event.anchor in self._anchors else "names no anchor above it"
            hint = "put it in quotes if it is a text"
            _fail(self._report, "spec-not-yaml", f'the alias "*{event.anchor}" {what}', line, hint=hint)
        return node

    def _check_tag(self, event: Any, line: int, column: int) -> None:
        tag = event.tag
        if tag in (None, "!") or (tag.startswith(_CORE) and tag.removeprefix(_CORE) in _TAGS):
            return
        self._report.add(
            "spec-unsafe-tag",
            f'the tag "{tag.replace(_CORE, "!!")}" is refused: the file holds plain values only',
            line,
            column,
            hint="take the tag out",
        )

    def _scalar(self, event: Any, line: int, column: int) -> Scalar:
        text = event.value
        plain = event.style in (None, "") and event.tag is None
        kind = (event.tag or "").removeprefix(_CORE)
        value = _resolve(text) if plain or kind in ("int", "float", "bool", "null") else text
        return Scalar(line, column, value, text)

    def _mapping(self, line: int, column: int, depth: int) -> Mapping:
        node = Mapping(line, column)
        merged: list[Entry] = []
        while not isinstance(event := self._parser.get_event(), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(self._parser.get_event(), depth + 1)
            entry = Entry(key.line, key.column, value)
            if not isinstance(key, Scalar):
                self._report.add(
                    "spec-not-yaml",
                    "a key must be text, not a list or a mapping",
                    key.line,
                    key.column,
                    hint="put it in quotes if it is a text",
                )
            elif key.text == "<<":
                merged.append(entry)
            elif key.text in node.entries:
                self._report.add(
                    "spec-duplicate-key",
                    f'"{key.text}" stands twice; the first is on line {node.entries[key.text].line}',
                    key.line,
                    key.column,
                    hint="keep one of them",
                )
            else:
                node.entries[key.text] = entry
        for entry in merged:
            self._merge(node, entry)
        return node

    def _merge(self, node: Mapping, entry: Entry) -> None:
        """Take the fields of `<<: *other`; what stands here itself wins."""
        for source in entry.value.items if isinstance(entry.value, Listing) else [entry.value]:
            if isinstance(source, Mapping):
                for name, theirs in source.entries.items():
                    node.entries.setdefault(name, theirs)
            else:
                self._report.add(
                    "spec-not-yaml",
                    "`<<` takes fields from an anchor, and this is none",
                    entry.line,
                    entry.column,
                    hint="for example `<<: *common`, with `&common` after the key of the fields",
                )

    def _syntax(self, error: Any) -> NoReturn:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1
        lines = self._text.splitlines()
        here = lines[mark.line] if mark.line < len(lines) else ""
        if "\t" in here[: len(here) - len(here.lstrip())]:
            _fail(
                self._report,
                "spec-tab",
                "the line is indented with a tab; YAML allows spaces only",
                line,
                hint="put two spaces for each tab",
            )
        problem = str(error.problem).replace("\\'", "'")
        hint = "check the indentation and the quotes of this line and the one above"
        if "cannot start any token" in problem and mark.column < len(here):
            problem = f'a value cannot begin with "{here[mark.column]}"'
            hint = "put the value in quotes"
        elif error.context in ("while scanning an alias", "while scanning an anchor"):
            problem = f'a value that begins with "{here[mark.column - 1 : mark.column]}" needs quotes'
            hint = f'write "{here[mark.column - 1 :].strip()}" in quotes'
        elif "mapping values are not allowed" in problem:
            problem = "a `:` stands where none can"
            hint = "check the indentation; a text with `: ` in it needs quotes"
        elif "end of stream" in problem:
            problem = "a quote is opened and never closed"
            line = (error.context_mark or mark).line + 1
            hint = "close it"
        _fail(self._report, "spec-not-yaml", f"not YAML: {problem}", line, hint=hint)


def _parser(text: str) -> Any:
    """Return libyaml's parser, or PyYAML's own where it was built without."""
    try:
        from yaml._yaml import CParser
    except ImportError:
        from yaml.parser import Parser
        from yaml.reader import Reader
        from yaml.scanner import Scanner

        class PlainParser(Reader, Scanner, Parser):
            def __init__(self, stream: str) -> None:
                Reader.__init__(self, stream)
                Scanner.__init__(self)
                Parser.__init__(self)

        return PlainParser(text)
    return CParser(text)
