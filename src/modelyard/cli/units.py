"""`--systemd`: write a unit instead of starting anything, and say how it is enabled."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelyard.cli.output import data, say

__all__ = ["add_unit", "write"]


def add_unit(parser: argparse.ArgumentParser) -> None:
    """Add `--systemd`."""
    parser.add_argument(
        "--systemd",
        nargs="?",
        const="",
        metavar="FILE",
        help="write a unit for your own systemd instead of starting anything, and say how it is enabled; `-` prints it",
    )


def write(where: str, name: str, text: str) -> None:
    """Write a unit and say which two commands enable it.

    Args:
        where: A file, `-` for the output, or nothing for the folder of the user's units.
        name: Name of the unit.
        text: The unit.
    """
    from modelyard._kit.files import write_atomic, write_named
    from modelyard.automation.systemd import unit_folder
    from modelyard.store.disk import explained

    if where == "-":
        data(text.rstrip())
        return
    file = Path(where).absolute() if where else unit_folder() / name
    with explained(file):
        # The folder of systemd is made where it is missing; one that a user names is more often misspelt.
        (write_named if where else write_atomic)(file, text.encode())
    data(str(file))
    say("to start it now and with every login:")
    say("  systemctl --user daemon-reload")
    say(f"  systemctl --user enable --now {file.name if not where else file}")
    say("it stays when you log out after: loginctl enable-linger")
