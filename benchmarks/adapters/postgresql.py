"""jobdb on PostgreSQL: the same library and verbs on a private server that is started for the benchmark.

Called by harness.py. A copy of a registry is a database created from the template's.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from jobdb import __version__

from ..postgresql_server import PostgresServer, reason_unavailable, server_version
from .base import AdapterInfo
from .jobdb import SET_STATUSES_SQL, Jobdb


class Postgresql(Jobdb):
    def __init__(self, folder: Path, durability: str) -> None:
        super().__init__(folder, durability)
        self._server = PostgresServer(folder.parent / "postgresql-server")
        self._database = folder.name.replace("-", "_")

    @classmethod
    def info(cls, durability: str) -> AdapterInfo:
        return AdapterInfo(
            label="jobdb on PostgreSQL, full",
            durability=durability,
            as_shipped=True,
            settings="fsync=on, synchronous_commit=on: PostgreSQL's own settings; local socket",
            version=f"jobdb {__version__}, {server_version()}",
        )

    @classmethod
    def reason_unavailable(cls) -> str:
        if find_spec("jobdb.engines.postgresql") is None:
            return "there is no jobdb.engines.postgresql"
        return reason_unavailable()

    def _url(self) -> str:
        return self._server.url(self._database)

    def prepare(self, size: int) -> None:
        self._server.start()
        self._server.create(self._database)
        super().prepare(size)
        (self.folder / "template").write_text(self._database, "utf-8")

    def _set_statuses(self) -> None:
        self._server.sql(self._database, SET_STATUSES_SQL)

    def after_copy(self) -> None:
        template = (self.folder / "template").read_text("utf-8")
        self._server.create(self._database, template)

    def before_remove(self) -> None:
        """Drop the database; the last one stops the server."""
        self._server.drop(self._database)
        if not self._server.databases():
            self._server.stop()
