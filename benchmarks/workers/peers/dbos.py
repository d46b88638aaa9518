"""dbos' queue: a workflow without steps, taken from a registered queue by dbos' own dispatcher.

By default its dispatcher looks once a second and takes as many as worker_concurrency allows: eight a second with eight
slots. Here it looks every five milliseconds and takes up to 64 for eight threads, which was faster than eight at a time
every millisecond. On SQLite it keeps SQLite's rollback journal; with wal=True we set journal_mode=WAL once.
"""

from __future__ import annotations

import logging
import sqlite3
from abc import abstractmethod
from importlib.metadata import version
from typing import Any, ClassVar

from dbos import DBOS, DBOSClient

from .base import Handle, PeerInfo, Place, WorkerPeer, ignore, prompt

_QUEUE = "jobs"
_VERSION = "benchmark"
_AHEAD = 64
_POLL_SEC = 0.005
_STOP_SEC = 30
_POLLED = f", polled every {_POLL_SEC * 1000:.0f} ms"
_SETTINGS = (
    f"worker_concurrency={_AHEAD}, max_executor_threads=8, polling every {_POLL_SEC * 1000:.0f} ms: set by us "
    "(it polls every second)"
)
_COUNT = "SELECT count(*) FROM {schema}workflow_status WHERE status = 'SUCCESS'"


class _Dbos(WorkerPeer):
    def __init__(self, place: Place, slots: int) -> None:
        super().__init__(place, slots)
        self._client: Any = None
        logging.getLogger("dbos").setLevel(logging.ERROR)

    @abstractmethod
    def _url(self) -> str: ...

    def _launch(self, handle: Handle, *, listen: bool) -> Any:
        DBOS(
            config={
                "name": "benchmark",
                "system_database_url": self._url(),
                "application_version": _VERSION,
                "max_executor_threads": self.slots,
                "log_level": "ERROR",
            }
        )

        @DBOS.workflow(name="handle")
        def handle_job(number: int, text: str) -> None:
            handle(number)

        DBOS.listen_queues([_QUEUE] if listen else [])
        DBOS.launch()
        return handle_job

    def prepare(self, jobs: int) -> None:
        workflow = self._launch(ignore, listen=False)
        DBOS.register_queue(_QUEUE, worker_concurrency=_AHEAD, polling_interval_sec=_POLL_SEC)
        for number in range(jobs):
            DBOS.enqueue_workflow(_QUEUE, workflow, number, prompt(number))
        DBOS.destroy()

    def start(self, handle: Handle) -> None:
        self._launch(handle, listen=True)

    def stop(self) -> None:
        DBOS.destroy(workflow_completion_timeout_sec=_STOP_SEC)

    def open_producer(self) -> None:
        self._client = DBOSClient(system_database_url=self._url())

    def add(self, number: int) -> None:
        options: Any = {"queue_name": _QUEUE, "workflow_name": "handle", "app_version": _VERSION}
        self._client.enqueue(options, number, prompt(number))

    def close_producer(self) -> None:
        self._client.destroy()


class DbosSqlite(_Dbos):
    def __init__(self, place: Place, slots: int, *, wal: bool) -> None:
        super().__init__(place, slots)
        self._wal = wal

    def info(self) -> PeerInfo:
        return PeerInfo(
            label="dbos queue on SQLite" + (", WAL" if self._wal else "") + _POLLED,
            engine="SQLite",
            slots=f"threads of its executor; it takes up to {_AHEAD} ahead",
            durability="full",
            syncs="one for each batch that is taken, one for each end" + ("" if self._wal else "; several per commit"),
            ends_recorded=True,
            if_worker_dies="the workflow is recovered when an executor of that name starts again",
            settings=f"{_SETTINGS}; SQLite's own synchronous=FULL, "
            + ("journal_mode=WAL set by us" if self._wal else "rollback journal, as it ships"),
            version=f"dbos {version('dbos')}, SQLite {sqlite3.sqlite_version}",
        )

    def _url(self) -> str:
        return f"sqlite:///{self.place.folder / 'dbos.db'}"

    def prepare(self, jobs: int) -> None:
        super().prepare(jobs)
        if self._wal:
            db = sqlite3.connect(self.place.folder / "dbos.db")
            db.execute("PRAGMA journal_mode = WAL")
            db.close()

    def ended(self) -> int:
        db = sqlite3.connect(self.place.folder / "dbos.db")
        found: int = db.execute(_COUNT.format(schema="")).fetchone()[0]
        mode = db.execute("PRAGMA journal_mode").fetchone()[0]
        db.close()
        assert mode == ("wal" if self._wal else "delete"), mode
        return found


class DbosPostgresql(_Dbos):
    server: ClassVar[str] = "postgresql"

    def info(self) -> PeerInfo:
        return PeerInfo(
            label="dbos queue on PostgreSQL" + _POLLED,
            engine="PostgreSQL",
            slots=f"threads of its executor; it takes up to {_AHEAD} ahead",
            durability="full",
            syncs="one for each batch that is taken, one for each end; shared with those that coincide",
            ends_recorded=True,
            if_worker_dies="the workflow is recovered when an executor of that name starts again",
            settings=f"{_SETTINGS}; fsync=on, synchronous_commit=on: PostgreSQL's own",
            version=f"dbos {version('dbos')}",
        )

    def _url(self) -> str:
        return self.place.url

    def ended(self) -> int:
        import psycopg

        with psycopg.connect(self.place.url) as db:
            found = db.execute(_COUNT.format(schema="dbos.")).fetchone()
        assert found is not None
        return int(found[0])
