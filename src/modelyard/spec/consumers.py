"""Read contract files of consumers, as the declaration is read: every mistake at once, with its line."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from msgspec import inspect

from modelyard._kit.errors import NotFound
from modelyard.serving.contract.consumer import Consumer
from modelyard.serving.contract.steps import Given
from modelyard.spec.convert import convert
from modelyard.spec.read import read
from modelyard.spec.report import Report
from modelyard.spec.shape import shape_of

__all__ = ["contract_files", "load_contract"]


def contract_files(pattern: str, root: Path) -> list[str]:
    """Return the files that a name or a pattern leads to, in order, as the declaration would name them."""
    found = glob.glob(str(root / Path(pattern).expanduser()), recursive=True)  # noqa: PTH207 - `Path.glob` takes no absolute pattern
    paths = sorted(path for path in map(Path, found) if path.is_file())
    return [path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path) for path in paths]


def load_contract(name: str, root: Path = Path()) -> Given:
    """Read a contract file, YAML or JSON.

    Args:
        name: Its name.
        root: Folder that the name begins at.

    Raises:
        SpecError: With every mistake found, in the order of the file.
        NotFound: There is no such file (`contract-not-found`).
    """
    path = root / name
    try:
        data = path.read_bytes()
    except OSError:
        raise NotFound.of("contract", name, _contracts(path.parent)) from None
    report = Report(name)
    found, places = convert(read(data, report), report, shape_of(inspect.type_info(Consumer)))
    consumer: Consumer = found
    lines: dict[str, int] = {}
    for at, one in enumerate(consumer.interactions):
        lines.setdefault(one.name, places.get(f"interactions.{at}", (1, 1))[0])
        for pointer in one.answer.fields:
            if pointer and not pointer.startswith("/"):
                line, column = places.get(f"interactions.{at}.answer.fields.{pointer}", (0, 1))
                report.add(
                    "spec-bad-value",
                    f"`{pointer}` is no JSON Pointer",
                    line,
                    column,
                    hint="begin with a slash: `/predictions/*/label`",
                )
    report.stop_if_any()
    return Given(file=name, consumer=consumer, lines=lines)


def _contracts(folder: Path) -> Iterator[str]:
    """Yield the contract files in a folder, and in `contracts` below it."""
    for path in (*folder.glob("*.y*ml"), *folder.glob("contracts/*.y*ml")):
        with suppress(OSError):
            if b"\ninteractions:" in path.read_bytes():
                yield str(path)
