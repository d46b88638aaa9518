"""Worker processes: each opens the registry and logs every answer, one JSON line per answer.

Run as ``python -m tests.support.verb_workers LOG URL TASK [ARGUMENT…]``. It prints ``ready`` and waits for
a line on stdin, so that all begin together. Each line of the log is one ``write``: what a killed worker logged stays.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.support.ack_log import AckLog, read_ack_log
from tests.support.processes import module_environment, python_module

TIME_LIMIT_SEC = 120.0


def publish(registry: Any, ack_log: AckLog, job_id: str, count: str) -> None:
    for _ in range(int(count)):
        event = registry.publish(job_id, "progress", data={"by": os.getpid()})
        ack_log.write(seq=event.seq)


def publish_batches(registry: Any, ack_log: AckLog, job_ids: str, count: str) -> None:
    """Publish batches over the same jobs, each batch in another order."""
    from jobdb import EventKind, NewEvent

    names = job_ids.split(",")
    for _ in range(int(count)):
        random.shuffle(names)
        events = registry.publish_many([NewEvent(job_id=name, event=EventKind.PROGRESS) for name in names])
        for event in events:
            ack_log.write(job_id=event.job_id, seq=event.seq)


def claim_all(registry: Any, ack_log: AckLog) -> None:
    empty = 0
    while empty < 3:
        claim = registry.claim(worker=str(os.getpid()))
        if claim is None:
            empty += 1
            time.sleep(0.01)
        else:
            ack_log.write(job_id=claim.job_id, attempt=claim.attempt)


def register_keys(registry: Any, ack_log: AckLog, count: str) -> None:
    for number in range(int(count)):
        job = registry.register(agent="a", prompt="p", idempotency_key=f"key{number}")
        ack_log.write(key=number, job_id=job.job_id)


def answer_all(registry: Any, ack_log: AckLog, job_id: str, count: str) -> None:
    """Answer the same questions as the other processes, in the same order."""
    from jobdb import AlreadyAnswered

    for number in range(int(count)):
        won, by = True, str(os.getpid())
        try:
            registry.answer(job_id, random.choice(("allow", "deny")), by=by, key=f"k{number}")
        except AlreadyAnswered:
            won = False
        ack_log.write(key=f"k{number}", by=by, won=won)


def accept_lines(registry: Any, ack_log: AckLog, file: str, window: str) -> None:
    lines = Path(file).read_text("utf-8").splitlines()
    random.shuffle(lines)
    for line in lines:
        result = registry.accept(line, subscriber="s", window=int(window))
        ack_log.write(verdict=result.verdict.value, seq=result.seq)


def run_worker(registry: Any, ack_log: AckLog, lease_sec: str) -> None:
    """Claim, publish and complete jobs until killed; give a job up when its claim was lost."""
    from jobdb import IllegalTransition, StaleAttempt

    while True:
        claim = registry.claim(worker=str(os.getpid()), lease_sec=float(lease_sec))
        if claim is None:
            time.sleep(0.01)
            continue
        ack_log.write(did="claim", job_id=claim.job_id, attempt=claim.attempt)
        try:
            for kind in ("started", "progress", "completed"):
                event = registry.publish(claim.job_id, kind, attempt=claim.attempt)
                ack_log.write(
                    did="publish", job_id=claim.job_id, seq=event.seq, attempt=claim.attempt, line=event.payload
                )
        except (StaleAttempt, IllegalTransition):
            ack_log.write(did="lost", job_id=claim.job_id, attempt=claim.attempt)


def claim_expiring(registry: Any, ack_log: AckLog, worker: str, until_done: str) -> None:
    """Claim jobs under leases that expire at once, by every way that there is, and log each claim, until all ended."""
    from jobdb import IllegalTransition, WorkBatch
    from tests.support.worker_records import worker_info

    names = until_done.split(",")
    registry.add_worker(worker_info(worker))
    batch = WorkBatch(worker_id=worker, worker=worker, claim=3, lease_sec=0.001)
    while not all(registry.get(name).terminal for name in names):
        claims = [registry.claim(worker=worker, lease_sec=0.001), *registry.work_batch(batch).claims]
        with contextlib.suppress(IllegalTransition):
            claims.append(registry.claim(worker=worker, lease_sec=0.001, job_id=random.choice(names)))
        if random.random() < 0.2:
            registry.reap()
        for claim in filter(None, claims):
            ack_log.write(job_id=claim.job_id, attempt=claim.attempt)


def publish_with_ids(registry: Any, ack_log: AckLog, job_ids: str, count: str) -> None:
    """Publish events, each with a unique mark; log each as answered or in doubt."""
    from jobdb import Unavailable

    names = job_ids.split(",")
    for number in range(int(count)):
        mark = f"{os.getpid()}-{number}"
        try:
            event = registry.publish(random.choice(names), "progress", data={"mark": mark})
        except Unavailable as error:
            ack_log.write(mark=mark, doubt=str(error))
        else:
            ack_log.write(mark=mark, job_id=event.job_id, seq=event.seq)


TASKS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        publish,
        publish_with_ids,
        publish_batches,
        claim_all,
        claim_expiring,
        register_keys,
        accept_lines,
        answer_all,
        run_worker,
    )
}


class VerbWorkers:
    """Processes that do one task each.

    Args:
        folder: where the logs go.
        url: the database.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url
        self._count = 0
        self.processes: list[subprocess.Popen[bytes]] = []

    def add(self, task: str, *arguments: object) -> subprocess.Popen[bytes]:
        """Start a process, which waits for `begin`."""
        self._count += 1
        ack_log = self._folder / f"answers-{self._count}"
        process = subprocess.Popen(
            python_module("tests.support.verb_workers", ack_log, self._url, task, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=module_environment(),
        )
        self.processes.append(process)
        return process

    @staticmethod
    def begin(processes: Iterable[subprocess.Popen[bytes]]) -> None:
        """Let the processes go when all are ready."""
        waiting = list(processes)
        for process in waiting:
            assert process.stdout is not None
            ready = process.stdout.readline()
            assert ready == b"ready\n", ready + process.stdout.read()
        for process in waiting:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()

    def finish(self) -> list[dict[str, Any]]:
        """Wait until all are done; return what they logged."""
        for process in self.processes:
            output, _ = process.communicate(timeout=TIME_LIMIT_SEC)
            assert process.returncode == 0, output.decode()
        return self.entries()

    def run(self, count: int, task: str, *arguments: object) -> list[dict[str, Any]]:
        """Run ``count`` processes on one task, from a common start to the end; return what they logged."""
        self.begin([self.add(task, *arguments) for _ in range(count)])
        return self.finish()

    def entries(self) -> list[dict[str, Any]]:
        """Return all whole lines of all logs."""
        found = []
        for ack_log in sorted(self._folder.glob("answers-*")):
            found += read_ack_log(ack_log)
        return found

    def kill(self) -> None:
        """Kill the processes that are left."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(20)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


def main(ack_log: str, url: str, task: str, *arguments: str) -> None:
    from jobdb import Registry

    with Registry.open(url, busy_timeout_sec=60) as registry:
        print("ready", flush=True)
        sys.stdin.readline()
        TASKS[task](registry, AckLog(Path(ack_log)), *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
