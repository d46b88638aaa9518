"""Looking for damage in an open database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .snapshots import COPIED, FRAMES, SALT, refuse_without_lock

if TYPE_CHECKING:
    from pathlib import Path

    import apsw

_MOST = 20


def find_problems(reader: apsw.Connection, path: Path, index: memoryview | None, *, full: bool) -> list[str]:
    """Return what is wrong with a database; nothing when it is sound.

    Args:
        reader: a connection to it, outside of a transaction.
        path: its file, for errors.
        index: the WAL's index, see `snapshots`.
        full: compare the indexes with their tables and follow the foreign keys too.

    Raises:
        Busy: this process's locks were dropped meanwhile, so that nothing follows from what was read.
        apsw.Error: it cannot be read.
    """
    reader.execute("BEGIN")
    try:
        begun = None if index is None else (index[FRAMES], index[SALT])
        try:
            found = [str(row[0]) for row in reader.execute(f"PRAGMA {'integrity' if full else 'quick'}_check({_MOST})")]
            problems = [] if found == ["ok"] else found
            if full:
                orphans = reader.execute("PRAGMA foreign_key_check").fetchall()
                problems += [f"a row of {row[0]} refers to nothing in {row[2]}" for row in orphans[:_MOST]]
        finally:
            if index is not None and begun is not None and (index[COPIED] > begun[0] or index[SALT] != begun[1]):
                refuse_without_lock(path)
        return problems
    finally:
        if reader.in_transaction:
            reader.execute("ROLLBACK")
