"""Measure how soon ``wait`` and ``subscribe`` see what another process has written, and the CPU cost of idling.

Called by __main__.py. The latency is the time from the writer's return (the event is durable) to the reader's; both
read the same monotonic clock. The pause before each write is random.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import resource
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .latencies import spread

if TYPE_CHECKING:
    from jobdb import Registry

_LIMIT_SEC = 5.0
_ANSWER_SEC = 20.0


def _open(folder: Path, create: bool = False) -> Registry:
    from jobdb import Registry

    from .adapters.jobdb import benchmark_vault

    return Registry.open(f"sqlite:///{folder / 'wakeup.db'}", create=create, vault=benchmark_vault(folder))


def _waiter(folder: Path, pipe: Connection) -> None:
    with _open(folder) as registry:
        while (job_id := pipe.recv()) is not None:
            pipe.send("waiting")
            registry.wait(job_id, timeout_sec=_LIMIT_SEC)
            pipe.send(time.monotonic_ns())


def _subscriber(folder: Path, pipe: Connection) -> None:
    with _open(folder) as registry:
        pipe.send("waiting")
        for _ in registry.subscribe(subscriber="benchmark", job_id=pipe.recv()):
            pipe.send(time.monotonic_ns())


def _idler(folder: Path, pipe: Connection) -> None:
    from jobdb import TimedOut

    with _open(folder) as registry:
        job_id, seconds = pipe.recv()
        before = resource.getrusage(resource.RUSAGE_SELF)
        with contextlib.suppress(TimedOut):
            registry.wait(job_id, timeout_sec=seconds)
        after = resource.getrusage(resource.RUSAGE_SELF)
        pipe.send(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _latencies(folder: Path, target: Any, times: int, context: Any) -> list[float]:
    """Return the milliseconds from the writer's return to the reader's; the first, a warm-up, is left out."""
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(folder, theirs), daemon=True)
    process.start()
    source, taken = random.Random(1), []
    subscribing = target is _subscriber
    try:
        with _open(folder) as registry:
            job = registry.register(agent="benchmark", prompt="wake up")
            claim = registry.claim(agent="benchmark", worker="benchmark")
            assert claim is not None
            if subscribing:
                ours.send(job.job_id)
                _receive(ours)
            for _ in range(times + 1):
                if not subscribing:
                    job = registry.register(agent="benchmark", prompt="wake up")
                    claim = registry.claim(agent="benchmark", worker="benchmark")
                    assert claim is not None
                    ours.send(claim.job_id)
                    _receive(ours)
                time.sleep(source.uniform(0.02, 0.08))
                if subscribing:
                    registry.publish(claim.job_id, "progress", detail="step", attempt=claim.attempt)
                else:
                    registry.complete(claim.job_id, attempt=claim.attempt)
                answered = time.monotonic_ns()
                taken.append((_receive(ours) - answered) / 1e6)
                if taken[-1] > _LIMIT_SEC * 900:
                    raise TimeoutError("the reader did not notice the event, its wait only timed out")
            if subscribing:
                registry.complete(claim.job_id, attempt=claim.attempt)
                _receive(ours)
            else:
                ours.send(None)
    finally:
        process.join(5)
        if process.is_alive():
            process.terminate()
    return taken[1:]


def _receive(pipe: Connection) -> Any:
    if not pipe.poll(_ANSWER_SEC):
        raise TimeoutError("the reading process did not answer")
    return pipe.recv()


def _idle_cpu_share(folder: Path, seconds: float, context: Any) -> float:
    """Return the share of one processor that a waiting process uses while nothing happens."""
    with _open(folder) as registry:
        job = registry.register(agent="nobody", prompt="never ends")
    ours, theirs = context.Pipe()
    process = context.Process(target=_idler, args=(folder, theirs), daemon=True)
    process.start()
    ours.send((job.job_id, seconds))
    try:
        return float(_receive(ours)) / seconds
    finally:
        process.join(5)
        if process.is_alive():
            process.terminate()


def measure(folder: Path, times: int, idle_sec: float) -> dict[str, Any]:
    """Return latencies in milliseconds as spreads with p99, and the idle share of one processor."""
    folder.mkdir(parents=True, mode=0o700)
    _open(folder, create=True).close()
    context = multiprocessing.get_context("spawn")
    results: dict[str, Any] = {}
    for name, target in (("wait", _waiter), ("subscribe", _subscriber)):
        taken = sorted(_latencies(folder, target, times, context))
        results[f"{name}_ms"] = spread(taken) | {"p99": taken[max(int(len(taken) * 0.99) - 1, 0)]}
    results["idle_share_of_a_processor"] = _idle_cpu_share(folder, idle_sec, context)
    return results
