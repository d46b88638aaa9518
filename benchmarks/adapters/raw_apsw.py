"""The floor: the same statements that jobdb runs, replayed in a bare apsw loop.

Called by harness.py, with one process. Before the measurement, jobdb runs the verbs on a copy of the registry while
apsw's execution tracer records every statement with its parameters; then the statements alone are replayed on the
original. BEGIN, COMMIT and the reads are included; signing, verifying, encrypting and the gate are not.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

import apsw

from jobdb.engines.sqlite.pragmas import apply_settings, settings_for

from .. import sample_data
from .base import BATCH_OPERATIONS, Adapter, AdapterInfo
from .jobdb import Jobdb

_MOST_CALLS = 20_000
_MOST_BATCHES = 600
_NO_FLOOR = "not a verb of its own"

Statement = tuple[str, Any]


class RawApsw(Adapter):
    unsupported: ClassVar[dict[str, str]] = {"life": _NO_FLOOR}
    max_workers = 1

    def __init__(self, folder: Path, durability: str) -> None:
        super().__init__(folder, durability)
        self._library = Jobdb(folder, "normal")
        self._database = folder / "jobs.db"
        self._pristine = folder / "pristine.db"
        self._units: list[list[Statement]] = []
        self._next = 0
        self._items = 1
        self._connection: apsw.Connection | None = None

    @classmethod
    def info(cls, durability: str) -> AdapterInfo:
        return AdapterInfo(
            label=f"raw floor: jobdb's statements in apsw, {durability.upper()}",
            durability=durability,
            as_shipped=False,
            settings=f"journal_mode=WAL, synchronous={durability.upper()}, jobdb's other pragmas, plain COMMIT",
            version=f"apsw {apsw.apsw_version()}, SQLite {apsw.sqlite_lib_version()}",
            notes={"all": "statements only: no signing, verifying, sealing, argument checks or objects"},
        )

    def prepare(self, size: int) -> None:
        self._library.prepare(size)

    def open(self, worker: int, workers: int) -> None:
        self._library.open(worker, workers)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def prefill(self, operation: str, count: int) -> None:
        self._library.prefill(operation, count)
        self._library.close()
        shutil.copy2(self._database, self._pristine)
        most = _MOST_CALLS
        if operation in BATCH_OPERATIONS:
            self._items, count, most = sample_data.BATCH, count // sample_data.BATCH, _MOST_BATCHES
        self._units = self._record_statements(operation, min(count or most, most))
        self._connect()

    def _record_statements(self, operation: str, count: int) -> list[list[Statement]]:
        """Return the statements that jobdb runs for ``count`` calls, one list per call."""
        library = self._library
        library.folder = self.folder / "recording"
        library.folder.mkdir(mode=0o700)
        for name in ("jobs.db", "master.key", "running.json"):
            shutil.copy2(self.folder / name, library.folder / name)
        units: list[list[Statement]] = []
        recorded: list[Statement] = []

        def note(_cursor: apsw.Cursor, sql: str, parameters: Any) -> bool:
            recorded.append((sql, dict(parameters) if isinstance(parameters, dict) else parameters))
            return True

        def listen(connection: apsw.Connection) -> None:
            connection.exec_trace = note

        apsw.connection_hooks.append(listen)
        try:
            library.open(0, 1)
            verb = library.verb(operation)
            while len(units) < count:
                recorded = []
                if not verb():
                    break
                units.append(recorded)
            library.close()
        finally:
            apsw.connection_hooks.remove(listen)
            shutil.rmtree(library.folder)
            library.folder = self.folder
        # The first call also opens the database and applies settings, which are not part of the verb.
        units[0] = [statement for statement in units[0] if "PRAGMA" not in statement[0].upper()]
        return units

    def _connect(self) -> None:
        self._connection = apsw.Connection(str(self._database), statementcachesize=200)
        self._connection.pragma("journal_mode", "wal")
        settings = settings_for("wal", group_commit=False, durability=self.durability)
        apply_settings(self._connection, [one for one in settings if one.pragma != "wal_autocheckpoint"])
        self._next = 0

    def reset_claims(self) -> None:
        self.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._database}{suffix}").unlink(missing_ok=True)
        shutil.copy2(self._pristine, self._database)
        self._connect()

    def _replay(self) -> int:
        if self._next == len(self._units):
            return 0
        unit = self._units[self._next]
        self._next += 1
        assert self._connection is not None
        execute = self._connection.execute
        for sql, parameters in unit:
            execute(sql, parameters).fetchall()
        return self._items

    register = claim = publish = accept = complete = list_page = _replay
    register_100 = publish_100 = accept_100 = _replay
