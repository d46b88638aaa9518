"""Closing a SQLite store: in which order, and what becomes of its WAL."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import apsw

from ...errors import StorageFailed
from . import opened
from .checkpoints import wal_is_long

if TYPE_CHECKING:
    from collections.abc import Callable

    from .held_files import HeldFiles
    from .store import SqliteStore


def close_half_opened(store: SqliteStore) -> None:
    """Close what is open after opening failed half-way.

    A connection left to the garbage collector would be closed at any moment.
    """
    if store._wal is not None:
        store._wal.close()
    if store._gate is not None:
        store._gate.close()
    held: HeldFiles | None = getattr(store, "_held", None)
    if held is not None:
        held.close()
    writer: apsw.Connection | None = getattr(store, "_writer", None)
    if writer is not None:
        writer.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        writer.close()


def shut_down(store: SqliteStore, checkpoint: bool) -> None:
    """Close everything. Every step runs, whatever became of those before it; each can be run again.

    Args:
        store: nobody works on it.
        checkpoint: the last connection copies the WAL into the database and removes it.

    Raises:
        StorageFailed: the disk reported something; everything is closed.
    """
    failures: list[Exception] = []
    cut_off: BaseException | None = None
    store._busy_since = time.monotonic() - store.busy_sec
    steps: tuple[Callable[[], None], ...] = (
        lambda: _close_reader(store),
        lambda: _close_writer(store, checkpoint),
        store._held.close,
        lambda: None if store._wal is None else store._wal.close(),
        lambda: None if store._gate is None else store._gate.close(),
        lambda: opened.remove(store._open_file),
    )
    for step in steps:
        try:
            try:
                step()
            except (apsw.Error, OSError):
                raise
            except BaseException as error:
                cut_off = error
                step()
        except (apsw.Error, OSError) as failure:
            failures.append(failure)
    store._shut = True
    if cut_off is not None:
        raise cut_off
    if failures:
        raise StorageFailed(
            f"{store.path} is closed, and the disk reported while it was ({failures[0]}): what was answered before "
            "stands as far as the disk keeps it. Check the disk and the system log, and run 'jobdb doctor'"
        ) from failures[0]


def _close_reader(store: SqliteStore) -> None:
    if store._reader is not None:
        with contextlib.suppress(apsw.ConnectionClosedError):
            store._reader.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # the writer does it, if anybody
        store._reader.close()


def _close_writer(store: SqliteStore, checkpoint: bool) -> None:
    # SQLite removes the WAL by its name, which may be another database's by now.
    keep_wal = (
        not store._held.intact()
        or store._checkpointer.wal_is_suspect()
        or not (checkpoint or wal_is_long(store.path))
        or not store._checkpointer.begin_last()
    )
    try:
        if keep_wal:
            store._writer.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        else:
            opened.let_go_of_locks(store._open_file)
    except apsw.ConnectionClosedError:
        return  # a close that was cut off had come so far
    finally:
        store._writer.close()
        store._checkpointer.end_last()
