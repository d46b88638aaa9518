"""Worker processes: each opens the registry anew and notes in a diary what it was told, one JSON line an answer.

Run as ``python workers.py DIARY URL TASK [ARGUMENT…]``; it waits for a line on stdin, so that all begin together. The
diary is written with one ``write`` a line: what a killed worker has noted stays.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

TIME_LIMIT_SEC = 120.0


class Diary:
    """Appends answers to a file."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, **entry: Any) -> None:
        os.write(self._descriptor, json.dumps(entry).encode() + b"\n")


def publish(registry: Any, diary: Diary, job_id: str, count: str) -> None:
    for _ in range(int(count)):
        event = registry.publish(job_id, "progress", data={"by": os.getpid()})
        diary.note(seq=event.seq)


def publish_batches(registry: Any, diary: Diary, job_ids: str, count: str) -> None:
    """Batches over the same jobs, each in another order."""
    from jobdb import EventKind, NewEvent

    names = job_ids.split(",")
    for _ in range(int(count)):
        random.shuffle(names)
        events = registry.publish_many([NewEvent(job_id=name, event=EventKind.PROGRESS) for name in names])
        for event in events:
            diary.note(job_id=event.job_id, seq=event.seq)


def claim_all(registry: Any, diary: Diary) -> None:
    empty = 0
    while empty < 3:
        claim = registry.claim(worker=str(os.getpid()))
        if claim is None:
            empty += 1
            time.sleep(0.01)
        else:
            diary.note(job_id=claim.job_id, attempt=claim.attempt)


def register_keys(registry: Any, diary: Diary, count: str) -> None:
    for number in range(int(count)):
        job = registry.register(agent="a", prompt="p", idempotency_key=f"key{number}")
        diary.note(key=number, job_id=job.job_id)


def accept_lines(registry: Any, diary: Diary, file: str, window: str) -> None:
    lines = Path(file).read_text("utf-8").splitlines()
    random.shuffle(lines)
    for line in lines:
        result = registry.accept(line, subscriber="s", window=int(window))
        diary.note(verdict=result.verdict.value, seq=result.seq)


def live(registry: Any, diary: Diary, lease_sec: str) -> None:
    """A worker's life, until it is killed: claim, say something, finish; stop when the claim was lost."""
    from jobdb import IllegalTransition, StaleAttempt

    while True:
        claim = registry.claim(worker=str(os.getpid()), lease_sec=float(lease_sec))
        if claim is None:
            time.sleep(0.01)
            continue
        diary.note(did="claim", job_id=claim.job_id, attempt=claim.attempt)
        try:
            for kind in ("started", "progress", "completed"):
                event = registry.publish(claim.job_id, kind, attempt=claim.attempt)
                diary.note(did="publish", job_id=claim.job_id, seq=event.seq, attempt=claim.attempt, line=event.payload)
        except (StaleAttempt, IllegalTransition):
            diary.note(did="lost", job_id=claim.job_id, attempt=claim.attempt)


def publish_marked(registry: Any, diary: Diary, job_ids: str, count: str) -> None:
    """Each call bears a mark of its own; the diary says whether it was answered or is in doubt."""
    from jobdb import Unavailable

    names = job_ids.split(",")
    for number in range(int(count)):
        mark = f"{os.getpid()}-{number}"
        try:
            event = registry.publish(random.choice(names), "progress", data={"mark": mark})
        except Unavailable as error:
            diary.note(mark=mark, doubt=str(error))
        else:
            diary.note(mark=mark, job_id=event.job_id, seq=event.seq)


TASKS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (publish, publish_marked, publish_batches, claim_all, register_keys, accept_lines, live)
}


class Crew:
    """Processes that do one task each.

    Args:
        folder: where the diaries go.
        url: the database.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url
        self._count = 0
        self.processes: list[subprocess.Popen[bytes]] = []

    def add(self, task: str, *arguments: object) -> subprocess.Popen[bytes]:
        """Starts a process; it waits for ``begin``."""
        self._count += 1
        diary = self._folder / f"diary-{self._count}"
        command = [sys.executable, __file__, str(diary), self._url, task, *map(str, arguments)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.processes.append(process)
        return process

    @staticmethod
    def begin(processes: Iterable[subprocess.Popen[bytes]]) -> None:
        """Lets them go when all are ready."""
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
        """Waits until all are done; what they noted."""
        for process in self.processes:
            output, _ = process.communicate(timeout=TIME_LIMIT_SEC)
            assert process.returncode == 0, output.decode()
        return self.notes()

    def run(self, count: int, task: str, *arguments: object) -> list[dict[str, Any]]:
        """So many processes at one task, from a common start to the end."""
        self.begin([self.add(task, *arguments) for _ in range(count)])
        return self.finish()

    def notes(self) -> list[dict[str, Any]]:
        """All whole lines of all diaries."""
        found = []
        for diary in sorted(self._folder.glob("diary-*")):
            found += [json.loads(line) for line in diary.read_bytes().split(b"\n")[:-1]]
        return found

    def kill(self) -> None:
        """Ends those that are left."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(20)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


def main(diary: str, url: str, task: str, *arguments: str) -> None:
    from jobdb import Registry

    with Registry.open(url, busy_timeout_sec=60) as registry:
        print("ready", flush=True)
        sys.stdin.readline()
        TASKS[task](registry, Diary(diary), *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
