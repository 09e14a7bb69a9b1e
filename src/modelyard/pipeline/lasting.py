"""Which errors of a user's function would come again, and which may pass."""

from __future__ import annotations

__all__ = ["lasting"]

# Mistakes in code or data: the next attempt would make them again.
_LASTING: tuple[type[BaseException], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    NotImplementedError,
    SyntaxError,
    TypeError,
    ValueError,
)


def lasting(error: BaseException) -> bool:
    """Say whether an error of a user's function would come again.

    What the system or the network raises (`OSError` and everything under it: refused connections, timeouts, full
    disks) may pass, and so may errors we know nothing of.
    """
    if isinstance(error, OSError):
        return False
    return isinstance(error, _LASTING) or type(error).__module__ == "polars.exceptions"
