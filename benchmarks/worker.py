"""A worker process: opens an adapter, waits for the common start, repeats one verb, reports the outcome.

Runs inside the processes that harness.py starts. All workers of a run start at the same time of the monotonic clock,
agreed on through shared memory after a barrier. A run is one or more rounds of at most ``seconds``; claim drains the
pending jobs, and between rounds they are made pending again, unmeasured.
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

from .adapters import ADAPTERS
from .adapters.base import Adapter, Verb
from .latencies import Histogram, histogram, percentile_us

BARRIER_TIMEOUT_SEC = 180.0
_START_NS = 15_000_000
_RETRIES = 50


@dataclass(frozen=True, slots=True)
class Task:
    """One run of one operation of one adapter, as it is sent to the workers."""

    adapter: str
    folder: Path
    operation: str
    workers: int
    seconds: float
    warmup_sec: float
    rounds: int
    prefill_calls: int


@dataclass(slots=True)
class Round:
    """One worker's part of one round; times are monotonic nanoseconds."""

    done: int
    exhausted: bool
    start_ns: int
    last_end_ns: int


@dataclass(slots=True)
class Outcome:
    """One worker's results; ``Round.done`` counts the jobs, events or pages finished within the measured time."""

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
    """A barrier for each number of workers, and two shared numbers: the common start time, and whether to stop."""

    barriers: dict[int, Barrier]
    start_ns: Any
    stop: Any

    def arrive_and_wait(self, workers: int, enough: bool = False) -> int:
        """Wait for all workers; return the common start time in ns, or 0 when the first to arrive has enough."""
        barrier = self.barriers[workers]
        if barrier.wait(BARRIER_TIMEOUT_SEC) == 0:
            self.stop.value = int(enough)
            self.start_ns.value = time.monotonic_ns() + _START_NS
        barrier.wait(BARRIER_TIMEOUT_SEC)
        return 0 if self.stop.value else int(self.start_ns.value)


def _retry_while_busy(action: Callable[[], None], busy_errors: tuple[type[BaseException], ...]) -> None:
    """Run an unmeasured step, again while it meets a lock: only measured steps may fail because of one."""
    for attempt in range(_RETRIES):
        try:
            action()
            return
        except busy_errors:
            if attempt == _RETRIES - 1:
                raise


def _sleep_until(time_ns: int) -> None:
    while (left := time_ns - time.monotonic_ns()) > 0:
        time.sleep(max(left - 200_000, 0) / 1e9)


def repeat(
    verb: Verb, busy_errors: tuple[type[BaseException], ...], start_ns: int, seconds: float, latencies: list[int]
) -> tuple[Round, int]:
    """Call the verb from the start time until the time is over or nothing is left; return the round and its errors.

    A call that is still running at the end is waited for: its latency counts, its work does not.
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


def measure(task: Task, adapter: Adapter, worker: int, start: StartBarrier) -> Outcome:
    """Run all rounds of a task in this worker."""
    outcome = Outcome(worker)
    verb = adapter.verb(task.operation)
    if task.warmup_sec > 0:
        repeat(verb, adapter.busy_errors, start.arrive_and_wait(task.workers), task.warmup_sec, [])
        if task.operation == "claim":
            start.arrive_and_wait(task.workers)
            _retry_while_busy(adapter.reset_claims, adapter.busy_errors)
    latencies: list[int] = []
    measured_ns = 0
    gc.collect()
    gc.freeze()  # the collector need not traverse what the harness and other adapters have imported
    for _ in range(task.rounds):
        start_ns = start.arrive_and_wait(task.workers, measured_ns >= task.seconds * 1e9)
        if not start_ns:
            break
        before = resource.getrusage(resource.RUSAGE_SELF)
        share, errors = repeat(verb, adapter.busy_errors, start_ns, task.seconds, latencies)
        after = resource.getrusage(resource.RUSAGE_SELF)
        measured_ns += time.monotonic_ns() - start_ns
        outcome.cpu_sec += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        outcome.rounds.append(share)
        outcome.errors += errors
        if task.operation == "claim":
            start.arrive_and_wait(task.workers)
            _retry_while_busy(adapter.reset_claims, adapter.busy_errors)
    outcome.calls = len(latencies)
    outcome.counts = histogram(latencies)
    outcome.p50_us = percentile_us(outcome.counts, 0.5)
    outcome.p99_us = percentile_us(outcome.counts, 0.99)
    outcome.longest_us = max(latencies, default=0) / 1000
    return outcome


def _run(task: Task, worker: int, start: StartBarrier) -> Outcome:
    spec = ADAPTERS[task.adapter]
    adapter = spec.load()(task.folder, spec.durability)
    _retry_while_busy(lambda: adapter.open(worker, task.workers), adapter.busy_errors)
    try:
        _retry_while_busy(lambda: adapter.prefill(task.operation, task.prefill_calls), adapter.busy_errors)
        return measure(task, adapter, worker, start)
    finally:
        adapter.close()


def prepare(name: str, folder: Path, size: int) -> None:
    """Create the template registry of an adapter."""
    spec = ADAPTERS[name]
    folder.mkdir(parents=True, mode=0o700)
    spec.load()(folder, spec.durability).prepare(size)


def copy(name: str, template: Path, folder: Path) -> None:
    """Create a fresh copy of a template."""
    spec = ADAPTERS[name]
    shutil.copytree(template, folder, copy_function=shutil.copy)
    spec.load()(folder, spec.durability).after_copy()


def remove(name: str, folder: Path) -> None:
    """Delete a copy or template, and what it holds elsewhere."""
    spec = ADAPTERS[name]
    spec.load()(folder, spec.durability).before_remove()
    shutil.rmtree(folder)


def main(worker: int, connection: Connection, start: StartBarrier) -> None:
    """Process (name, arguments) messages until None; answer (True, result) or (False, traceback)."""
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
