"""`modelyard explain`: explain a field of the file, or an error code."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.cli.output import data, json_line, paint
from modelyard.cli.project import add_json

if TYPE_CHECKING:
    from modelyard.spec import Explained

__all__ = ["add", "error_section", "run"]

_WIDTH = 96


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "explain",
        help="explain a field of the file, or an error code",
        description="Say what a field of modelyard.yaml is, what it takes, its default and an example. The names of "
        "tables and columns may be left out, and so may everything but the last word where it is the only one. Without "
        "a field, list the sections. With an error code, print what the manual says of it.",
        epilog="example:\n  modelyard explain model.split.by\n  modelyard explain spec-unknown-field",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("field", nargs="?", default="", metavar="FIELD", help="e.g. model.split.by, data.from, trials")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print what is known of a field or of an error code."""
    from modelyard.spec import explain

    # A code has a hyphen, which no field has; `internal` is the one without.
    if ("-" in args.field or args.field == "internal") and (section := error_section(args.field)):
        if args.json:
            json_line({"code": args.field.strip("[]"), "about": section})
        else:
            data(section)
        return 0
    found = explain(args.field)
    if args.json:
        json_line(found)
    else:
        data(_text(found))
    return 0


def _text(found: Explained) -> str:
    from textwrap import fill, indent

    parts = []
    if found.path:
        parts.append(paint(found.path, "bold"))
    if found.about:
        parts.append(fill(found.about, _WIDTH))
    if found.path:
        facts = [f"takes:    {found.takes}"]
        if found.required:
            facts.append("required")
        elif found.default:
            facts.append(f"default:  {found.default}")
        parts.append("\n".join(fill(fact, _WIDTH, subsequent_indent=" " * 10) for fact in facts))
    if found.example:
        parts.append("example:\n" + indent(found.example, "  "))
    if found.fields:
        width = max(map(len, found.fields)) + 2
        rows = [
            fill(
                f"{name:{width}}{_first(about)}{_left_out(found, name)}",
                _WIDTH,
                initial_indent="  ",
                subsequent_indent=" " * (width + 2),
            )
            for name, about in found.fields.items()
        ]
        parts.append("fields:\n" + "\n".join(rows))
    return "\n\n".join(parts)


def _left_out(found: Explained, name: str) -> str:
    return f" Left out: {found.defaults[name]}." if name in found.defaults else ""


def _first(about: str) -> str:
    """The first sentence; the rest is said where the field itself is explained."""
    return re.split(r"(?<=\.) (?=[A-Z`])", about, maxsplit=1)[0]


def error_section(code: str) -> str:
    """Return what `docs/errors.md` says of an error code; empty where it says nothing.

    The page is part of the installed package; a checkout has it under `docs/`.
    """
    code = code.strip("[]")
    page = _errors_page()
    if page is None:
        return ""
    found: list[str] = []
    depth = 0
    for line in page.read_text(encoding="utf-8").splitlines():
        heading = re.match(r"(#+) +(.*)", line)
        if heading and depth and len(heading[1]) <= depth:
            break
        if heading and not depth and heading[2].strip().strip("`") == code:
            depth = len(heading[1])
            found.append(code)
        elif depth:
            found.append(line)
    return "\n".join(found).strip()


def _errors_page() -> Path | None:
    here = Path(__file__).resolve()
    for page in (here.parents[1] / "docs" / "errors.md", here.parents[3] / "docs" / "errors.md"):
        if page.is_file():
            return page
    return None
