"""Puts jobs into the order in which they were created, with bounded memory.

Called by the importer: whoever claims takes the job that was recorded first, and a folder lists its files in no
order at all. What fits into memory at once is sorted there. Of a larger registry each portion is sorted, and the
pending jobs, for which the order matters, are put off to the end: as many as fit are held, in packed form; the rest is
sorted by time on disk, names only, and read again.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import IO

from ..model import JobStatus
from .packing import pack, unpack
from .source import SourceJob

PORTION_JOBS = 1000
PORTION_BYTES = 16 << 20
HELD_BYTES = 32 << 20
RUN_LENGTH = 20_000
_TIME_OFFSET_MS = 10**14
"""Makes every time positive, so that times sort as text."""


def portions(
    jobs: Iterable[SourceJob],
    read_again: Callable[[Iterator[str]], Iterable[SourceJob]],
    *,
    most_jobs: int = PORTION_JOBS,
    most_bytes: int = PORTION_BYTES,
    held_bytes: int = HELD_BYTES,
) -> Iterator[list[SourceJob]]:
    """The jobs in portions, each in the order of creation, the pending jobs of all portions too.

    Args:
        jobs: all jobs, in any order.
        read_again: reads jobs that were put off, by their ids.
        most_jobs: how many jobs a portion has at most.
        most_bytes: how much memory the files of a portion may take.
        held_bytes: how much memory may be used for pending jobs that wait for the end.
    """
    with ExitStack() as stack:
        waiting = _Waiting(stack, held_bytes)
        several = False
        for portion in _packs(jobs, most_jobs, most_bytes):
            if not several and not _full(portion, most_jobs, most_bytes):
                yield _by_creation(portion)
                return
            several = True
            for job in portion:
                if job.record.status == JobStatus.PENDING:
                    waiting.add(job)
            yield _by_creation(job for job in portion if job.record.status != JobStatus.PENDING)
        yield from _packs(waiting.in_order(read_again), most_jobs, most_bytes)


def _packs(jobs: Iterable[SourceJob], most_jobs: int, most_bytes: int) -> Iterator[list[SourceJob]]:
    """Full packs, and at the end one that is not full."""
    pack: list[SourceJob] = []
    size = 0
    for job in jobs:
        pack.append(job)
        size += job.bytes_read
        if len(pack) >= most_jobs or size >= most_bytes:
            yield pack
            pack, size = [], 0
    yield pack


def _full(pack: list[SourceJob], most_jobs: int, most_bytes: int) -> bool:
    return len(pack) >= most_jobs or sum(job.bytes_read for job in pack) >= most_bytes


def _created(job: SourceJob) -> tuple[int, str]:
    return job.record.created_ms, job.record.job_id


def _by_creation(jobs: Iterable[SourceJob]) -> list[SourceJob]:
    return sorted(jobs, key=_created)


class _Waiting:
    """Pending jobs until all others are done: held, or known by name only."""

    def __init__(self, stack: ExitStack, held_bytes: int) -> None:
        self._room = held_bytes
        self._held: list[tuple[int, str, bytes]] = []
        self._names = _NamesByTime(stack)

    def add(self, job: SourceJob) -> None:
        created_ms, job_id = _created(job)
        if self._room <= 0:
            self._names.add(created_ms, job_id)
            return
        packed = pack([("", job)])
        self._held.append((created_ms, job_id, packed))
        self._room -= len(packed)

    def in_order(self, read_again: Callable[[Iterator[str]], Iterable[SourceJob]]) -> Iterator[SourceJob]:
        self._held.sort(reverse=True)
        return heapq.merge(self._unpacked(), read_again(self._names.names()), key=_created)

    def _unpacked(self) -> Iterator[SourceJob]:
        while self._held:
            _, job = unpack(self._held.pop()[2])[0]
            if isinstance(job, SourceJob):
                yield job


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
