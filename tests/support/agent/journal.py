"""The journal of the hostile agents: who acted, from when to when; written by them and read by tests.

Each line is one write() to a file opened with O_APPEND, so that lines of many processes neither mix nor get lost, and
their order is the order in which things happened.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

FILE = "journal"


class Entry(NamedTuple):
    """A line of the journal.

    Attributes:
        kind: "start" and "end" of acting; "overlap": another attempt of the job was acting; "alive": processes of
            another attempt of the job were alive when this one started.
        note: for "overlap" who held the lock, for "alive" the pids.
    """

    kind: str
    job_id: str
    attempt: int
    note: str = ""


def open_journal(folder: str) -> int:
    """Open the journal for writing; return its file descriptor."""
    return os.open(os.path.join(folder, FILE), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def write_entry(journal: int, entry: Entry) -> None:
    os.write(journal, f"{entry.kind} {entry.job_id} {entry.attempt} {entry.note}\n".encode())


def read_journal(folder: Path) -> list[Entry]:
    """Return all lines, in the order in which they were written."""
    path = folder / FILE
    if not path.exists():
        return []
    found = []
    for line in path.read_text("utf-8").splitlines():
        kind, job_id, attempt, note = line.split(" ", 3)
        found.append(Entry(kind, job_id, int(attempt), note))
    return found


def check_journal(entries: list[Entry]) -> list[str]:
    """Return a sentence for everything that must not be: attempts that overlapped, acted twice, or came too late."""
    wrong = [f"{entry.kind}: {entry}" for entry in entries if entry.kind not in ("start", "end")]
    latest: dict[str, int] = {}
    started: dict[tuple[str, int], int] = defaultdict(int)
    ended: dict[tuple[str, int], int] = defaultdict(int)
    for entry in entries:
        if entry.kind not in ("start", "end"):
            continue
        key = (entry.job_id, entry.attempt)
        if entry.attempt < latest.get(entry.job_id, 0):
            wrong.append(f"{entry} although attempt {latest[entry.job_id]} had started")
        latest[entry.job_id] = max(latest.get(entry.job_id, 0), entry.attempt)
        if entry.kind == "start":
            started[key] += 1
        else:
            ended[key] += 1
            if not started[key]:
                wrong.append(f"{entry} without a start")
    wrong += [f"{key} started {count} times" for key, count in started.items() if count > 1]
    wrong += [f"{key} ended {count} times" for key, count in ended.items() if count > 1]
    return wrong
