"""The old registry: one JSON file per job, one exclusive flock for all, temporary file, fsync, rename.

Called by harness.py. Where the old scripts leave a choice, the faster one is used: a claim takes the first pending
record of the listing (without a search for the oldest), the events log is appended without fsync, and there is no audit
log.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from .. import sample_data
from .base import LIFE_EVENTS, NO_BATCH, Adapter, AdapterInfo

_NO_ACCEPT = "the old registry stores no last_seq of a subscriber, so it cannot check for a replay"


class Flock(Adapter):
    unsupported: ClassVar[dict[str, str]] = {
        "accept": _NO_ACCEPT,
        "register_100": NO_BATCH,
        "publish_100": NO_BATCH,
        "accept_100": _NO_ACCEPT,
    }

    def __init__(self, folder: Path, durability: str) -> None:
        super().__init__(folder, durability)
        self._jobs = folder / ".mam" / "jobs"
        self._lock = self._jobs / ".lock"
        self._fsync = durability == "full"
        self._source = random.Random()
        self._number = 0
        self._running: list[str] = []
        self._claimed: deque[str] = deque()

    @classmethod
    def info(cls, durability: str) -> AdapterInfo:
        fsync = durability == "full"
        return AdapterInfo(
            label="flock registry" + (", fsync" if fsync else ", no fsync"),
            durability="full" if fsync else "none",
            as_shipped=fsync,
            settings="record: temporary file, "
            + ("fsync, " if fsync else "")
            + "rename; the folder is not synced and the events log is not either, as in the old registry",
            version="as the old scripts did it",
            notes={
                "claim": "stops at the first pending record in the order of the names",
                "life": f"register, claim, {LIFE_EVENTS} events, complete",
                "list_page": f"lists the folder, reads the first {sample_data.PAGE} records by name",
            },
        )

    def prepare(self, size: int) -> None:
        self._jobs.mkdir(parents=True)
        self._lock.touch()
        running = []
        for record in sample_data.records(size):
            if record["status"] == "running":
                running.append(record["job_id"])
            self._create(record)

        (self.folder / "running.json").write_text(json.dumps(running), "utf-8")

    def open(self, worker: int, workers: int) -> None:
        self.worker, self.workers = worker, workers
        running = json.loads((self.folder / "running.json").read_text("utf-8"))
        self._running = running[worker::workers] or running

    def close(self) -> None:
        self._claimed.clear()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self._lock, "a", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self, job_id: str) -> dict[str, Any]:
        with open(self._jobs / f"{job_id}.json", encoding="utf-8") as file:
            record: dict[str, Any] = json.load(file)
            return record

    def _write(self, record: dict[str, Any]) -> None:
        path = self._jobs / f"{record['job_id']}.json"
        temporary = self._jobs / f".{record['job_id']}.json.{os.getpid()}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=2)
            file.flush()
            if self._fsync:
                os.fsync(file.fileno())
        os.replace(temporary, path)

    def _create(self, record: dict[str, Any]) -> None:
        (self._jobs / f"{record['job_id']}.json").write_text(json.dumps(record, indent=2), "utf-8")

    def register(self) -> int:
        self._number += 1
        record = sample_data.record(self._source, self._number)
        with self._locked():
            self._write(record)
        return 1

    def claim(self) -> int:
        with self._locked():
            for name in sorted(os.listdir(self._jobs)):
                if not name.endswith(".json") or name.startswith("."):
                    continue
                record = self._read(name[:-5])
                if record["status"] == "pending":
                    record["status"] = "running"
                    record["updated_at"] = sample_data.now_text()
                    self._write(record)
                    self._claimed.append(record["job_id"])
                    return 1
        return 0

    def _append(self, job_id: str, kind: str, status: str | None = None) -> None:
        with self._locked():
            record = self._read(job_id)
            record["last_seq"] += 1
            record["status"] = status or record["status"]
            record["updated_at"] = sample_data.now_text()
            self._write(record)
            line = sample_data.sign(sample_data.wire_event(job_id, record["last_seq"], kind), record["auth_token"])
            with open(self._jobs / f"{job_id}.events.log", "a", encoding="utf-8") as log:
                log.write(line + "\n")

    def publish(self) -> int:
        self._append(self._source.choice(self._running), "progress")
        return 1

    def complete(self) -> int:
        if not self._claimed:
            return 0
        self._append(self._claimed.popleft(), "completed", status="completed")
        return 1

    def list_page(self) -> int:
        names = sorted(n for n in os.listdir(self._jobs) if n.endswith(".json") and not n.startswith("."))
        return int(bool([self._read(name[:-5]) for name in names[: sample_data.PAGE]]))

    def life(self) -> int:
        self.register()
        if not self.claim():
            return 0
        job_id = self._claimed[-1]
        for _ in range(LIFE_EVENTS):
            self._append(job_id, "progress")
        return self.complete()

    def prefill(self, operation: str, count: int) -> None:
        if operation != "complete":
            return
        for number in range(count):
            record = sample_data.record(self._source, number, "running")
            self._create(record)
            self._claimed.append(record["job_id"])

    def reset_claims(self) -> None:
        while self._claimed:
            record = self._read(self._claimed.popleft())
            record["status"] = "pending"
            self._create(record)
