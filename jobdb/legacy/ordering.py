"""Puts jobs into the order in which they were created, with bounded memory.

Called by the importer: whoever claims takes the job that was recorded first, and a folder lists its files in no
order at all. What fits into memory at once is sorted there. Of a larger registry each portion is sorted, and the
pending jobs, for which the order matters, wait for the end: as many as fit are held; the rest is put off, sorted by
time on disk, names only, and read again.
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
HELD_BYTES = 64 << 20
HELD_JOB_BYTES = 1000
"""What a job takes in memory beside what is stored of it."""

RUN_LENGTH = 20_000
_TIME_OFFSET_MS = 10**14
"""Makes every time positive, so that times sort as text."""


def portions(
    read: Callable[[Callable[[], bool]], Iterable[ReadyJob | PutOff]],
    read_again: Callable[[Iterator[str]], Iterable[ReadyJob]],
    *,
    most_jobs: int = PORTION_JOBS,
    most_bytes: int = PORTION_BYTES,
    held_bytes: int = HELD_BYTES,
) -> Iterator[list[ReadyJob]]:
    """The jobs in portions, each in the order of creation, the pending jobs of all portions too.

    Args:
        read: reads all jobs, in any order. It is given what says, at any moment, whether pending jobs may be put off
            rather than read: there is no room for more of them.
        read_again: reads jobs that were put off, by their ids.
        most_jobs: how many jobs a portion has at most.
        most_bytes: how much memory the files of a portion may take.
        held_bytes: how much memory may be used for pending jobs that wait for the end.
    """
    with ExitStack() as stack:
        waiting = _Waiting(stack, held_bytes)
        several = False
        for portion in _packs(waiting.without_put_off(read(waiting.is_full)), most_jobs, most_bytes):
            if not several and not waiting.some_put_off and not _full(portion, most_jobs, most_bytes):
                yield _by_creation(portion)
                return
            several = True
            for job in portion:
                if job.status == _PENDING:
                    waiting.add(job)
            yield _by_creation(job for job in portion if job.status != _PENDING)
        yield from _packs(waiting.in_order(read_again), most_jobs, most_bytes)


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


class _Waiting:
    """Pending jobs until all others are done: held, or known by name only."""

    def __init__(self, stack: ExitStack, held_bytes: int) -> None:
        self._room = held_bytes
        self._held: list[ReadyJob] = []
        self._names = _NamesByTime(stack)
        self.some_put_off = False

    def without_put_off(self, jobs: Iterable[ReadyJob | PutOff]) -> Iterator[ReadyJob]:
        """The jobs that are here; the others wait."""
        for job in jobs:
            if isinstance(job, PutOff):
                self.some_put_off = True
                self._names.add(job.created_ms, job.job_id)
            else:
                yield job

    def is_full(self) -> bool:
        """Whether what comes now can only be kept by name."""
        return self._room <= 0

    def add(self, job: ReadyJob) -> None:
        if self._room <= 0:
            self._names.add(job.created_ms, job.job_id)
            return
        self._held.append(job)
        self._room -= len(job.stored) + HELD_JOB_BYTES

    def in_order(self, read_again: Callable[[Iterator[str]], Iterable[ReadyJob]]) -> Iterator[ReadyJob]:
        self._held.sort(key=_created, reverse=True)
        return heapq.merge(self._taken(), read_again(self._names.names()), key=_created)

    def _taken(self) -> Iterator[ReadyJob]:
        """Those that are held, the first first; each is let go."""
        while self._held:
            yield self._held.pop()


class _NamesByTime:
    """Sorts names by time, in runs on disk."""

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

    def names(self) -> Iterator[str]:
        for line in heapq.merge(*self._runs, sorted(self._lines)):
            yield line[17:-1]
