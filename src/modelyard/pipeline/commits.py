"""Name the commit with which a file became what a run saw, where the project is kept in git."""

from __future__ import annotations

import subprocess

from modelyard._kit.digest import digest_bytes
from modelyard.pipeline.sources import read_source
from modelyard.store import Store

__all__ = ["commit_of"]

# Commits of the file that are looked through, and seconds that git may take.
_MOST = 200
_SECONDS = 10.0


def commit_of(store: Store, run: str, step: str, file: str) -> str:
    """Return `1a2b3c4 2026-11-20 Ana: Round ages` for the newest commit with the content that a run saw.

    Args:
        store: Of the project, which may be a git repository.
        run: Id of the run.
        step: Name of the step whose code it is.
        file: Path relative to the project.

    Returns:
        Empty if the content was never committed, or git or the repository is not there.
    """
    found = store.ledger.run(run)
    recorded = next((s for s in found.steps if s.name == step), None) if found else None
    source = read_source(recorded.source, store) if recorded else None
    wanted = source.files.get(file) if source else None
    if wanted is None:
        return ""
    listed = _git(store, "log", f"-n{_MOST}", "--format=%H%x09%h %as %an: %s", "--", file)
    oldest = ""
    for line in listed.decode("utf-8", "replace").splitlines():
        commit, _, said = line.partition("\t")
        if digest_bytes(_git(store, "cat-file", "blob", f"{commit}:./{file}")) == wanted:
            oldest = said
        elif oldest:
            break
    return oldest


def _git(store: Store, *arguments: str) -> bytes:
    try:
        # A list of words, no shell; what a repository's own configuration could run is not asked for.
        done = subprocess.run(
            ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *arguments],  # noqa: S607 - as on the user's path
            cwd=store.root,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""
