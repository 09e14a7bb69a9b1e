"""This machine as a target: the process that serves a deployment, `python -m modelyard.serving`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from modelyard.deploy.aliases import trace_of
from modelyard.records import Deployment
from modelyard.store.base import Store
from modelyard.store.local import LOCAL

__all__ = ["command"]


def command(
    store: Store,
    deployment: Deployment,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    roles: Sequence[str] = (),
    per_minute: int = 0,
    processes: int = 1,
) -> list[str]:
    """Return the command line that serves a deployment, and follows its alias from then on.

    Raises:
        NotFound: The store does not hold the bundle.
    """
    folder = store.blobs.folder(deployment.model.address)
    # -P: a file called like a library in the folder of the project is not imported.
    line = [sys.executable, "-P", "-m", "modelyard.serving"]
    line += ["--bundle", str(folder), "--project", str(store.root), "--endpoint", deployment.endpoint]
    line += ["--follow", deployment.alias]
    if store.address != LOCAL:
        line += ["--store", store.address]
    line += ["--host", host, "--port", str(port)]
    if trace := trace_of(store, deployment):
        line += ["--trace", trace]
    for role in roles:
        line += ["--role", role]
    if per_minute:
        line += ["--per-minute", str(per_minute)]
    if processes > 1:
        line += ["--processes", str(processes)]
    return line
