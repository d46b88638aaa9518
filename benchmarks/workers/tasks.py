"""The tasks of a peer's process: fill its queue, work it off, idle, or take jobs as they come.

Called by series.py through processes.py. A run in which a job is not handled exactly once, or in which not all ends are
recorded, is an error, not a measurement.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .cpu import cpu_sec_of, with_children
from .peers import PEERS
from .peers.base import Peer, Place, WorkerPeer
from .recorder import Mark, Recorder

_PATIENCE_SEC = 30.0
_WARMUP_SHARE = 10
_PAUSES_SEC = (0.02, 0.08)


def describe(name: str, slots: int) -> dict[str, Any]:
    """Return a peer's description."""
    peer = PEERS[name].create(Place(Path()), slots)
    info = peer.info()
    return asdict(info) | {"equal": info.equal}


def prepare(name: str, place: Place, jobs: int) -> None:
    """Create the peer's queue with waiting jobs."""
    PEERS[name].create(place, 1).prepare(jobs)


def _read_clocks(peer: Peer, server_pid: int | None, at_ns: int) -> Mark:
    server = cpu_sec_of(with_children(server_pid)) if server_pid else 0.0
    return Mark(at_ns, peer.cpu_sec(), server)


def check_starts(numbers: list[int], jobs: int) -> None:
    """Check that the jobs 0 to ``jobs`` - 1 were started once each."""
    counts = Counter(numbers)
    twice = [number for number, count in counts.items() if count > 1]
    missing = set(range(jobs)) - set(counts)
    if twice or missing or len(numbers) != jobs:
        raise AssertionError(
            f"{jobs} jobs: {len(numbers)} starts, {len(missing)} never started, {len(twice)} started more than once"
        )


def _wait_for_all(peer: Peer, recorder: Recorder, patience_sec: float) -> None:
    """Wait until all jobs were started, as long as the worker lives and goes on starting jobs."""
    seen = -1
    deadline = 0.0
    while not recorder.finished.wait(0.5):
        peer.check()
        if len(recorder.starts) > seen:
            seen, deadline = len(recorder.starts), time.monotonic() + patience_sec
        elif time.monotonic() > deadline:
            raise AssertionError(f"after {seen} starts no job was started for {patience_sec:g} s")


def work_off(
    name: str, place: Place, jobs: int, slots: int, server_pid: int | None, patience_sec: float = _PATIENCE_SEC
) -> dict[str, float]:
    """Work off the waiting jobs; return the rate and the CPU time per job between the marks."""
    peer = PEERS[name].create(place, slots)
    recorder = Recorder(jobs, jobs // _WARMUP_SHARE, lambda at_ns: _read_clocks(peer, server_pid, at_ns))
    peer.start(recorder.started)
    _wait_for_all(peer, recorder, patience_sec)
    peer.stop()
    check_starts([number for number, _ in recorder.starts], jobs)
    ended = peer.ended()
    if ended not in (None, jobs):
        raise AssertionError(f"{jobs} jobs were handled, {ended} ends are recorded")
    first, last = recorder.marks
    measured = jobs - 1 - jobs // _WARMUP_SHARE
    return {
        "per_sec": measured / (last.at_ns - first.at_ns) * 1e9,
        "cpu_us_each": (last.worker_cpu_sec - first.worker_cpu_sec) / measured * 1e6,
        "server_cpu_us_each": (last.server_cpu_sec - first.server_cpu_sec) / measured * 1e6,
        "jobs": jobs,
    }


def idle(
    name: str, place: Place, slots: int, settle_sec: float, seconds: float, server_pid: int | None
) -> dict[str, float]:
    """Run the worker on an empty queue; return the shares of a processor that it and the server use."""
    peer = PEERS[name].create(place, slots)
    peer.start(_refuse)
    time.sleep(settle_sec)
    before = _read_clocks(peer, server_pid, time.monotonic_ns())
    time.sleep(seconds)
    after = _read_clocks(peer, server_pid, time.monotonic_ns())
    peer.stop()
    elapsed = (after.at_ns - before.at_ns) / 1e9
    return {
        "seconds": elapsed,
        "worker_share": (after.worker_cpu_sec - before.worker_cpu_sec) / elapsed,
        "server_share": (after.server_cpu_sec - before.server_cpu_sec) / elapsed,
    }


def _refuse(number: int, at_ns: int | None = None) -> None:
    raise AssertionError(f"job {number} was started on an empty queue")


def take(name: str, place: Place, slots: int, settle_sec: float, jobs: int, pipe: Connection) -> dict[int, int]:
    """Run the worker until ``jobs`` jobs were started; return the monotonic ns of each start by job number."""
    peer = PEERS[name].create(place, slots)
    recorder = Recorder(jobs, 0, lambda at_ns: Mark(at_ns, 0.0, 0.0))
    peer.start(recorder.started)
    time.sleep(settle_sec)
    pipe.send("ready")
    _wait_for_all(peer, recorder, _PATIENCE_SEC)
    peer.stop()
    check_starts([number for number, _ in recorder.starts], jobs)
    return dict(recorder.starts)


def produce(name: str, place: Place, jobs: int) -> dict[int, int]:
    """Register jobs one by one with random pauses; return the monotonic ns of each return by job number."""
    source, added = random.Random(1), {}
    peer = PEERS[name].create(place, 1)
    assert isinstance(peer, WorkerPeer), f"the waiting of {name} is not measured"
    peer.open_producer()
    for number in range(jobs):
        time.sleep(source.uniform(*_PAUSES_SEC))
        peer.add(number)
        added[number] = time.monotonic_ns()
    peer.close_producer()
    return added
