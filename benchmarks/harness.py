"""Runs the plan: keeps the worker processes, interleaves the ways, gathers what the workers report.

Called by __main__.py with a plan (plan.py). For each cell (operation, number of workers, size of registry)
the ways take turns, and in each repetition another way begins, so that a slow minute of the machine hits all.
Every run gets a fresh copy of a prepared registry; what a plan marks as ``kept`` (the large ones) is reused.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from . import worker
from .latencies import add, percentile_us, spread
from .plan import Cell, Plan
from .ways import ADAPTERS

ANSWER_TIMEOUT_SEC = 600.0


class WorkerFailed(Exception):
    """A worker's traceback."""


class Pool:
    """Worker processes (spawned, so that nothing is inherited), each behind a pipe."""

    def __init__(self, numbers: Iterable[int]) -> None:
        # Should some library load numpy, its BLAS would keep threads that spin beside what is measured.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        self._context = multiprocessing.get_context("spawn")
        numbers = sorted(set(numbers) | {1})
        self._start = worker.StartBarrier(
            {count: self._context.Barrier(count) for count in numbers},
            self._context.Value("q", 0),
            self._context.Value("i", 0),
        )
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        for index in range(max(numbers)):
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=worker.main, args=(index, theirs, self._start), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.terminate()

    def _collect(self, pipes: list[Connection]) -> list[Any]:
        results: list[Any] = []
        traces: list[str] = []
        for pipe in pipes:
            if not pipe.poll(ANSWER_TIMEOUT_SEC):
                raise WorkerFailed(f"a worker did not answer within {ANSWER_TIMEOUT_SEC:.0f} s")
            good, result = pipe.recv()
            (results if good else traces).append(result)
        if traces:
            for barrier in self._start.barriers.values():
                barrier.reset()
            first = next((trace for trace in traces if "BrokenBarrierError" not in trace), traces[0])
            raise WorkerFailed(first)
        return results

    def call(self, name: str, *arguments: Any) -> Any:
        """Has the first worker run one of worker.py's unmeasured steps."""
        self._pipes[0].send((name, arguments))
        return self._collect(self._pipes[:1])[0]

    def run(self, task: worker.Task) -> list[worker.Outcome]:
        """Has the task's workers run it at the same time."""
        pipes = self._pipes[: task.workers]
        for pipe in pipes:
            pipe.send(("run", (task,)))
        return self._collect(pipes)


def merge_outcomes(outcomes: list[worker.Outcome], seconds: float) -> dict[str, Any]:
    """One repetition from what its workers reported.

    The measured time of a round is its full length, or, where all workers ran out of work or there is one
    worker alone, the time until the last call that counts: so a call that takes a good part of the round is
    not counted as less than it is.
    """
    done = sum(share.done for outcome in outcomes for share in outcome.rounds)
    elapsed = 0.0
    for shares in zip(*(outcome.rounds for outcome in outcomes), strict=True):
        if len(shares) > 1 and any(not share.exhausted for share in shares):
            elapsed += seconds
        else:
            elapsed += (max(share.last_end_ns for share in shares) - shares[0].start_ns) / 1e9
    counts = add(outcome.counts for outcome in outcomes)
    by_worker = [sum(share.done for share in outcome.rounds) for outcome in outcomes]
    return {
        "per_sec": done / elapsed if elapsed else 0.0,
        "done": done,
        "elapsed_sec": elapsed,
        "errors": sum(outcome.errors for outcome in outcomes),
        "p50_us": percentile_us(counts, 0.5),
        "p99_us": percentile_us(counts, 0.99),
        "longest_us": max(outcome.longest_us for outcome in outcomes),
        "slowest_fastest": min(by_worker) / max(by_worker) if max(by_worker) else 0.0,
        "cpu_us_each": sum(outcome.cpu_sec for outcome in outcomes) / done * 1e6 if done else 0.0,
        "workers": [
            {
                "done": by,
                "p50_us": o.p50_us,
                "p99_us": o.p99_us,
                "longest_us": o.longest_us,
                "errors": o.errors,
            }
            for by, o in zip(by_worker, outcomes, strict=True)
        ],
        "histogram": {str(bucket): count for bucket, count in counts.items()},
    }


