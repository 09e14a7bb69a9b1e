"""What cannot stand in `logs`."""

from __future__ import annotations

from collections.abc import Iterator

from modelyard.logs.section import is_safe
from modelyard.spec.declaration import Declaration
from modelyard.spec.report import Finding
from modelyard.spec.sections.addresses import problem_of, scheme_of

__all__ = ["log_rules"]

# Files are deleted day by day.
_LEAST_KEPT = 3600.0
_LEAST_SIZE = 1_000_000


def log_rules(d: Declaration) -> Iterator[Finding]:
    """Yield what is wrong with the sinks, and with how long lines stay."""
    web = False
    for index, address in enumerate(d.logs.to):
        at = "logs.to" if len(d.logs.to) == 1 else f"logs.to.{index}"
        if address in d.logs.to[:index]:
            yield Finding(at, f'the sink "{_shown(address)}" stands twice', "keep one of them")
            continue
        if scheme_of(address) in ("http", "https", "env", "file"):
            web = True
            wrong = problem_of(address)
            if wrong is not None:
                yield Finding(at, wrong.message, wrong.hint, code=wrong.code)
            elif scheme_of(address) == "http" and not is_safe(address):
                message = "everybody on the way could read the lines: the address is `http://` on another machine"
                yield Finding(at, message, "take `https://`", code="spec-bad-address")
    if d.logs.token is not None and not web:
        message = '"logs.token" is sent to web addresses, and "logs.to" has none'
        yield Finding("logs.token", message, "take it out, or name an address", ("logs.to",))
    if d.logs.keep < _LEAST_KEPT:
        yield Finding("logs.keep", "lines that are gone within the hour explain nothing", "for example `keep: 30d`")
    if d.logs.size < _LEAST_SIZE:
        yield Finding("logs.size", "less than a megabyte holds hardly a run", "for example `size: 1GB`")


def _shown(address: str) -> str:
    return address if problem_of(address) is None else scheme_of(address)
