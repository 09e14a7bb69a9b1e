"""Take the connections that wait, many in one turn of the loop.

uvloop takes one a turn (libuv's `uv__server_io`), and under load a turn is a run of the model: a crowd that comes at
once would fill the system's queue, which then drops what comes, and callers would try again for seconds while the
server has time.

Where several processes share a port each has a queue of its own in the system, and takes now and then what waits in
those of the others: nobody waits for one that is dead, hangs, or has much to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence

from modelyard._kit.ports import welcome

__all__ = ["BACKLOG", "OPENING", "Listener"]

# Connections that may wait in the system to be taken.
BACKLOG = 2048

# Handshakes of TLS under way at once: with one more the oldest ends. Each holds a file, and a stranger may begin them.
OPENING = 1024

# Connections that are taken in one turn, and seconds until the next attempt when there is no room for one.
_AT_ONCE, _PAUSE = 256, 1.0
# Seconds between two looks at what waits for others.
_LOOK = 0.1
# Seconds that handshakes under way have to come to their end when no more connections are taken.
_LAST = 1.0


class Listener:
    """Gives each connection that comes a protocol.

    Args:
        sock: A socket that listens, or did; closed with this.
        make: Makes the protocol of a connection.
        others: Sockets on the same port that other processes listen on; our hold on them ends with this.
        context: Certificates; none: connections are plain.
        handshake: Seconds for the handshake of TLS.
    """

    def __init__(
        self,
        sock: socket.socket,
        make: Callable[[], asyncio.Protocol],
        *,
        others: Sequence[socket.socket] = (),
        context: ssl.SSLContext | None = None,
        handshake: float = 10.0,
    ) -> None:
        self._sock = sock
        self._others = others
        self._make = make
        self._context = context
        self._handshake = handshake if context is not None else None
        # In the order in which they came.
        self._opening: dict[asyncio.Task[None], None] = {}
        self._pause: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        for one in (sock, *others):
            one.setblocking(False)
        welcome(sock, BACKLOG)
        self._loop.add_reader(sock, self._take)
        self._look = self._loop.call_later(_LOOK, self._look_around) if others else None

    async def close(self) -> None:
        """Take no more connections, once those are open that wait in the system; those that are there stay.

        What waits for others, too: of several processes that end, whoever is the last leaves nobody behind.
        """
        for one in (self._pause, self._look):
            if one is not None:
                one.cancel()
        while self._take():
            pass
        if self._pause is not None:
            self._pause.cancel()
        while self._take_from_others():
            pass
        self._loop.remove_reader(self._sock)
        for sock in (self._sock, *self._others):
            sock.close()
        if self._opening:
            _, silent = await asyncio.wait(list(self._opening), timeout=_LAST)
            for task in silent:
                task.cancel()

    def _take(self) -> bool:
        """Take some of the connections that wait; say whether there may be more."""
        try:
            return self._take_from(self._sock)
        except OSError:
            # No file is left for it: it waits in the system's queue until some other connection ends.
            self._loop.remove_reader(self._sock)
            self._pause = self._loop.call_later(_PAUSE, self._loop.add_reader, self._sock, self._take)
            return False

    def _look_around(self) -> None:
        self._take_from_others()
        self._look = self._loop.call_later(_LOOK, self._look_around)

    def _take_from_others(self) -> bool:
        more = False
        for sock in self._others:
            # No file is left, or it does not listen now.
            with contextlib.suppress(OSError):
                more = self._take_from(sock) or more
        return more

    def _take_from(self, sock: socket.socket) -> bool:
        for _ in range(_AT_ONCE):
            try:
                taken, _ = sock.accept()
            except (BlockingIOError, InterruptedError):
                return False
            except ConnectionAbortedError:
                continue
            task = self._loop.create_task(self._open(taken))
            self._opening[task] = None
            task.add_done_callback(lambda done: self._opening.pop(done, None))
            if self._context is not None and len(self._opening) > OPENING:
                oldest = next(iter(self._opening))
                del self._opening[oldest]
                oldest.cancel()
        return True

    async def _open(self, taken: socket.socket) -> None:
        # Who hangs up before it is open, or in the middle of the handshake, is no mistake of ours.
        with contextlib.suppress(OSError):
            try:
                taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await self._loop.connect_accepted_socket(
                    self._make, taken, ssl=self._context, ssl_handshake_timeout=self._handshake
                )
            except BaseException:
                taken.close()
                raise
