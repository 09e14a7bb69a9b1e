"""Live under systemd: a hardened unit for a project, and the messages that its manager waits for."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

__all__ = ["Manager"]


class Manager:
    """Tells the service manager how the daemon stands; says nothing where there is none.

    Args:
        env: The environment, with `NOTIFY_SOCKET` and `WATCHDOG_USEC` as the manager sets them.
    """

    def __init__(self, env: Mapping[str, str] = os.environ) -> None:
        self._address = env.get("NOTIFY_SOCKET", "")
        mine = env.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        micros = env.get("WATCHDOG_USEC", "")
        # Seconds between two signs of life: a third of what the manager allows, so that one may be late.
        self.every = int(micros) / 3e6 if mine and micros.isdecimal() else 0.0

    def tell(self, *words: str) -> bool:
        """Send assignments as `READY=1`, `STATUS=...`, `WATCHDOG=1`, `STOPPING=1`.

        Returns:
            Whether there is a manager that took them.
        """
        if not self._address:
            return False
        # An address that begins with `@` is an abstract one.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            try:
                sock.sendto("\n".join(words).encode(), address)
            except OSError:
                return False
        return True
