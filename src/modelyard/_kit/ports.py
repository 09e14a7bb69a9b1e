"""Listen on a port, alone or side by side with others, or say why not."""

from __future__ import annotations

import contextlib
import errno
import socket

from modelyard._kit.errors import ServeError

__all__ = ["listen", "listen_beside", "refuse", "welcome"]


def listen(host: str, port: int, *, backlog: int, share: bool = False, flag: str = "--port") -> socket.socket:
    """Return a socket that listens.

    Args:
        host: Name or address, an IPv6 one without brackets.
        port: The port; 0 takes a free one.
        backlog: Connections that may wait to be taken.
        share: Others listen on it, too, who share it as well.
        flag: What chooses another port on the command line.

    Raises:
        ServeError: The port is taken (`port-taken`), or the address cannot be used (`address-unusable`).
    """
    if not 0 <= port <= 65535:
        raise ServeError("address-unusable", f"`{port}` is no port", hint="give 1 to 65535, or 0 for a free one")
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        # A port whose last owner just left may be taken again at once; one that is listened on may not.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ServeError(
                "port-taken",
                f"port {port} on {host} is taken",
                hint=f"stop what listens there, or choose another with {flag} N (0 takes a free one)",
            ) from None
        hint = (
            f"choose a {flag} above 1023" if error.errno == errno.EACCES else f"choose another with --host and {flag}"
        )
        raise ServeError(
            "address-unusable", f"cannot listen on {host} port {port}: {error.strerror or error}", hint=hint
        ) from None
    return sock


def listen_beside(host: str, port: int, count: int, *, backlog: int, flag: str = "--port") -> list[socket.socket]:
    """Return sockets that listen on one port; the system spreads connections over them (`SO_REUSEPORT`).

    Raises:
        ServeError: As `listen`; a port that others share is taken as well.
    """
    # Without sharing first: who shares a port would be joined by us in silence.
    with listen(host, port, backlog=1, flag=flag) as alone:
        port = alone.getsockname()[1]
    return [listen(host, port, backlog=backlog, share=True, flag=flag) for _ in range(count)]


def welcome(sock: socket.socket, backlog: int) -> None:
    """Listen, also on a socket that has refused."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.listen(backlog)


def refuse(sock: socket.socket) -> None:
    """Refuse who waits and who comes, in every process that has the socket, and keep the port."""
    # Told twice, Linux would hand every later connection over as one whose caller has said all it has to say.
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return
    # With it, whoever asks without sharing would be given a port on which nobody listens.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    # Where the system cannot, callers wait.
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RD)
