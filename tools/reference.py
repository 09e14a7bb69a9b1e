"""Write the reference pages from the code: fields of the file, verbs, checks; `--check` fails where one is old."""

from __future__ import annotations

import argparse
import io
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = "<!-- Written by tools/reference.py from the code; do not edit. -->\n\n"


def verbs() -> str:
    """Return every verb with its help, as the terminal prints it at 100 columns."""
    os.environ["COLUMNS"] = "100"
    from modelyard.cli.main import VERBS, parser

    top = parser()
    text = f"# The command line\n\n{HEAD}```text\n{top.format_help()}```\n"
    actions = next(a for a in top._actions if isinstance(a, argparse._SubParsersAction))
    for verb in VERBS:
        text += f"\n## `modelyard {verb}`\n\n```text\n{actions.choices[verb].format_help()}```\n"
    return text


def fields() -> str:
    """Return every field of the file with what `modelyard explain` says of it."""
    from modelyard.cli.main import main
    from modelyard.spec.explain import paths

    text = f"# Fields of `modelyard.yaml`\n\n{HEAD}"
    for path in paths():
        out = io.StringIO()
        with redirect_stdout(out):
            code = main(["explain", path])
        if code:
            raise SystemExit(f"modelyard explain {path} ended with {code}")
        level = "##" if "." not in path else "###"
        text += f"{level} `{path}`\n\n```text\n{out.getvalue().strip()}\n```\n\n"
    return text


PAGES = {"docs/reference/cli.md": verbs, "docs/reference/fields.md": fields}


def main() -> int:
    """Write the pages, or with `--check` compare them."""
    old = []
    for name, make in PAGES.items():
        page, text = ROOT / name, make()
        if "--check" in sys.argv[1:]:
            if not page.exists() or page.read_text(encoding="utf-8") != text:
                old.append(name)
        else:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text, encoding="utf-8")
            print(f"wrote {name}")
    for name in old:
        print(f"{name} is not what the code says; `make docs` writes it again", file=sys.stderr)
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())
