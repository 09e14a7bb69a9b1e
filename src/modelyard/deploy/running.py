"""Servers of an endpoint that run on this machine, by what the system shows of them: no file of theirs is needed."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from modelyard._kit.actor import COMMANDS

__all__ = ["running"]

# The modules behind the commands with which `up` is begun.
_MODULES = ("modelyard", "modelyard.cli.main")


def running(project: Path, endpoint: str, *, proc: Path = Path("/proc")) -> list[int]:
    """Return the processes whose end ends every server of an endpoint on this machine; none where nobody can see them.

    Of processes that share a port it is the one that keeps them, of a server that `modelyard up` keeps it is the
    daemon: each would start again what is ended below it.

    Args:
        project: Folder of the project.
        endpoint: Its name.
        proc: Where the system shows processes, see proc(5).
    """
    servers = {int(f.name) for f in proc.glob("[0-9]*") if _serves(_line(f), project, endpoint)}
    ends = set()
    for pid in servers:
        parent = _parent(proc / str(pid))
        if parent not in servers:
            ends.add(parent if _keeps(_line(proc / str(parent))) else pid)
    return sorted(ends)


def _serves(line: list[str], project: Path, endpoint: str) -> bool:
    given = dict(pairwise(line))
    if given.get("-m") != "modelyard.serving" or given.get("--endpoint") != endpoint:
        return False
    return Path(given.get("--project", "")).resolve() == project.resolve()


def _keeps(line: list[str]) -> bool:
    return any(
        following == "up" and (Path(word).name in COMMANDS or (before == "-m" and word in _MODULES))
        for before, word, following in zip(["", *line], line, line[1:], strict=False)
    )


def _line(folder: Path) -> list[str]:
    try:
        return [word.decode(errors="replace") for word in (folder / "cmdline").read_bytes().split(b"\0")]
    except OSError:
        return []


def _parent(folder: Path) -> int:
    try:
        # Behind the name, which may hold blanks and brackets.
        return int((folder / "stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0
