"""This process as the registry knows workers, and which other workers of this host are dead.

Called by the worker when it starts and when it reaps. Reads /proc where there is one.

A worker is dead if it ran under the same kernel (boot) and in the same process namespace, and its process id is free or
belongs to a process that was started at another time. Where that cannot be known, the lease decides.
"""

from __future__ import annotations

import hmac
import os
import secrets
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..model import WorkerInfo
from ..system.identifiers import boot_id, machine_id

if TYPE_CHECKING:
    from ..model import WorkerRecord
    from .settings import WorkerSettings


def default_worker_name() -> str:
    """Return the name of a worker in this process: host and process id."""
    return f"{os.uname().nodename}:{os.getpid()}"[:256]


def describe_worker(settings: WorkerSettings, *, name: str, log_dir: str | None) -> WorkerInfo:
    """Return this process as a new worker.

    Args:
        settings: the worker's settings.
        name: its name.
        log_dir: the folder of its logs; None if it writes none.
    """
    return WorkerInfo(
        worker_id=secrets.token_hex(16),
        name=name,
        agent=settings.agent,
        host=os.uname().nodename[:256] or "localhost",
        machine=_machine_digest(),
        boot_id=boot_id()[:64],
        pid_namespace=_pid_namespace(),
        pid=os.getpid(),
        pid_started=process_start(os.getpid()) or 0,
        slots=settings.concurrency,
        log_dir=log_dir,
        lease_sec=settings.lease_sec,
    )


def dead_workers(records: Iterable[WorkerRecord], here: WorkerInfo) -> list[str]:
    """Return the ids of the workers of this boot whose process is gone.

    Args:
        records: the workers that the registry knows.
        here: this worker.
    """
    if not (here.boot_id and here.pid_namespace):
        return []
    return [
        record.info.worker_id
        for record in records
        if record.info.worker_id != here.worker_id
        and (record.info.boot_id, record.info.pid_namespace) == (here.boot_id, here.pid_namespace)
        and record.info.pid_started
        and is_gone(record.info.pid, record.info.pid_started)
    ]


def is_gone(pid: int, started: int) -> bool:
    """Return whether a process has ended for certain; a zombie has.

    Args:
        pid: its id, which may belong to another process by now.
        started: when it was started, in clock ticks since the boot.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # another user's: /proc may hide it
    found = process_start(pid)
    return found is not None and found != started


def process_start(pid: int) -> int | None:
    """Return when a process was started, in clock ticks since the boot; 0 for a zombie; None if that is unknown."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name, in parentheses, may contain anything; the state follows it, and the start is field 22.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def _pid_namespace() -> str:
    if not sys.platform.startswith("linux"):
        return ""
    try:
        return os.readlink("/proc/self/ns/pid")[:64]
    except OSError:
        return ""


def _machine_digest() -> str:
    """Return a digest of the machine's id, which is itself confidential; empty if there is none."""
    machine = machine_id()
    return hmac.digest(machine.encode("ascii"), b"jobdb worker", "sha256").hex()[:32] if machine else ""
