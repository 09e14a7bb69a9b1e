"""Serve the pages on this machine until somebody stops them."""

from __future__ import annotations

import socket
import sys
from ipaddress import ip_address
from pathlib import Path

from modelyard._kit.errors import NotFound, ServeError
from modelyard._kit.ports import listen

__all__ = ["PORT", "bind", "serve"]

PORT = 8500


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a loopback address.

    Args:
        host: `localhost`, or a loopback address.
        port: The port; 0 takes a free one.

    Raises:
        ServeError: The address is not of this machine alone (`not-loopback`), or the port cannot be had.
    """
    address = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        local = ip_address(address).is_loopback
    except ValueError:
        local = False
    if not local:
        raise ServeError(
            "not-loopback",
            f"the pages have no login, so they do not listen on `{host}`",
            hint="leave --host out, and reach another machine's pages through `ssh -L 8500:127.0.0.1:8500 MACHINE`",
        )
    return listen(address, port, backlog=128)


def serve(project: Path, *, host: str = "127.0.0.1", port: int = PORT, open_page: bool = False) -> None:
    """Serve the pages of a project; returns when the process is asked to stop.

    Args:
        project: Folder of the project.
        host: A loopback address.
        port: The port; 0 takes a free one.
        open_page: Open the first page in the user's browser.

    Raises:
        NotFound: There is no such folder, or nothing was run in it.
        ServeError: The address cannot be listened on.
    """
    if not project.is_dir():
        raise NotFound("project-not-found", f"no folder `{project}`", hint="give the project's folder with --project")
    from modelyard.store import open_store, store_exists

    if not store_exists(project):
        # Pages only read: they make no store.
        raise NotFound(
            "project-not-found",
            f"nothing was run in `{project.resolve()}` yet",
            hint="run `modelyard run`, or name the folder of another project with --project",
        )
    sock = bind(host, port)
    with sock:
        import uvicorn

        from modelyard.web.app import create_app
        from modelyard.web.guard import LOOPBACK

        store = open_store(project)
        name, number = _shown(sock)
        address = f"http://{name}:{number}/"

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                sys.stderr.write(f"pages of {project.resolve().name} at {address} (Ctrl-C stops them)\n")
                sys.stderr.flush()
                if open_page:
                    import webbrowser

                    webbrowser.open(address)

        config = uvicorn.Config(
            create_app(store, hosts=LOOPBACK | {name}),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        try:
            Server(config).run(sockets=[sock])
        finally:
            store.close()


def _shown(sock: socket.socket) -> tuple[str, int]:
    """Return the bound address as it stands in a URL, and the port."""
    host, port = sock.getsockname()[:2]
    return (f"[{host}]" if ":" in host else host), port
