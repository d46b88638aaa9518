"""Run a plan: start the worker processes, interleave the adapters, collect the workers' results.

Called by __main__.py with a plan (plan.py). For each cell (operation, number of workers, size of the registry) the
adapters take turns, and each repetition begins with another adapter, so that a slow minute of the machine affects all.
Every run gets a fresh copy of a prepared registry; large registries are reused (``Cell.reuses_template``).
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
from .adapters import ADAPTERS
from .latencies import add, percentile_us, spread
from .plan import Cell, Plan

ANSWER_TIMEOUT_SEC = 600.0


class WorkerFailed(Exception):
    """A worker failed; the message is its traceback."""


class Pool:
    """The worker processes (spawned, so that nothing is inherited), each behind a pipe."""

    def __init__(self, numbers: Iterable[int]) -> None:
        # If a library loads numpy, its BLAS would keep threads that spin beside the measurement.
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
        """Run one of worker.py's unmeasured steps in the first worker."""
        self._pipes[0].send((name, arguments))
        return self._collect(self._pipes[:1])[0]

    def run(self, task: worker.Task) -> list[worker.Outcome]:
        """Run a task in its workers at the same time."""
        pipes = self._pipes[: task.workers]
        for pipe in pipes:
            pipe.send(("run", (task,)))
        return self._collect(pipes)


def merge_outcomes(outcomes: list[worker.Outcome], seconds: float) -> dict[str, Any]:
    """Return one repetition's result from its workers' outcomes.

    The measured time of a round is its full length; if all workers ran out of work, or there is only one worker, it is
    the time until the last counted call. So a call that takes much of the round does not lower the rate unduly.
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
    adapter: str
    repetitions: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        def spread_of(name: str) -> dict[str, Any]:
            return spread([repetition[name] for repetition in self.repetitions])

        return {
            "way": self.adapter,
            "operation": self.cell.operation,
            "workers": self.cell.workers,
            "size": self.cell.size,
            "per_sec": spread_of("per_sec"),
            "p50_us": spread_of("p50_us"),
            "p99_us": spread_of("p99_us"),
            "longest_us": spread_of("longest_us"),
            "slowest_fastest": spread_of("slowest_fastest"),
            "cpu_us_each": spread_of("cpu_us_each"),
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
    """Runs the cells of a plan in a folder."""

    def __init__(self, pool: Pool, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        self._pool = pool
        self._plan = plan
        self._folder = folder
        self._say = say
        self._templates: dict[tuple[str, int], Path] = {}
        self._copies = 0

    def _template(self, adapter: str, size: int) -> Path:
        template = self._templates.get((adapter, size))
        if template is None:
            template = self._folder / f"template-{adapter}-{size}"
            began = time.monotonic()
            self._pool.call("prepare", adapter, template, size)
            self._templates[adapter, size] = template
            if time.monotonic() - began > 2:
                self._say(f"prepared {adapter} with {size:,} jobs in {time.monotonic() - began:.1f} s")
        return template

    def _run_once(self, cell: Cell, adapter: str) -> dict[str, Any]:
        template = self._template(adapter, cell.size)
        folder = template
        if not cell.reuses_template:
            self._copies += 1
            folder = self._folder / f"copy-{self._copies}"
            self._pool.call("copy", adapter, template, folder)
        try:
            outcomes = self._pool.run(
                worker.Task(
                    adapter=adapter,
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
            if not cell.reuses_template:
                self._pool.call("remove", adapter, folder)
        return merge_outcomes(outcomes, cell.seconds)

    def _run_cell(self, cell: Cell) -> list[_Series]:
        series = [_Series(cell, adapter) for adapter in cell.adapters]
        for repetition in range(cell.repetitions):
            turn = repetition % len(series)
            for current in series[turn:] + series[:turn]:
                if current.failures:
                    continue
                try:
                    current.repetitions.append(self._run_once(cell, current.adapter))
                except WorkerFailed as failure:
                    current.failures.append(str(failure).strip().splitlines()[-1])
                    print(failure, file=sys.stderr)
        return series

    def run(self) -> list[dict[str, Any]]:
        """Run all cells and return their results; afterwards the folder is empty again."""
        results: list[dict[str, Any]] = []
        try:
            for number, cell in enumerate(self._plan.cells, 1):
                began = time.monotonic()
                series = self._run_cell(cell)
                results.extend(measured.as_dict() for measured in series)
                self._say(
                    f"{number}/{len(self._plan.cells)} {cell.operation}, {cell.workers} processes, "
                    f"{cell.size:,} jobs, {len(cell.adapters)} adapters: {time.monotonic() - began:.1f} s"
                )
        finally:
            for (adapter, _), folder in self._templates.items():
                if folder.exists():
                    self._pool.call("remove", adapter, folder)
        return results


def describe_adapters(names: Iterable[str]) -> dict[str, Any]:
    """Return the adapters' descriptions, as JSON values."""
    return {name: asdict(ADAPTERS[name].info()) | {"absent": ADAPTERS[name].load().unsupported} for name in names}
