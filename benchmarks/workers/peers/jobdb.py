"""jobdb's Worker with eight slots in threads, on SQLite and on PostgreSQL, at the default durability.

The jobs have no broker, so nothing is put into the outbox, which the others do not have. Each attempt has a lease and
is fenced; each end is a signed event with a number.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import apsw

from jobdb import JobStatus, NewJob, Registry, __version__
from jobdb.work import Worker

from ...adapters.jobdb import benchmark_vault
from .base import Handle, PeerInfo, Place, WorkerPeer, prompt

if TYPE_CHECKING:
    from jobdb.work import Work

_AGENT = "benchmark"
_STOP_SEC = 60.0


def _handler(handle: Handle) -> Callable[[Work], None]:
    def handle_job(work: Work) -> None:
        handle(int(work.job.job_id.rpartition("-")[2]))

    return handle_job


def _new_job(number: int) -> NewJob:
    return NewJob(agent=_AGENT, prompt=prompt(number), job_id=f"job-{number}")


class JobdbSqlite(WorkerPeer):
    def __init__(self, place: Place, slots: int) -> None:
        super().__init__(place, slots)
        self._registry: Registry | None = None
        self._worker: Worker | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def info(self) -> PeerInfo:
        return PeerInfo(
            label="jobdb Worker on SQLite",
            engine="SQLite",
            slots="threads",
            durability="full",
            syncs="one for all ends and claims of a moment, which its slots share",
            ends_recorded=True,
            if_worker_dies="the job is given back when its lease has expired, at once after a restart of the machine",
            settings="all as shipped: durability='full', leases of 60 s",
            version=f"jobdb {__version__}, SQLite {apsw.sqlite_lib_version()}",
        )

    def _url(self) -> str:
        return f"sqlite:///{self.place.folder / 'jobs.db'}"

    def _open(self, create: bool = False) -> Registry:
        return Registry.open(self._url(), create=create, vault=benchmark_vault(self.place.folder))

    def prepare(self, jobs: int) -> None:
        with self._open(create=True) as registry:
            for first in range(0, jobs, 1000):
                registry.register_many([_new_job(number) for number in range(first, min(first + 1000, jobs))])

    def _run(self) -> None:
        assert self._worker is not None
        try:
            self._worker.run()
        except BaseException as error:
            self._error = error

    def start(self, handle: Handle) -> None:
        self._registry = self._open()
        self._worker = Worker(self._registry, _handler(handle), concurrency=self.slots)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._thread is None or not self._thread.is_alive():
            raise AssertionError("the worker has ended")

    def stop(self) -> None:
        self.check()
        assert self._worker is not None
        assert self._thread is not None
        self._worker.drain()
        self._thread.join(_STOP_SEC)
        if self._thread.is_alive():
            raise AssertionError("the worker did not stop")
        if self._error is not None:
            raise self._error

    def ended(self) -> int:
        """Return how many jobs completed in their first attempt."""
        assert self._registry is not None
        completed = sum(job.attempt == 1 for job in self._registry.all_jobs(status=JobStatus.COMPLETED))
        self._registry.close()
        return completed

    def open_producer(self) -> None:
        self._registry = self._open()

    def add(self, number: int) -> None:
        assert self._registry is not None
        self._registry.register(agent=_AGENT, prompt=prompt(number), job_id=f"job-{number}")

    def close_producer(self) -> None:
        assert self._registry is not None
        self._registry.close()


class JobdbPostgresql(JobdbSqlite):
    server: ClassVar[str] = "postgresql"

    def info(self) -> PeerInfo:
        return PeerInfo(
            label="jobdb Worker on PostgreSQL",
            engine="PostgreSQL",
            slots="threads",
            durability="full",
            syncs="one for all ends and claims of a moment, which its slots share",
            ends_recorded=True,
            if_worker_dies="the job is given back when its lease has expired, at once after a restart of the machine",
            settings="all as shipped: leases of 60 s; fsync=on, synchronous_commit=on: PostgreSQL's own",
            version=f"jobdb {__version__}",
        )

    def _url(self) -> str:
        return self.place.url
