"""The measured workers by name. Read by series.py and tasks.py; a peer's module is imported when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .base import Peer, Place


@dataclass(frozen=True, slots=True)
class PeerSpec:
    """A peer's module and class, the options it is created with, and whether its waiting is measured, too."""

    module: str
    cls: str
    options: Mapping[str, Any] = field(default_factory=dict)
    waits: bool = False

    def load(self) -> type[Peer]:
        peer: type[Peer] = getattr(importlib.import_module(f"benchmarks.workers.peers.{self.module}"), self.cls)
        return peer

    def create(self, place: Place, slots: int) -> Peer:
        return self.load()(place, slots, **self.options)


PEERS: dict[str, PeerSpec] = {
    "jobdb-sqlite": PeerSpec("jobdb", "JobdbSqlite", waits=True),
    "jobdb-postgresql": PeerSpec("jobdb", "JobdbPostgresql", waits=True),
    "huey": PeerSpec("huey", "HueyConsumer", {"results": False}, waits=True),
    "huey-results": PeerSpec("huey", "HueyConsumer", {"results": True}),
    "dbos-sqlite": PeerSpec("dbos", "DbosSqlite", {"wal": False}),
    "dbos-sqlite-wal": PeerSpec("dbos", "DbosSqlite", {"wal": True}, waits=True),
    "rq": PeerSpec("rq", "RqWorkers", waits=True),
    "litequeue": PeerSpec("queues", "LitequeueLoop"),
    "persist-queue": PeerSpec("queues", "PersistQueueLoop"),
    "simplebroker": PeerSpec("queues", "SimplebrokerLoop"),
    "sqlite-loop": PeerSpec("sqlite_loop", "SqliteLoop", {"joined": False}),
    "sqlite-loop-joined": PeerSpec("sqlite_loop", "SqliteLoop", {"joined": True}),
    "procrastinate": PeerSpec("procrastinate", "ProcrastinateWorker", {"threads": False}, waits=True),
    "procrastinate-threads": PeerSpec("procrastinate", "ProcrastinateWorker", {"threads": True}),
    "dbos-postgresql": PeerSpec("dbos", "DbosPostgresql", waits=True),
    "postgresql-loop": PeerSpec("postgresql_loop", "PostgresqlLoop"),
}
