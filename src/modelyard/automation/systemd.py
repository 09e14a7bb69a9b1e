"""Live under systemd: a hardened unit for a project, and the messages that its manager waits for."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from modelyard._kit.errors import UserError

__all__ = ["UNIT", "Manager", "server_name", "server_unit", "unit", "unit_folder", "unit_name"]

# Tells the daemon by which unit it was started, so that `modelyard down` can say how it is stopped for good.
UNIT = "MODELYARD_UNIT"
# Seconds without a sign of life after which systemd starts the daemon anew; and for its last tidying up.
_WATCHDOG, _LAST = 60, 30
# Seconds in which a server answers what is under way, writes its log and ends.
_DRAIN = 60

_DAEMON = """\
[Unit]
Description=Modelyard: {projects}
# Tried again for ever, with the pause below: whoever repairs what is wrong need not start it.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
WorkingDirectory={folder}
Environment=PYTHONUNBUFFERED=1 {variable}={name}
# Where all runs of this user agree on who has which cores and memory; it is the same without a unit, and outlives it.
RuntimeDirectory=modelyard
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
Environment=MODELYARD_MACHINE=%t/modelyard
# Variables with the secrets that triggers and alerts name go here, readable for you alone. It need not be there.
EnvironmentFile=-%E/modelyard/{environment}.env
Restart=always
RestartSec=2
WatchdogSec={watchdog}
# The run under way may end; only the daemon is told, and it tells its children.
KillMode=mixed
KillSignal=SIGTERM
TimeoutStopSec={stop}
# A step that is killed for its memory fails alone.
OOMPolicy=continue
# Steps get limits of their own below this unit.
Delegate=cpu memory pids
"""
_SERVER = """\
[Unit]
Description=Modelyard: {projects}
# Tried again for ever, with the pause below: whoever repairs what is wrong need not start it.
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command}
WorkingDirectory={folder}
Environment=PYTHONUNBUFFERED=1
# Variables that the file names, and the address of a shared store, go here, readable for you alone.
EnvironmentFile=-%E/modelyard/{environment}.env
Restart=always
RestartSec=2
# Only the first process is told; it lets all others answer what is under way.
KillMode=mixed
KillSignal=SIGTERM
TimeoutStopSec={stop}
"""
_HARDENED = """
# What needs rights that a user's own manager lacks (CapabilityBoundingSet, ProtectClock, ...) is left out: with it the
# unit would not start, and the user does not have these rights anyway.
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={writable}
PrivateTmp=yes
ProtectKernelTunables=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
RestrictNamespaces=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077

[Install]
WantedBy=default.target
"""


class Manager:
    """Tells the service manager how the daemon stands; says nothing where there is none.

    Args:
        env: The environment, with `NOTIFY_SOCKET` and `WATCHDOG_USEC` as the manager sets them.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._address = env.get("NOTIFY_SOCKET", "")
        mine = env.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        micros = env.get("WATCHDOG_USEC", "")
        # Seconds between two signs of life: a third of what the manager allows, so that one may be late.
        self.every = int(micros) / 3e6 if mine and micros.isdecimal() else 0.0

    @classmethod
    def of_this_process(cls) -> Manager:
        """Return the manager of this process, of which its children are to know nothing."""
        names = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
        return cls({name: os.environ.pop(name) for name in names if name in os.environ})

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


def unit_name(projects: Sequence[str]) -> str:
    """Return the name of the unit, e.g. `modelyard-income.service`."""
    return f"modelyard-{'-'.join(projects)[:200]}.service"


def unit_folder(env: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the user's own units."""
    return Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def unit(
    projects: Sequence[str], roots: Sequence[Path], command: Sequence[str], *, grace: float, shared: Sequence[Path] = ()
) -> str:
    """Return the text of a unit of the user's own service manager.

    Args:
        projects: Names of the projects.
        roots: Their folders, which the unit may write to.
        command: What it runs, word by word, with absolute paths.
        grace: Seconds that a run may take to end.
        shared: Folders elsewhere that it may write to as well: those of shared stores.

    Raises:
        UserError: A path holds a line break, which no unit can (`systemd-path`).
    """
    name = unit_name(projects)
    return (_DAEMON + _HARDENED).format(
        projects=", ".join(projects),
        variable=UNIT,
        name=name,
        environment=name.removesuffix(".service"),
        watchdog=_WATCHDOG,
        stop=round(grace + _LAST),
        **_places(roots, command, shared),
    )


def server_name(endpoint: str, alias: str) -> str:
    """Return the name of the unit of a server, e.g. `modelyard-serve-income.service`."""
    return f"modelyard-serve-{endpoint[:200]}{'' if alias == 'champion' else f'-{alias}'}.service"


def server_unit(name: str, roots: Sequence[Path], command: Sequence[str], *, shared: Sequence[Path] = ()) -> str:
    """Return the text of a unit for a server alone.

    Args:
        name: Name of the unit.
        roots: Folders of the projects, which the unit may write to.
        command: What it runs, word by word, with absolute paths.
        shared: Folders elsewhere that it may write to as well: those of shared stores.

    Raises:
        UserError: A path holds a line break, which no unit can (`systemd-path`).
    """
    plain = name.removesuffix(".service")
    told = plain.removeprefix("modelyard-").replace("-", " ", 1)
    return (_SERVER + _HARDENED).format(
        projects=told, environment=plain, stop=_DRAIN, **_places(roots, command, shared)
    )


def _places(roots: Sequence[Path], command: Sequence[str], shared: Sequence[Path]) -> dict[str, str]:
    """Return what a unit says of the command and of folders."""
    return {
        # Only a command line has variables.
        "command": " ".join(_quoted(word).replace("$", "$$") for word in command),
        "folder": _path(str(roots[0])),
        # Without a shared folder it starts all the same, and says what is missing.
        "writable": " ".join([*(_quoted(str(root)) for root in roots), *(_quoted(f"-{path}") for path in shared)]),
    }


def _path(text: str) -> str:
    """Return a path that stands alone in its line: it is taken as it is but for `%`."""
    _plain(text)
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """Return one word of a list or a command line as systemd reads it back."""
    _plain(word)
    if word and not re.search(r"""[\s"'\\;$]""", word):
        return word.replace("%", "%%")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _plain(text: str) -> None:
    if not text.isprintable():
        raise UserError(
            "systemd-path", f"{text!r} cannot stand in a unit", hint="move the project to a folder with a plain name"
        )
