"""The search for damage in an open database. Called by the read path for `jobdb doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .snapshot_check import check_snapshot, note_snapshot

if TYPE_CHECKING:
    from pathlib import Path

    import apsw

_MAX_PROBLEMS = 20


def find_problems(reader: apsw.Connection, path: Path, wal_index: memoryview | None, *, full: bool) -> list[str]:
    """Return the problems found in a database; empty if it is sound.

    Args:
        reader: a connection to it, outside of a transaction.
        path: its file, for messages.
        wal_index: the WAL's index, see `snapshot_check`.
        full: also compare the indexes with their tables, and check the foreign keys.

    Raises:
        Busy: this process's locks were dropped meanwhile, so the result proves nothing.
        apsw.Error: it cannot be read.
    """
    reader.execute("BEGIN")
    try:
        snapshot = None if wal_index is None else note_snapshot(wal_index)
        try:
            found = [
                str(row[0])
                for row in reader.execute(f"PRAGMA {'integrity' if full else 'quick'}_check({_MAX_PROBLEMS})")
            ]
            problems = [] if found == ["ok"] else found
            if full:
                orphans = reader.execute("PRAGMA foreign_key_check").fetchall()
                problems += [
                    f"a row of {table} refers to nothing in {parent}"
                    for table, _row_id, parent, _constraint in orphans[:_MAX_PROBLEMS]
                ]
        finally:
            if wal_index is not None and snapshot is not None:
                check_snapshot(path, wal_index, snapshot)
        return problems
    finally:
        if reader.in_transaction:
            reader.execute("ROLLBACK")
