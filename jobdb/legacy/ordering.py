"""Puts jobs into the order in which they were created, with bounded memory.

Called by the importer: whoever claims takes the job that was recorded first, and a folder lists its files in no
order at all. What fits into memory at once is sorted there. Of a larger registry each portion is sorted, and the
pending jobs, for which the order matters, wait for the end: their names are sorted by time, on disk, and they are read
when it is their turn. That also keeps the reading processes at work while the last jobs are written.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from operator import attrgetter
from typing import IO

from ..model import JobStatus
from .ready import PutOff, ReadyJob

_PENDING = JobStatus.PENDING.value
PORTION_JOBS = 250
PORTION_BYTES = 16 << 20
RUN_LENGTH = 20_000
_TIME_OFFSET_MS = 10**14
"""Makes every time positive, so that times sort as text."""


def portions(
    jobs: Iterable[ReadyJob | PutOff],
    read_again: Callable[[Iterator[str]], Iterable[ReadyJob]],
    *,
    most_jobs: int = PORTION_JOBS,
    most_bytes: int = PORTION_BYTES,
) -> Iterator[list[ReadyJob]]:
    """The jobs in portions, each in the order of creation, the pending jobs of all portions too.

    Args:
        jobs: all jobs, in any order. Pending ones may be put off already, where more are to come than fit at once.
        read_again: reads jobs that were put off, by their ids.
        most_jobs: how many jobs a portion has at most.
        most_bytes: how much memory the files of a portion may take.
    """
    with ExitStack() as stack:
        waiting = _NamesByTime(stack)
        several = False
        for portion in _packs(_without_put_off(jobs, waiting), most_jobs, most_bytes):
            if not several and waiting.empty and not _full(portion, most_jobs, most_bytes):
                yield _by_creation(portion)
                return
            several = True
            for job in portion:
                if job.status == _PENDING:
                    waiting.add(job.created_ms, job.job_id)
            yield _by_creation(job for job in portion if job.status != _PENDING)
        yield from _packs(read_again(waiting.names()), most_jobs, most_bytes)


def _without_put_off(jobs: Iterable[ReadyJob | PutOff], waiting: _NamesByTime) -> Iterator[ReadyJob]:
    for job in jobs:
        if isinstance(job, PutOff):
            waiting.add(job.created_ms, job.job_id)
        else:
            yield job


def _packs(jobs: Iterable[ReadyJob], most_jobs: int, most_bytes: int) -> Iterator[list[ReadyJob]]:
    """Full packs, and at the end one that is not full."""
    pack: list[ReadyJob] = []
    size = 0
    for job in jobs:
        pack.append(job)
        size += job.bytes_read
        if len(pack) >= most_jobs or size >= most_bytes:
            yield pack
            pack, size = [], 0
    yield pack


def _full(pack: list[ReadyJob], most_jobs: int, most_bytes: int) -> bool:
    return len(pack) >= most_jobs or sum(job.bytes_read for job in pack) >= most_bytes


_created = attrgetter("created_ms", "job_id")


def _by_creation(jobs: Iterable[ReadyJob]) -> list[ReadyJob]:
    return sorted(jobs, key=_created)


class _NamesByTime:
    """Sorts names by time, and by themselves, in runs on disk."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._runs: list[IO[str]] = []
        self._lines: list[str] = []

    def add(self, created_ms: int, name: str) -> None:
        self._lines.append(f"{created_ms + _TIME_OFFSET_MS:016d} {name}\n")
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

    def names(self) -> Iterator[str]:
        for line in heapq.merge(*self._runs, sorted(self._lines)):
            yield line[17:-1]
