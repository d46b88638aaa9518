"""Plain SQLite without jobdb: the control that shows the effect of the lossy file system on each setting."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import apsw

from tests.support.ack_log import AckLog, read_ack_log


def open_plain(path: Path, journal: str, synchronous: str) -> apsw.Connection:
    """Open a connection as most programs do, with a tiny checkpoint threshold to force many checkpoints."""
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(10_000)
    found = connection.pragma("journal_mode", journal)
    assert found == journal.lower(), f"asked for {journal}, got {found}"
    connection.pragma("synchronous", synchronous)
    connection.pragma("wal_autocheckpoint", 20)
    return connection


def create_plain(path: Path, journal: str) -> None:
    """Create an empty table and make it durable."""
    connection = open_plain(path, journal, "EXTRA")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS rows(worker INT, number INT, fill BLOB, PRIMARY KEY(worker, number))"
    )
    connection.close()


def write_rows(path: Path, journal: str, synchronous: str, ack_log_path: Path, worker: int) -> None:
    """Insert rows until the disk fails, one per transaction; log each after its commit returned."""
    ack_log = AckLog(ack_log_path)
    with suppress(apsw.Error):
        _write_rows(open_plain(path, journal, synchronous), ack_log, worker)


def _write_rows(connection: apsw.Connection, ack_log: AckLog, worker: int) -> None:
    first = connection.execute("SELECT coalesce(max(number), 0) FROM rows WHERE worker = ?", (worker,)).get
    for number in range(first + 1, first + 100_000):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO rows VALUES(?, ?, randomblob(500))", (worker, number))
        connection.execute("COMMIT")
        ack_log.write(worker=worker, number=number)


def lost_rows(path: Path, journal: str, ack_log_path: Path) -> tuple[int, int]:
    """Return how many rows were acknowledged, and how many of them are lost: all, if the database is damaged."""
    promised = {(entry["worker"], entry["number"]) for entry in read_ack_log(ack_log_path)}
    try:
        connection = open_plain(path, journal, "FULL")
        try:
            sound = connection.pragma("integrity_check") == "ok"
            found = set(connection.execute("SELECT worker, number FROM rows"))
        finally:
            connection.close()
    except apsw.Error:
        return len(promised), len(promised)
    return len(promised), len(promised - found) if sound else len(promised)
