"""Where neighbours that may not know each other meet on disk."""

from __future__ import annotations

from pathlib import Path

__all__ = ["log_path"]


def log_path(root: Path, endpoint: str) -> Path:
    """Return the file that holds an endpoint's requests: the server writes it, the watch reads it.

    Args:
        root: Folder of the project.
        endpoint: Name of the endpoint.
    """
    return root / ".modelyard" / "requests" / f"{endpoint}.db"
