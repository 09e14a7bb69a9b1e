"""Open the store of a project: its own folder, or the Postgres that its team shares."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard._kit.errors import MissingExtra, UserError
from modelyard.store.base import Store
from modelyard.store.local import FOLDER, LOCAL, LocalStore

if TYPE_CHECKING:
    from modelyard.store.postgres import PostgresStore

__all__ = ["HANDED", "VARIABLE", "address_of", "open_address", "open_store", "shared_folder", "store_exists"]

# Where a process is told which store to open; it wins over the file.
VARIABLE = "MODELYARD_STORE"
# Where a worker finds the address of the very store that its runner has open: not in its arguments, which all can see.
HANDED = "MODELYARD_STORE_OF_RUN"
FILE = "modelyard.yaml"
# A first look that costs nothing: most files name no store, and YAML is slow to import.
_NAMES_A_STORE = re.compile(rb"""^[{\s]*["']?store["']?\s*:""", re.MULTILINE)


def open_store(project: Path, address: str = "", *, name: str = "", file: str = FILE) -> Store:
    """Open the store of a project, and make it at first use.

    Args:
        project: Folder of the project.
        address: `postgresql://USER@HOST/DATABASE`, or `local` for `.modelyard/` in the folder. Left out, it is what
            `file` says. The environment variable `MODELYARD_STORE` wins over both.
        name: Name of the project: its schema where the address names none. Left out, the one in `file`.
        file: Name of the declaration in the folder; it may be missing.

    Raises:
        UserError: The address cannot be used, or the folder cannot be written.
        MissingExtra: The library that speaks to Postgres is not installed.
    """
    found, name = address_of(project, address, name=name, file=file)
    return open_address(project, found, name=name)


def open_address(project: Path, address: str, *, name: str = "") -> Store:
    """Open the store at just this address, whatever the environment and the file say; see `open_store`."""
    return LocalStore(project) if address == LOCAL else _postgres(project, address, name)


def shared_folder(project: Path | str, *, file: str = "modelyard.yaml") -> Path | None:
    """Return the folder of files that a project's store shares with other machines; none: it has no such folder.

    Args:
        project: Folder of the project.
        file: Name of its declaration.

    Raises:
        UserError: The address of the store cannot be read (`store-address`).
    """
    from modelyard.store.address import parse_address

    found, _ = address_of(Path(project), "", file=file)
    if "://" not in found:
        return None
    files = parse_address(found).files
    return Path(files) if files else None


def store_exists(project: Path, address: str = "", *, name: str = "", file: str = FILE) -> bool:
    """Say whether anything was ever stored for a project; looking makes nothing.

    Raises:
        Busy: The database cannot be reached (`store-unreachable`).
    """
    found, name = address_of(project, address, name=name, file=file)
    if found == LOCAL:
        return (project / FOLDER).is_dir()
    with _postgres(project, found, name) as store:
        return store.made()


def address_of(project: Path, address: str = "", *, name: str = "", file: str = FILE) -> tuple[str, str]:
    """Return the address that counts (`local` where there is none), and the name of the project."""
    told = os.environ.get(VARIABLE, "")
    if not told and not address:
        address, declared = _declared(project / file)
        name = name or declared
    found = told or address or LOCAL
    if found != LOCAL and not name:
        name = _declared(project / file, always=True)[1] or project.resolve().name
    return found, name


def _postgres(project: Path, address: str, name: str) -> PostgresStore:
    try:
        from modelyard.store.postgres import PostgresStore
    except ImportError as error:
        # Without a name where psycopg is there and finds no library that speaks to the server.
        if (error.name or "psycopg").startswith("psycopg"):
            raise MissingExtra("a store on Postgres needs psycopg", extra="postgres") from error
        raise
    return PostgresStore(project, address, name=name)


def _declared(file: Path, *, always: bool = False) -> tuple[str, str]:
    """Return what the declaration says of the project's store and name, without looking at the rest of it."""
    try:
        text = file.read_bytes()
    except OSError:
        return "", ""
    if not always and not _NAMES_A_STORE.search(text):
        return "", ""
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        # To go on with another store than the one that is meant would split the project in two.
        raise UserError(
            "store-unclear", f"`{file}` cannot be read, so its store is not known", hint="run `modelyard check`"
        ) from None
    found = found if isinstance(found, dict) else {}
    return str(found.get("store") or ""), str(found.get("project") or "")
