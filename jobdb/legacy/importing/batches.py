"""The batches of an import: jobs in order of creation, with bounded memory.

Called by the importer: a claim takes the job that was recorded first, but a folder lists its files in no particular
order. A registry that fits into memory is sorted there. In a larger one each batch is sorted, and the pending jobs, for
which the order matters, are deferred: their ids are sorted by time on disk, and they are read in that order at the end.
This also keeps the reader processes busy while the last jobs are written.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from operator import attrgetter
from typing import IO

from ...model import JobStatus
from .normalized_job import DeferredJob, NormalizedJob

_PENDING = JobStatus.PENDING.value
MAX_BATCH_JOBS = 250
MAX_BATCH_BYTES = 16 << 20
RUN_LENGTH = 20_000
_TIME_OFFSET_MS = 10**14
"""An offset that makes every time positive, so that times sort as text."""

_TIME_DIGITS = 16


def ordered_batches(
    jobs: Iterable[NormalizedJob | DeferredJob],
    read_deferred: Callable[[Iterator[str]], Iterable[NormalizedJob]],
    *,
    max_jobs: int = MAX_BATCH_JOBS,
    max_bytes: int = MAX_BATCH_BYTES,
) -> Iterator[list[NormalizedJob]]:
    """Yield the jobs in batches, each in order of creation, and the pending jobs of all batches in that order too.

    Args:
        jobs: all jobs, in any order. Pending ones may already be deferred if not all jobs fit into memory.
        read_deferred: reads deferred jobs by their ids.
        max_jobs: the maximum number of jobs in a batch.
        max_bytes: the maximum memory for the files of a batch.
    """
    with ExitStack() as stack:
        deferred = _ExternalSort(stack)
        several = False
        for batch in _batches(_divert_deferred(jobs, deferred), max_jobs, max_bytes):
            if not several and deferred.empty and not _full(batch, max_jobs, max_bytes):
                yield _by_creation(batch)
                return
            several = True
            for job in batch:
                if job.status == _PENDING:
                    deferred.add(job.created_ms, job.job_id)
            yield _by_creation(job for job in batch if job.status != _PENDING)
        yield from _batches(read_deferred(deferred.job_ids()), max_jobs, max_bytes)


def _divert_deferred(jobs: Iterable[NormalizedJob | DeferredJob], deferred: _ExternalSort) -> Iterator[NormalizedJob]:
    for job in jobs:
        if isinstance(job, DeferredJob):
            deferred.add(job.created_ms, job.job_id)
        else:
            yield job


def _batches(jobs: Iterable[NormalizedJob], max_jobs: int, max_bytes: int) -> Iterator[list[NormalizedJob]]:
    """Yield full batches, and a last one that may not be full."""
    batch: list[NormalizedJob] = []
    size = 0
    for job in jobs:
        batch.append(job)
        size += job.bytes_read
        if len(batch) >= max_jobs or size >= max_bytes:
            yield batch
            batch, size = [], 0
    yield batch


def _full(batch: list[NormalizedJob], max_jobs: int, max_bytes: int) -> bool:
    return len(batch) >= max_jobs or sum(job.bytes_read for job in batch) >= max_bytes


_created = attrgetter("created_ms", "job_id")


def _by_creation(jobs: Iterable[NormalizedJob]) -> list[NormalizedJob]:
    return sorted(jobs, key=_created)


class _ExternalSort:
    """An external merge sort of job ids by time and id, with runs on disk."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._runs: list[IO[str]] = []
        self._lines: list[str] = []

    def add(self, created_ms: int, job_id: str) -> None:
        self._lines.append(f"{created_ms + _TIME_OFFSET_MS:0{_TIME_DIGITS}d} {job_id}\n")
        if len(self._lines) >= RUN_LENGTH:
            file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed by the stack
            run = self._stack.enter_context(file)
            run.writelines(sorted(self._lines))
            run.seek(0)
            self._runs.append(run)
            self._lines = []

    @property
    def empty(self) -> bool:
        return not self._lines and not self._runs

    def job_ids(self) -> Iterator[str]:
        for line in heapq.merge(*self._runs, sorted(self._lines)):
            yield line[_TIME_DIGITS + 1 : -1]
