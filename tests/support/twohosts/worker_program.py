"""Programs that the tests between two hosts run on one of them, each in a separate process.

    worker_program.py work DATABASE NAME JOBS        registers, claims, publishes and completes jobs
    worker_program.py accept DATABASE PAYLOADS       accepts every payload of a file for one common subscriber
    worker_program.py die DATABASE                   writes a big batch and dies by SIGKILL just before its commit
    worker_program.py watch DATABASE                 a reader that stays open and answers a line with a line
    worker_program.py plain-wal DATABASE NAME ROWS   no jobdb: SQLite in WAL, as one would without thinking

What is printed was acknowledged: it must be there afterwards, whatever happens in between.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

SUBSCRIBER = "observer"


def emit(**entry: Any) -> None:
    print(json.dumps(entry), flush=True)


def work(database: str, name: str, jobs: str) -> None:
    from jobdb import Registry

    with Registry.open(database) as registry:
        for number in range(int(jobs)):
            job = registry.register(agent="tester", prompt=f"{name} {number}")
            emit(registered=job.job_id)
            claim = registry.claim(agent="tester", worker=name, lease_sec=600)
            assert claim is not None, "one was registered for each claim"
            emit(claimed=claim.job_id, attempt=claim.attempt)
            for step in range(2):
                event = registry.publish(claim.job_id, "progress", detail=f"{name} {step}", attempt=claim.attempt)
                emit(published=event.job_id, seq=event.seq, payload=event.payload)
            event = registry.complete(claim.job_id, attempt=claim.attempt)
            emit(published=event.job_id, seq=event.seq, payload=event.payload)


def accept(database: str, payloads: str) -> None:
    from jobdb import Registry

    with Registry.open(database) as registry:
        for payload in Path(payloads).read_text().splitlines():
            result = registry.accept(payload, subscriber=SUBSCRIBER)
            wire = json.loads(payload)
            emit(verdict=result.verdict.value, job_id=wire["job_id"], seq=wire["seq"])


def crash_mid_transaction(database: str) -> None:
    from jobdb import NewJob, Registry

    registry = Registry.open(database)
    connection = registry.engine.store._writer  # type: ignore[attr-defined]
    connection.pragma("cache_size", 8)  # so the pages go into the file long before the commit

    def at_statement(_cursor: object, statement: str, _bindings: object) -> bool:
        if statement.strip().upper().startswith("COMMIT"):
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    connection.exec_trace = at_statement
    registry.register_many(NewJob(agent="doomed", prompt="x" * 1000) for _ in range(200))


def watch(database: str) -> None:
    from jobdb import Registry

    with Registry.open(database) as registry:
        emit(jobs=len(list(registry.all_jobs())))
        for _ in sys.stdin:
            registry.register(agent="after", prompt="written by the other host")
            emit(jobs=sorted(job.prompt[:40] for job in registry.all_jobs()))


def plain_wal(database: str, name: str, rows: str) -> None:
    connection = sqlite3.connect(database, timeout=5, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, who TEXT, filler TEXT)")
    for number in range(int(rows)):
        try:
            connection.execute("INSERT INTO t (who, filler) VALUES (?, ?)", (f"{name} {number}", "x" * 500))
        except sqlite3.Error as error:
            emit(error=str(error))
            time.sleep(0.005)
        else:
            emit(row=f"{name} {number}")


if __name__ == "__main__":
    verbs = {"work": work, "accept": accept, "die": crash_mid_transaction, "watch": watch, "plain-wal": plain_wal}
    verbs[sys.argv[1]](*sys.argv[2:])
