"""rq with eight SimpleWorker processes on a Redis that syncs its log before it answers (appendfsync always).

A SimpleWorker runs the job in its own process; rq's usual Worker forks for each. rq has no threads, so the handler runs
in other processes and writes each start to a file, from which this process reports it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import struct
import threading
import time
from importlib.metadata import version
from multiprocessing.synchronize import Barrier
from typing import Any, ClassVar

from redis import Redis
from rq import Queue, SimpleWorker

from ..cpu import cpu_sec_of
from .base import Handle, PeerInfo, Place, WorkerPeer, prompt

_START = struct.Struct("=qq")
_LOOK_SEC = 0.005
_STOP_SEC = 20
_FILE = "BENCHMARK_STARTS"
_opened: dict[str, int] = {}


def handle_job(number: int, text: str) -> None:
    """Be the handler, in a worker process: append the number and the time to the file."""
    path = os.environ[_FILE]
    if path not in _opened:
        _opened[path] = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(_opened[path], _START.pack(number, time.monotonic_ns()))


def _work(url: str, starts: str, together: Barrier) -> None:
    os.environ[_FILE] = starts
    logging.getLogger("rq").setLevel(logging.ERROR)
    redis = Redis(unix_socket_path=url)
    together.wait()  # a worker that still imports is none of the eight
    SimpleWorker([Queue("jobs", connection=redis)], connection=redis).work(logging_level="ERROR")


class RqWorkers(WorkerPeer):
    server: ClassVar[str] = "redis"

    def __init__(self, place: Place, slots: int) -> None:
        super().__init__(place, slots)
        self._starts = str(place.folder / "starts")
        self._workers: list[Any] = []
        self._together: Any = None
        self._stopping = threading.Event()
        self._reporter: threading.Thread | None = None
        self._queue: Queue | None = None

    def info(self) -> PeerInfo:
        return PeerInfo(
            label="rq SimpleWorker on Redis",
            engine="Redis",
            slots="processes",
            durability="full",
            syncs="one for each command that writes; shared with those that coincide",
            ends_recorded=True,
            if_worker_dies="the job is put into the failed registry when its heartbeat has run out",
            settings="SimpleWorker (its usual Worker forks for each job); appendonly yes, appendfsync always set by us",
            version=f"rq {version('rq')}, redis {version('redis')}",
        )

    def _connect(self) -> Queue:
        return Queue("jobs", connection=Redis(unix_socket_path=self.place.url))

    def prepare(self, jobs: int) -> None:
        queue = self._connect()
        queue.connection.flushall()
        datas = [Queue.prepare_data(handle_job, args=(number, prompt(number))) for number in range(jobs)]
        for first in range(0, jobs, 500):
            queue.enqueue_many(datas[first : first + 500])

    def _report(self, handle: Handle) -> None:
        with open(self._starts, "rb") as file:
            while True:
                last = self._stopping.is_set()
                data = file.read()
                for number, at_ns in _START.iter_unpack(data[: len(data) - len(data) % _START.size]):
                    handle(number, at_ns)
                file.seek(-(len(data) % _START.size), os.SEEK_CUR)
                if last:
                    return
                time.sleep(_LOOK_SEC)

    def start(self, handle: Handle) -> None:
        with open(self._starts, "wb"):
            pass
        context = multiprocessing.get_context("spawn")
        self._together = context.Barrier(self.slots)
        for _ in range(self.slots):
            worker = context.Process(target=_work, args=(self.place.url, self._starts, self._together))
            worker.start()
            self._workers.append(worker)
        self._reporter = threading.Thread(target=self._report, args=(handle,), daemon=True)
        self._reporter.start()

    def check(self) -> None:
        if not all(worker.is_alive() for worker in self._workers):
            raise AssertionError("an rq worker has died")

    def stop(self) -> None:
        for worker in self._workers:
            worker.terminate()  # a warm shutdown: rq ends what it runs
        for worker in self._workers:
            worker.join(_STOP_SEC)
            if worker.is_alive():
                worker.kill()
                raise AssertionError("an rq worker did not stop")
        self._stopping.set()
        assert self._reporter is not None
        self._reporter.join()

    def ended(self) -> int:
        return int(self._connect().finished_job_registry.get_job_count(cleanup=False))

    def open_producer(self) -> None:
        self._queue = self._connect()

    def add(self, number: int) -> None:
        assert self._queue is not None
        self._queue.enqueue(handle_job, number, prompt(number))

    def cpu_sec(self) -> float:
        return cpu_sec_of(worker.pid for worker in self._workers)
