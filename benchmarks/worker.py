"""What one worker process does: opens a way, waits for the common start, repeats one verb, reports.

Runs inside the processes that harness.py starts. All workers of a run begin at one moment of the monotonic
clock, agreed through shared memory after a barrier. A run is one or more rounds of at most ``seconds``;
claim drains the pending jobs and puts them back, unmeasured, between rounds.
"""

from __future__ import annotations

import contextlib
import gc
import resource
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from .latencies import Histogram, histogram, percentile_us
from .ways import ADAPTERS
from .ways.base import Adapter, Verb

BARRIER_TIMEOUT_SEC = 180.0
_START_NS = 15_000_000
_RETRIES = 50


@dataclass(frozen=True, slots=True)
class Task:
    """One run of one verb of one way, as the workers get it."""

    way: str
    folder: Path
    operation: str
    workers: int
    seconds: float
    warmup_sec: float
    rounds: int
    prefill_calls: int


@dataclass(slots=True)
class Round:
    """One worker's share of one round. Times are monotonic nanoseconds."""

    done: int
    exhausted: bool
    start_ns: int
    last_end_ns: int


@dataclass(slots=True)
class Outcome:
    """One worker's report. ``done`` counts jobs, events or pages finished inside the measured time."""

    worker: int
    rounds: list[Round] = field(default_factory=list)
    errors: int = 0
    calls: int = 0
    p50_us: float = 0.0
    p99_us: float = 0.0
    longest_us: float = 0.0
    cpu_sec: float = 0.0
    counts: Histogram = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StartBarrier:
    """The means to begin together: a barrier for each number of workers and two shared numbers."""

    barriers: dict[int, Barrier]
    moment: Any
    stop: Any

    def arrive_and_wait(self, workers: int, enough: bool = False) -> int:
        """Waits for all; returns the common moment in nanoseconds, or 0 when the first to arrive has enough."""
        barrier = self.barriers[workers]
        if barrier.wait(BARRIER_TIMEOUT_SEC) == 0:
            self.stop.value = int(enough)
            self.moment.value = time.monotonic_ns() + _START_NS
        barrier.wait(BARRIER_TIMEOUT_SEC)
        return 0 if self.stop.value else int(self.moment.value)


def _retry_while_busy(action: Callable[[], None], busy_errors: tuple[type[BaseException], ...]) -> None:
    """Unmeasured steps may meet a lock; they are tried again, so that only measured ones can fail."""
    for attempt in range(_RETRIES):
        try:
            action()
            return
        except busy_errors:
            if attempt == _RETRIES - 1:
                raise


def _sleep_until(moment_ns: int) -> None:
    while (left := moment_ns - time.monotonic_ns()) > 0:
        time.sleep(max(left - 200_000, 0) / 1e9)


def repeat(
    verb: Verb, busy_errors: tuple[type[BaseException], ...], start_ns: int, seconds: float, latencies: list[int]
) -> tuple[Round, int]:
    """Calls the verb from a moment on until the time is over or nothing is left; returns the round and errors.

    A call that the end of the time cuts through is waited for and its latency counts, its work does not.
    """
    _sleep_until(start_ns)
    clock = time.monotonic_ns
    end = start_ns + int(seconds * 1e9)
    done, errors, exhausted, before = 0, 0, False, clock()
    last_end = start_ns
    while before < end:
        try:
            count = verb()
        except busy_errors:
            count, errors = -1, errors + 1
        after = clock()
        if count == 0:
            exhausted = True
            break
        latencies.append(after - before)
        if count > 0 and after <= end:
            done += count
            last_end = after
        before = after
    return Round(done, exhausted, start_ns, last_end), errors


def measure(task: Task, way: Adapter, worker: int, start: StartBarrier) -> Outcome:
    """All rounds of a task in this worker."""
    outcome = Outcome(worker)
    verb = way.verb(task.operation)
    if task.warmup_sec > 0:
        repeat(verb, way.busy_errors, start.arrive_and_wait(task.workers), task.warmup_sec, [])
        if task.operation == "claim":
            start.arrive_and_wait(task.workers)
            _retry_while_busy(way.reset_claims, way.busy_errors)
    latencies: list[int] = []
    measured_ns = 0
    gc.collect()
    gc.freeze()  # what the harness and other ways have imported is not this way's to look through
    for _ in range(task.rounds):
        moment = start.arrive_and_wait(task.workers, measured_ns >= task.seconds * 1e9)
        if not moment:
            break
        before = resource.getrusage(resource.RUSAGE_SELF)
        share, errors = repeat(verb, way.busy_errors, moment, task.seconds, latencies)
        after = resource.getrusage(resource.RUSAGE_SELF)
        measured_ns += time.monotonic_ns() - moment
        outcome.cpu_sec += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        outcome.rounds.append(share)
        outcome.errors += errors
        if task.operation == "claim":
            start.arrive_and_wait(task.workers)
            _retry_while_busy(way.reset_claims, way.busy_errors)
    outcome.calls = len(latencies)
    outcome.counts = histogram(latencies)
    outcome.p50_us = percentile_us(outcome.counts, 0.5)
    outcome.p99_us = percentile_us(outcome.counts, 0.99)
    outcome.longest_us = max(latencies, default=0) / 1000
    return outcome


def _run(task: Task, worker: int, start: StartBarrier) -> Outcome:
    spec = ADAPTERS[task.way]
    way = spec.load()(task.folder, spec.durability)
    _retry_while_busy(lambda: way.open(worker, task.workers), way.busy_errors)
    try:
        _retry_while_busy(lambda: way.prefill(task.operation, task.prefill_calls), way.busy_errors)
        return measure(task, way, worker, start)
    finally:
        way.close()


def prepare(name: str, folder: Path, size: int) -> None:
    """Makes the template registry of a way."""
    spec = ADAPTERS[name]
    folder.mkdir(parents=True, mode=0o700)
    spec.load()(folder, spec.durability).prepare(size)


def copy(name: str, template: Path, folder: Path) -> None:
    """A fresh copy of a template."""
    spec = ADAPTERS[name]
    shutil.copytree(template, folder, copy_function=shutil.copy)
    spec.load()(folder, spec.durability).after_copy()


def remove(name: str, folder: Path) -> None:
    """Deletes a copy or template and what it holds elsewhere."""
    spec = ADAPTERS[name]
    spec.load()(folder, spec.durability).before_remove()
    shutil.rmtree(folder)


def main(worker: int, connection: Connection, start: StartBarrier) -> None:
    """The worker process: takes (name, arguments) until None, answers (True, result) or (False, traceback)."""
    steps: dict[str, Callable[..., Any]] = {"prepare": prepare, "copy": copy, "remove": remove}
    while (order := connection.recv()) is not None:
        name, arguments = order
        try:
            if name == "run":
                connection.send((True, _run(arguments[0], worker, start)))
            else:
                connection.send((True, steps[name](*arguments)))
        except Exception:
            for barrier in start.barriers.values():
                with contextlib.suppress(ValueError):
                    barrier.abort()
            connection.send((False, traceback.format_exc()))
