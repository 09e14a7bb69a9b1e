"""Say in a sentence what most often stands behind an error."""

from __future__ import annotations

import re

__all__ = ["likely"]

# Code of an error -> what stands behind it, where the code alone says it.
_BY_CODE = {
    "out-of-memory": "the step asked for too little memory, or its data grew",
    "step-timeout": "the step waits for something, or its data grew",
    "check-failed": "data or code changed since the last good run, or the limit is too tight",
    "missing-extra": "an optional library is not installed on this machine",
}
# What a message says -> what stands behind it; the first that fits counts.
_BY_WORDS = (
    (r"No space left|disk (is )?full|ENOSPC", "the disk is full"),
    (r"MemoryError|Unable to allocate|bad_alloc", "there was not enough memory"),
    (
        r"Connection\w*Error|\w*Timeout|timed out|refused|Name or service|unreachable|getaddrinfo|SSLError|50[23] ",
        "a service that the step needs cannot be reached",
    ),
    (
        r"Permission denied|PermissionError|AccessDenied|\b40[13]\b|Forbidden|Unauthorized",
        "a right or a token is missing",
    ),
    (r"ModuleNotFoundError|ImportError|No module named", "a library is missing or has another version here"),
    (r"FileNotFoundError|No such file", "a file is not where it was"),
    (r"KeyError|ColumnNotFound|[Cc]olumns? .*not|no column", "the data have other columns than the code expects"),
    (
        r"SchemaError|ComputeError|could not parse|cannot convert|invalid literal|dtype",
        "the data have another form than before",
    ),
    (r"ZeroDivisionError|NaN|empty|no rows", "there were no rows, or a value was nothing"),
    (r"(Type|Attribute|Name|Syntax|Assertion)Error", "a mistake in the code of the step"),
)


def likely(code: str, message: str) -> str:
    """Return what most often stands behind an error; an empty text where nobody can say.

    >>> likely("step-failed", "step `load` raised ConnectionError: Connection refused")
    'a service that the step needs cannot be reached'
    """
    if code in _BY_CODE:
        return _BY_CODE[code]
    return next((cause for words, cause in _BY_WORDS if re.search(words, message)), "")
