"""What cannot stand in `store`."""

from __future__ import annotations

from collections.abc import Iterator

from modelyard._kit.errors import UserError
from modelyard.spec.declaration import Declaration
from modelyard.spec.report import Finding
from modelyard.store.address import check_schema, parse_address
from modelyard.store.local import LOCAL

__all__ = ["store_rules"]


def store_rules(d: Declaration) -> Iterator[Finding]:
    """Yield what is wrong with the address of the store; the server itself is not asked."""
    if d.store is None or d.store == LOCAL:
        return
    try:
        check_schema(parse_address(d.store).schema or d.project)
    except UserError as error:
        yield Finding("store", error.problem.message, error.problem.hint, ("project",), code=error.code)
