"""The opening of a small database of jobdb's own that is not a registry, with the guarantees of a registry's file.

Called by the tickets (``mqtt/ticket_store.py``), which have their own tables. The same checks run as for a registry, in
the same order: the folder, its file system, the file's companions, and that the file is not another program's, before
the store would put it into WAL mode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import NotAJobdbDatabase, SchemaMismatch, UnsafeFileSystem
from ...filesystem.permissions import create_private_file, make_private_folder
from ...filesystem.unsafe_files import refuse_hard_links, refuse_unsafe_companions
from . import open_files
from .file_kind import read_schema_info
from .header import read_header
from .placement_check import check_placement
from .stale_journals import set_aside_stale
from .store import SqliteStore


@dataclass(frozen=True, slots=True)
class AuxiliaryFormat:
    """The properties that identify a kind of database.

    Attributes:
        application_id: SQLite's application_id of such a file.
        schema_version: the newest schema version (user_version) that is known.
        elsewhere: how to use another folder, for the advice of errors: "set XDG_STATE_HOME to".
        upgrade: how to get a newer jobdb.
    """

    application_id: int
    schema_version: int
    elsewhere: str
    upgrade: str

    def foreign_error(self, path: Path) -> NotAJobdbDatabase:
        """Return the error for another program's file."""
        return NotAJobdbDatabase(f"{path} is a database of another program", advice=f"{self.elsewhere} another folder")

    def newer_error(self, path: Path, version: int) -> SchemaMismatch:
        """Return the error for a file of a newer jobdb."""
        return SchemaMismatch(
            f"{path} has schema version {version} and this jobdb knows {self.schema_version}; "
            "a newer jobdb has created it",
            advice=self.upgrade,
        )


def open_auxiliary(path: Path, kind: AuxiliaryFormat, *, busy_sec: float, clock: Callable[[], int]) -> SqliteStore:
    """Open an auxiliary database; create the file, without tables, if it does not exist.

    Args:
        path: the database file; its folder is created if it is missing.
        kind: what kind of database it is.
        busy_sec: how long a writer waits its turn, in seconds.
        clock: Unix time in milliseconds.

    Raises:
        UnsafeFileSystem: the folder's file system cannot hold it safely.
        NotAJobdbDatabase, SchemaMismatch, StorageFailed: the file is another program's, newer, or cannot be used.
    """
    path = path.absolute()
    make_private_folder(path.parent)
    try:
        placement = check_placement(path)
    except UnsafeFileSystem as problem:
        raise UnsafeFileSystem(f"{problem} Or {kind.elsewhere} a folder on a local disk.") from None
    if placement.needs_probe:
        from ...filesystem.probe.safe_folder import require_safe_folder

        require_safe_folder(placement)
    refuse_unsafe_companions(path)
    set_aside_stale(path.resolve(), busy_sec)
    create_private_file(path)
    _refuse_foreign(path, kind)
    return SqliteStore(
        path,
        journal=placement.journal or "delete",
        durability="full",
        busy_sec=busy_sec,
        clock=clock,
    )


def _refuse_foreign(path: Path, kind: AuxiliaryFormat) -> None:
    """Refuse another program's file before the store would put it into WAL mode."""
    refuse_hard_links(path)
    with open_files.raw_read(path) as free:
        header = read_header(path) if free else None
        if header is None or header.empty or header.application_id == kind.application_id:
            return
        seen = read_schema_info(path)
        if not seen.application_id and not seen.names and seen.version > kind.schema_version:
            raise kind.newer_error(path, seen.version)
        if seen.application_id != kind.application_id and (seen.application_id or seen.names or seen.version):
            raise kind.foreign_error(path)
