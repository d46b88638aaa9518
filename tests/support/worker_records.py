"""Workers as tests record them: their descriptions, without the processes."""

from __future__ import annotations

from typing import Any

from jobdb import WorkerInfo


def worker_info(worker_id: str, **fields: Any) -> WorkerInfo:
    """Describe a worker of host1's current boot, with other values where ``fields`` has some."""
    described: dict[str, Any] = {
        "worker_id": worker_id,
        "name": "host1:4711",
        "agent": None,
        "host": "host1",
        "machine": "machine1",
        "boot_id": "boot2",
        "pid_namespace": "pid:[1]",
        "pid": 4711,
        "pid_started": 100,
        "slots": 8,
        "log_dir": None,
        "lease_sec": 60.0,
    }
    return WorkerInfo(**{**described, **fields})
