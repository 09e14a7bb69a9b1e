"""Hold the columns that the file names against those of the data, where the files themselves tell them.

A function of the user's own may make columns of which the file knows nothing; the run holds the names against those
before anything is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from modelyard._kit.errors import near
from modelyard.checks.section import Gap, given
from modelyard.data.base import Options
from modelyard.data.header import columns_in
from modelyard.data.section import Source
from modelyard.spec.declaration import Declaration
from modelyard.spec.report import Finding
from modelyard.spec.rules.steps import tables_of

__all__ = ["column_rules", "known_columns"]

_CODE = "data-column-missing"


def column_rules(root: Path, *, files: bool) -> Callable[[Declaration], Iterator[Finding]]:
    """Return the rule of a project.

    Args:
        root: Folder of the project.
        files: Also look at the files that are named.
    """

    def rule(d: Declaration) -> Iterator[Finding]:
        named = list(_named(d))
        if not named or not (known := known_columns(d, root, files=files)):
            return
        table = tables_of(d)[0]
        for at, column, word in named:
            if column not in known:
                close = near(column, known)
                hint = f"did you mean `{close[0]}`?" if close else "there is: " + ", ".join(known[:8])
                message = f'"{word}" names "{column}", which is no column of "{table}"'
                yield Finding(at, message, hint, (f"data.{table}.*",), _CODE)

    return rule


def known_columns(d: Declaration, root: Path, *, files: bool) -> tuple[str, ...]:
    """Return the columns of the table that the model learns from; none where only a run can tell them.

    Args:
        d: The declaration.
        root: Folder of the project.
        files: Also look at the files that are named.
    """
    tables = tables_of(d)
    if d.features is not None or len(tables) != 1 or tables[0] not in d.data:
        return ()
    if any(step.feeds == tables[0] for step in d.steps.values()):
        # Its rows are what the step makes of them.
        return ()
    return _of_source(d.data[tables[0]], root, files=files)


def _of_source(source: Source, root: Path, *, files: bool) -> tuple[str, ...]:
    if source.columns or not files:
        return source.columns
    options = Options(source.delimiter, source.null_values, source.comment or "")
    return columns_in(source.from_, root, options) or ()


def _named(d: Declaration) -> Iterator[tuple[str, str, str]]:
    """Yield the path, the name and the word of every column that a model, a check or the card asks for."""
    if d.model is None:
        return
    for index, column in enumerate(d.model.drop):
        yield f"model.drop.{index}", column, "model.drop"
    if d.model.split.column and d.model.split.by != "random":
        yield "model.split.column", d.model.split.column, "model.split.column"
    for index, entry in enumerate(d.checks):
        found = given(entry)
        if found is not None and isinstance(found[1], Gap):
            for column in found[1].across:
                yield f"checks.{index}.gap.across", column, "across"
    for index, column in enumerate(d.card.factors):
        yield f"card.factors.{index}", column, "card.factors"
