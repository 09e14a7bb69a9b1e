"""What cannot stand in `logs`."""

from __future__ import annotations

from collections.abc import Iterator

from modelyard.logs.section import is_safe
from modelyard.spec.declaration import Declaration
from modelyard.spec.report import Finding
from modelyard.spec.sections.addresses import problem_of, scheme_of, source_of

__all__ = ["log_rules"]

_WEB = ("http", "https", "env", "file")
# Files are deleted day by day.
_LEAST_KEPT = 3600.0
_LEAST_SIZE = 1_000_000


def log_rules(d: Declaration) -> Iterator[Finding]:
    """Yield what is wrong with the sinks, and with how long lines stay."""
    for index, address in enumerate(d.logs.to):
        at = "logs.to" if len(d.logs.to) == 1 else f"logs.to.{index}"
        if address in d.logs.to[:index]:
            yield Finding(at, "a sink stands twice", "keep one of them")
        elif (wrong := _wrong(address)) is not None:
            code, message, hint = wrong
            yield Finding(at, message, hint, code=code)
    web = any(scheme_of(address) in _WEB for address in d.logs.to)
    if d.logs.token is not None and source_of(d.logs.token) is None:
        # What stands there may be the token itself, so it is not shown.
        message = '"logs.token" says where the token is, and is not the token'
        yield Finding("logs.token", message, "write `env:NAME` or `file:PATH`", code="spec-secret")
    elif d.logs.token is not None and not web:
        message = '"logs.token" is sent to web addresses, and "logs.to" has none'
        yield Finding("logs.token", message, "take it out, or name an address", ("logs.to",))
    if d.logs.keep < _LEAST_KEPT:
        yield Finding("logs.keep", "lines that are gone within the hour explain nothing", "for example `keep: 30d`")
    if d.logs.size < _LEAST_SIZE:
        yield Finding("logs.size", "less than a megabyte holds hardly a run", "for example `size: 1GB`")


def _wrong(address: str) -> tuple[str, str, str] | None:
    """Return code, message and hint for an address that is no sink; it is not shown, since it may hold a secret."""
    if address == "syslog" or address.startswith("syslog:/"):
        return None
    if scheme_of(address) not in _WEB:
        message = "it is no sink: neither a web address nor the system's log"
        return "spec-bad-address", message, "write `https://HOST/PATH`, `syslog`, `syslog:/SOCKET` or `env:NAME`"
    wrong = problem_of(address)
    if wrong is not None:
        return wrong.code, wrong.message, wrong.hint
    if source_of(address) is None and not is_safe(address):
        message = "everybody on the way could read the lines: the address is `http://` on another machine"
        return "spec-bad-address", message, "take `https://`"
    return None
