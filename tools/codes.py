"""List the error codes that a user can meet, each with the places that raise it: what `docs/errors.md` must explain.

A code is what is given to an error, or to a parameter, field or variable called `code`; the first of three texts that
are returned or yielded; or what stands in `error[...]`. Gaps (`f"model-too-few-{what}"`) are filled from the callers.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "modelyard"
_CODE = re.compile(r"[a-z]+(-[a-z0-9]+)+")
_SHOWN = re.compile(r"(?:^\[(?=[a-z]+-)|error\[)([a-z-]+)\](?=[ :])")

# All others, three of four, are left out at once.
_LOOKED_AT = {
    ast.AnnAssign,
    ast.Assign,
    ast.Call,
    ast.ClassDef,
    ast.Constant,
    ast.FunctionDef,
    ast.Return,
    ast.Yield,
    ast.arguments,
}


def codes() -> dict[str, list[str]]:
    """Return code -> places where it is raised, without the conformance kit, which plays with codes of its own."""
    files = [file for file in sorted(PACKAGE.rglob("*.py")) if "conformance" not in file.parts]
    trees = {file: [n for n in ast.walk(ast.parse(file.read_text("utf-8"))) if type(n) in _LOOKED_AT] for file in files}
    makers = _makers(trees)
    found: dict[str, list[str]] = {}
    for file, tree in trees.items():
        for code, node in [*_plain(tree, makers), *_filled(tree, makers)]:
            found.setdefault(code, []).append(f"{file.relative_to(PACKAGE.parent)}:{getattr(node, 'lineno', 0)}")
    return found


def _makers(trees: dict[Path, list[ast.AST]]) -> set[str]:
    """Return the names of the errors, and of the functions that take a `code`."""
    nodes = [n for tree in trees.values() for n in tree]
    names = {n.name for n in nodes if isinstance(n, ast.FunctionDef) and "code" in [a.arg for a in n.args.args]}
    names = names - {"__init__"} | {"Problem", "HttpError", "ModelyardError"}
    classes = [(n.name, {ast.unparse(base) for base in n.bases}) for n in nodes if isinstance(n, ast.ClassDef)]
    while more := {name for name, bases in classes if names & bases} - names:
        names |= more
    return names


def _called(call: ast.Call) -> str:
    return getattr(call.func, "id", "") or getattr(call.func, "attr", "")


def _texts(*nodes: ast.AST | None) -> Iterator[str]:
    yield from (n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))


def _plain(tree: list[ast.AST], makers: set[str]) -> Iterator[tuple[str, ast.AST]]:
    for node in tree:
        places: list[ast.AST | None] = []
        match node:
            case ast.Constant(value=str(text)):
                yield from ((code, node) for code in _SHOWN.findall(text))
            case ast.Call(args=args, keywords=keywords):
                # An error over HTTP takes its status first.
                places = [k.value for k in keywords if k.arg == "code"] + (args[:2] if _called(node) in makers else [])
            case ast.arguments(args=args, defaults=[_, *_] as defaults):
                places = [d for a, d in zip(args[-len(defaults) :], defaults, strict=False) if a.arg == "code"]
            case ast.Assign(targets=[to], value=value) | ast.AnnAssign(target=to, value=ast.expr() as value):
                places = [*ast.walk(value)] if "code" in map(ast.unparse, ast.walk(to)) else []
            case ast.Yield(value=ast.Tuple(elts=[first, _, _])) | ast.Return(value=ast.Tuple(elts=[first, _, _])):
                places = [first]
        yield from ((text, node) for text in _texts(*places) if _CODE.fullmatch(text))
        match node:
            # Two codes are one word.
            case ast.Call(args=[ast.Constant(value="internal" | "system" as text), *_]) if _called(node) in makers:
                yield text, node


def _filled(tree: list[ast.AST], makers: set[str]) -> Iterator[tuple[str, ast.AST]]:
    gaps: dict[str, tuple[str, str]] = {}
    for node in tree:
        match node:
            case ast.FunctionDef(body=[*_, ast.Return(value=ast.Call(args=[ast.JoinedStr() as text, *_]) as call)]):
                gap = re.fullmatch(r"f'([^{]*)\{(\w+)\}([^{]*)'", ast.unparse(text))
                if gap and _called(call) in makers:
                    gaps[node.name] = (f"{gap[1]}{{}}{gap[3]}", gap[2])
    for node in tree:
        match node:
            case ast.Call(func=ast.Name(id=name), args=[first, *_]) if name in gaps:
                yield from ((gaps[name][0].format(text), node) for text in _texts(first))
            case ast.Call(func=ast.Attribute(value=ast.Name(id="NotFound"), attr="of"), args=[first, *_]):
                yield from ((f"{text.replace(' ', '-')}-not-found", node) for text in _texts(first))
            case ast.arguments(args=[*_, last], defaults=[default]):
                forms = [form for form, gap in gaps.values() if gap == last.arg]
                yield from ((form.format(text), node) for form in forms for text in _texts(default))


if __name__ == "__main__":
    for code, places in sorted(codes().items()):
        sys.stdout.write(f"{code:<32} {', '.join(places)}\n")
