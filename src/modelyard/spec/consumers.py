"""Read contract files of consumers, as the declaration is read: every mistake at once, with its line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from msgspec import inspect

from modelyard._kit.errors import NotFound
from modelyard.serving.contract.consumer import Consumer
from modelyard.spec.convert import convert
from modelyard.spec.read import read
from modelyard.spec.report import Report
from modelyard.spec.shape import shape_of

__all__ = ["load_consumer"]


def load_consumer(path: Path) -> Consumer:
    """Read a contract file, YAML or JSON.

    Raises:
        SpecError: With every mistake found, in the order of the file.
        NotFound: There is no such file (`contract-not-found`).
    """
    try:
        data = path.read_bytes()
    except OSError:
        raise NotFound.of("contract", str(path), _contracts(path.parent)) from None
    report = Report(str(path))
    found, places = convert(read(data, report), report, shape_of(inspect.type_info(Consumer)))
    for at, one in enumerate(found.interactions):
        for pointer in one.answer.fields:
            if pointer and not pointer.startswith("/"):
                path_ = f"interactions.{at}.answer.fields.{pointer}"
                line, column = places.get(path_, (0, 1))
                report.add(
                    "spec-bad-value",
                    f"`{pointer}` is no JSON Pointer",
                    line,
                    column,
                    hint="begin with a slash: `/predictions/*/label`",
                )
    report.stop_if_any()
    consumer: Consumer = found
    return consumer


def _contracts(folder: Path) -> Iterator[str]:
    """Yield the contract files in a folder, and in `contracts` below it."""
    for path in (*folder.glob("*.y*ml"), *folder.glob("contracts/*.y*ml")):
        with suppress(OSError):
            if b"\ninteractions:" in path.read_bytes():
                yield str(path)
