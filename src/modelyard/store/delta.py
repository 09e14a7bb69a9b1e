"""The log of a Delta table: opened at a version, told of new files, and read for what was noted with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.errors import UserError
from modelyard._kit.files import sync
from modelyard.store.parquet import File

if TYPE_CHECKING:
    import polars as pl
    from deltalake import DeltaTable, Schema

__all__ = ["commit", "noted", "opened", "stands"]

# What a URL would decode.
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_action = msgspec.json.Decoder(dict[str, Any]).decode
# No version expires: runs and cards point at old ones.
_CONFIGURATION: Mapping[str, str | None] = {
    # Every opening reads the log from the last checkpoint on.
    "delta.checkpointInterval": "10",
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
}


def opened(folder: Path, version: int | None = None) -> DeltaTable | None:
    """Return the table in a folder, at its newest version or at the one given; none if there is no table.

    Raises:
        UserError: No table can be kept under a path like this one (`store-odd-path`).
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    try:
        return DeltaTable(_uri(folder), version=version)
    except TableNotFoundError:
        return None


def commit(
    folder: Path,
    delta: DeltaTable | None,
    schema: pl.Schema,
    files: Sequence[File],
    *,
    mode: str,
    notes: Mapping[str, str],
) -> int:
    """Make files a version of the table, for good, and return its number.

    Args:
        folder: The table's folder, in which the files are.
        delta: The table at its head; none: this is its first version.
        schema: Types that lie in the files.
        files: What was written and is still hidden.
        mode: `append` or `overwrite`.
        notes: What is noted with the version, for `noted`.
    """
    from deltalake import CommitProperties, PostCommitHookProperties, Schema
    from deltalake.transaction import AddAction, create_table_with_add_actions

    added = []
    for file in files:
        at = file.path.rename(file.final).stat()
        stats = msgspec.json.encode({"numRecords": file.rows}).decode()
        added.append(AddAction(file.final.name, at.st_size, {}, int(at.st_mtime * 1000), True, stats))
    properties = CommitProperties(custom_metadata=dict(notes))
    hook = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
    columns = Schema.from_arrow(schema)
    if delta is None:
        create_table_with_add_actions(
            _uri(folder),
            columns,
            added,
            configuration=_CONFIGURATION,
            commit_properties=properties,
            post_commithook_properties=hook,
        )
    else:
        _allow(delta, columns)
        delta.create_write_transaction(
            added, mode, columns, commit_properties=properties, post_commithook_properties=hook
        )
        delta.update_incremental()
    number = 0 if delta is None else delta.version()
    sync(_log(folder, number), folder / "_delta_log", folder)
    return number


def noted(folder: Path, number: int) -> dict[str, Any]:
    """Return what was noted when a version was committed; nothing of a record that is damaged.

    `DeltaTable.history` finds nothing under a folder `#1`.
    """
    try:
        for line in _log(folder, number).read_bytes().splitlines():
            action = _action(line)
            if "commitInfo" in action:
                return msgspec.convert(action["commitInfo"], dict[str, Any])
    except (msgspec.DecodeError, OSError):
        return {}
    return {}


def stands(folder: Path, number: int) -> bool:
    """Say whether a version was committed and its record is there."""
    return _log(folder, number).is_file()


def _allow(delta: DeltaTable, columns: Schema) -> None:
    """Let the table hold times without a zone; Delta wants that said before the first one comes."""
    from deltalake import TableFeatures

    if "timestamp_ntz" in columns.to_json() and "timestampNtz" not in (delta.protocol().writer_features or ()):
        delta.alter.add_feature(TableFeatures.TimestampWithoutTimezone, allow_protocol_versions_increase=True)


def _log(folder: Path, number: int) -> Path:
    return folder / "_delta_log" / f"{number:020d}.json"


def _uri(folder: Path) -> str:
    path = folder.absolute()
    if odd := _ESCAPE.search(str(path)):
        # Delta decodes it once too often, and writes beside the table.
        raise UserError(
            "store-odd-path",
            f"tables cannot be kept under a folder with `{odd[0]}` in its name: `{path}`",
            hint="rename the folder",
        )
    # A bare path with `%` or `#` in it would be read as a URL.
    return path.as_uri()
