"""Call verbs in another process, and read what a new connection finds afterwards."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

from tests.support.registries import open_registry

TIMEOUT_SEC = 60.0
_spawn = multiprocessing.get_context("spawn")


def _register(path: Path, job_id: str, journal: str = "wal", kill: bool = False) -> None:
    registry = open_registry(path, journal=journal)  # type: ignore[arg-type]
    registry.register(agent="other", prompt="p", job_id=job_id)
    if kill:
        os._exit(0)  # its WAL stays
    registry.close()


def register_in_other_process(*arguments: object) -> None:
    """Register a job in another process, which then closes the database, or with ``kill`` exits without closing it."""
    process = _spawn.Process(target=_register, args=arguments)
    process.start()
    process.join(TIMEOUT_SEC)
    assert process.exitcode == 0


def job_ids(path: Path, journal: str = "wal") -> set[str]:
    """Open the database and return the ids of all jobs."""
    with open_registry(path, journal=journal) as registry:  # type: ignore[arg-type]
        return {job.job_id for job in registry.jobs(limit=1000)}
