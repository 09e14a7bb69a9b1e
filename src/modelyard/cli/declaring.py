"""Which file declares an endpoint: what it says of guards, callers and the log has to hold wherever it is served."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard._kit.errors import NotFound, SpecError, UserError
from modelyard.cli.output import say
from modelyard.cli.project import FILE, load_spec

if TYPE_CHECKING:
    from modelyard.spec import Spec

__all__ = ["check_declared", "declaration"]


def declaration(args: argparse.Namespace) -> Spec | None:
    """Read the file, none where it is that of the default name and not there.

    Args:
        args: With `file`.

    Raises:
        SpecError: The file is wrong.
        NotFound: The file that `-f` names is not there (`spec-not-found`).
    """
    if args.file == FILE and not Path(args.file).exists():
        return None
    return load_spec(args, files=False)


def check_declared(args: argparse.Namespace, spec: Spec | None, endpoint: str) -> None:
    """Refuse to take the words of one file, or of none, for those of the file that declares an endpoint.

    Args:
        args: With `file`.
        spec: What `declaration` returned of it.
        endpoint: Name of an endpoint of the project.

    Raises:
        UserError: Another file of the folder declares it, and this one does not (`endpoint-other-file`).
    """
    if spec is not None and _has(spec, endpoint):
        return
    file = Path(args.file)
    beside = sorted(one for one in file.resolve().parent.glob("*.y*ml") if one != file.resolve())
    if found := [one.name for one in beside if _names(one, endpoint)]:
        here = f"not by `{args.file}`" if spec is not None else f"and there is no `{args.file}`"
        raise UserError(
            "endpoint-other-file",
            f"`{endpoint}` is declared by {' and '.join(f'`{name}`' for name in found)}, {here}: what is said there of "
            "guards, limits and roles would not hold",
            hint=f"name it: -f {file.parent / found[0]}",
        )
    if spec is None:
        say(f"note: there is no `{args.file}` here: no guards, limits or roles are declared for `{endpoint}`")


def _has(spec: Spec, endpoint: str) -> bool:
    return endpoint in {spec.model_name, *spec.stages.values()}


def _names(file: Path, endpoint: str) -> bool:
    """Whether a file declares an endpoint: one that is wrong does where it is a declaration and names it."""
    from modelyard.spec import load

    try:
        return _has(load(file, files=False), endpoint)
    except (SpecError, NotFound):
        text = file.read_text(errors="replace") if file.is_file() else ""
        return bool(
            re.search(r"^project:", text, re.M) and re.search(rf"(?<![\w.-]){re.escape(endpoint)}(?![\w.-])", text)
        )
