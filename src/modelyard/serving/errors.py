"""What a caller is told when a request is not answered: a code, a sentence, an id; never what is inside."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from modelyard._kit.errors import near
from modelyard.store.requests import LOAD_TEST

__all__ = [
    "HttpError",
    "bad",
    "body_of",
    "body_too_large",
    "check_id",
    "errs",
    "headers_too_large",
    "killed",
    "named",
    "not_http",
    "suggest",
]

_LONGEST_NAME = 200
_ID = re.compile(r"[!-~]{1,128}")


class HttpError(Exception):
    """A request that is refused.

    Args:
        status: HTTP status.
        code: Stable code with a section in `docs/errors.md`.
        message: One sentence for the caller: no path, no name of a library.
        headers: Headers of the answer beside the usual ones.
    """

    def __init__(self, status: int, code: str, message: str, *, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


def bad(code: str, message: str) -> HttpError:
    """Return the error for a body that cannot be used."""
    return HttpError(400, code, message)


def errs(error: BaseException) -> bool:
    """Say that a version is to blame for a request that was not answered: not its caller, and no guard by policy."""
    return not isinstance(error, HttpError) or error.status >= 500


def killed() -> HttpError:
    """Return the answer of an endpoint that somebody has switched off."""
    return HttpError(503, "endpoint-killed", "this endpoint is switched off", headers=((b"retry-after", b"60"),))


def named(code: str, message: str, name: str, known: Iterable[str]) -> HttpError:
    """Return the error for an unknown name, with the near ones."""
    # Comparing costs time and memory by the length of what the caller made up.
    close = near(name, known) if len(name) <= _LONGEST_NAME else []
    return bad(code, suggest(message, close))


def suggest(message: str, close: Iterable[str]) -> str:
    """Return a message that ends with what may have been meant."""
    names = " or ".join(f"`{name}`" for name in close)
    return f"{message}; did you mean {names}?" if names else message


def check_id(given: str) -> str:
    """Return an id that a caller gave.

    Raises:
        HttpError: It could not be logged and sent back as it is, or would hide the request from those who watch.
    """
    if not _ID.fullmatch(given):
        raise bad("request-id", "the id of a request has 1 to 128 visible ASCII characters")
    if given.startswith(LOAD_TEST):
        raise bad("request-id", f"ids that begin with `{LOAD_TEST}` are those of load tests; choose another")
    return given


def body_of(error: HttpError, request_id: str, *, v2: bool) -> bytes:
    """Return the JSON of an error; the open protocol wants its `error` to be a text."""
    if v2:
        return msgspec.json.encode({"error": f"[{error.code}] {error.message}", "code": error.code, "id": request_id})
    return msgspec.json.encode({"error": {"code": error.code, "message": error.message, "id": request_id}})


def body_too_large(most: int) -> HttpError:
    """Return the refusal of a body of more bytes than it may have."""
    return HttpError(
        413, "body-too-large", f"the body is larger than {most:,} bytes; send the rows in several requests"
    )


def headers_too_large(most: int) -> HttpError:
    """Return the refusal of headers of more bytes than they may have."""
    return HttpError(431, "headers-too-large", f"the headers are larger than {most:,} bytes")


def not_http() -> HttpError:
    """Return the refusal of what is no request."""
    return HttpError(400, "not-http", "this is not a request in HTTP/1.1")