@dataclass(slots=True)
class _Series:
    cell: Cell
    way: str
    repetitions: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        def over(name: str) -> dict[str, Any]:
            return spread([repetition[name] for repetition in self.repetitions])

        return {
            "way": self.way,
            "operation": self.cell.operation,
            "workers": self.cell.workers,
            "size": self.cell.size,
            "per_sec": over("per_sec"),
            "p50_us": over("p50_us"),
            "p99_us": over("p99_us"),
            "longest_us": over("longest_us"),
            "slowest_fastest": over("slowest_fastest"),
            "cpu_us_each": over("cpu_us_each"),
            "errors": sum(repetition["errors"] for repetition in self.repetitions),
            "histogram": {
                str(bucket): count
                for bucket, count in add(
                    {int(b): c for b, c in repetition["histogram"].items()} for repetition in self.repetitions
                ).items()
            },
            "repetitions": [
                {name: value for name, value in repetition.items() if name != "histogram"}
                for repetition in self.repetitions
            ],
            "failures": self.failures,
        }


class Runner:
    """Runs a plan's cells in a folder."""

    def __init__(self, pool: Pool, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        self._pool = pool
        self._plan = plan
        self._folder = folder
        self._say = say
        self._templates: dict[tuple[str, int], Path] = {}
        self._copies = 0

    def _template(self, way: str, size: int) -> Path:
        found = self._templates.get((way, size))
        if found is None:
            found = self._folder / f"template-{way}-{size}"
            began = time.monotonic()
            self._pool.call("prepare", way, found, size)
            self._templates[way, size] = found
            if time.monotonic() - began > 2:
                self._say(f"prepared {way} with {size:,} jobs in {time.monotonic() - began:.1f} s")
        return found

    def _run_once(self, cell: Cell, way: str) -> dict[str, Any]:
        template = self._template(way, cell.size)
        folder = template
        if not cell.kept:
            self._copies += 1
            folder = self._folder / f"copy-{self._copies}"
            self._pool.call("copy", way, template, folder)
        try:
            outcomes = self._pool.run(
                worker.Task(
                    way=way,
                    folder=folder,
                    operation=cell.operation,
                    workers=cell.workers,
                    seconds=cell.seconds,
                    warmup_sec=cell.warmup_sec,
                    rounds=cell.rounds,
                    prefill_calls=cell.prefill_calls,
                )
            )
        finally:
            if not cell.kept:
                self._pool.call("remove", way, folder)
        return merge_outcomes(outcomes, cell.seconds)

    def _run_cell(self, cell: Cell) -> list[_Series]:
        series = [_Series(cell, way) for way in cell.ways]
        for repetition in range(cell.repetitions):
            turn = repetition % len(series)
            for one in series[turn:] + series[:turn]:
                if one.failures:
                    continue
                try:
                    one.repetitions.append(self._run_once(cell, one.way))
                except WorkerFailed as failure:
                    one.failures.append(str(failure).strip().splitlines()[-1])
                    print(failure, file=sys.stderr)
        return series

    def run(self) -> list[dict[str, Any]]:
        """All cells; afterwards the folder is empty again."""
        results: list[dict[str, Any]] = []
        try:
            for number, cell in enumerate(self._plan.cells, 1):
                began = time.monotonic()
                series = self._run_cell(cell)
                results.extend(one.as_dict() for one in series)
                self._say(
                    f"{number}/{len(self._plan.cells)} {cell.operation}, {cell.workers} processes, "
                    f"{cell.size:,} jobs, {len(cell.ways)} ways: {time.monotonic() - began:.1f} s"
                )
        finally:
            for (way, _), folder in self._templates.items():
                if folder.exists():
                    self._pool.call("remove", way, folder)
        return results


def describe_adapters(names: Iterable[str]) -> dict[str, Any]:
    """What the ways say of themselves."""
    return {name: asdict(ADAPTERS[name].about()) | {"absent": ADAPTERS[name].load().unsupported} for name in names}
