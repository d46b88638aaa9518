"""The drop-in for the old registry module, on the database: scripts only change one import.

    from jobdb.legacy import registry            # was: import job_registry as registry
    job = registry.register_job(".mam/jobs", agent="codex", prompt="sort ten problems")

Imported by old scripts, and run by shell scripts as ``python -m jobdb.legacy.registry``, which shows no token unless
requested; calls an open registry, and writes no file of the old form. Records are dicts of the old form, token
included, because the old scripts sign with it. New code uses `jobdb.Registry` instead.
"""

from __future__ import annotations

if __name__ == "__main__":
    from ..system.isolated_python import remove_cwd_from_sys_path

    # -m has put the current folder first on the path, and agents write to it: before this line nothing may be imported
    # that Python itself has not loaded.
    remove_cwd_from_sys_path()

import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.lifecycle import TRANSITIONS
from ..errors import IllegalTransition, InvalidInput, UnknownJob
from ..filesystem.permissions import make_private_folder
from ..model import Broker, JobStatus
from .database.job_queries import all_jobs, find_job
from .database.job_row import JobRow, record_from_row
from .database.statements import LEGACY
from .folder.lock import DEFAULT_LOCK_TIMEOUT_SEC
from .folder.lock import registry_lock as _registry_lock
from .format.jobdb_state import STATE_FIELD
from .registry_connections import Folder, database_url, open_registry

if TYPE_CHECKING:
    from ..engines.store import Transaction

__all__ = [
    "NoSuchJob",
    "database_url",
    "list_jobs",
    "load_job",
    "next_seq",
    "open_registry",
    "pick_pending",
    "register_job",
    "registry_lock",
    "update_status",
]

Json = Any
Record = dict[str, Json]

_MANAGED_FIELDS = frozenset(
    {
        "schema_version",
        "status",
        "created_at",
        "updated_at",
        "last_seq",
        STATE_FIELD,  # added by an export; the new job has its own state
    }
)
_ACCEPTED_FIELDS = (
    "agent",
    "prompt",
    "job_id",
    "agent_session",
    "broker",
    "topic_prefix",
    "timeout_sec",
    "idle_timeout_sec",
    "expected_artifacts",
    "auth_token",
)


class NoSuchJob(FileNotFoundError, UnknownJob):
    """Raised when the database has no job with that id; both the old module's error and jobdb's."""

    def __init__(self, job_id: str) -> None:
        UnknownJob.__init__(self, job_id)

    __reduce__ = UnknownJob.__reduce__  # OSError's would call the class with its message


def registry_lock(registry_dir: Folder, timeout: float = DEFAULT_LOCK_TIMEOUT_SEC) -> AbstractContextManager[object]:
    """Acquire the old lock of the folder, to be held in a ``with`` block.

    No function here needs it; it excludes scripts that still write files.

    Args:
        registry_dir: the folder of records; created if it is missing.
        timeout: how long to wait, in seconds.

    Raises:
        Busy: the wait reached its limit; the message names the holder of the lock, if known.
    """
    make_private_folder(registry_dir)
    return _registry_lock(Path(registry_dir), timeout_sec=timeout, create=True)


def register_job(registry_dir: Folder, record: Mapping[str, Json] | None = None, **fields: Json) -> Record:
    """Record a new pending job, which always gets a token.

    Args:
        registry_dir: the folder of records.
        record: fields of the old record; those that the registry sets itself (status, times, last_seq) are ignored.
        fields: further fields of the record, which take precedence. Unknown ones are kept.

    Returns:
        The record.

    Raises:
        InvalidInput: a field is missing or invalid.
        AlreadyExists: there is a job with that id.
    """
    if record is not None and not isinstance(record, Mapping):
        raise InvalidInput(f"record must be a dict of a job's fields, not {type(record).__name__}")
    given = {**(record or {}), **fields}
    for name in ("agent", "prompt"):
        if given.get(name) is None:
            raise InvalidInput(f"a job needs {name}", advice=f"pass it as {name}=…")
    job_id = given.get("job_id") or secrets.token_hex(4)
    broker, password = _broker(given.get("broker"))
    arguments = {name: given[name] for name in _ACCEPTED_FIELDS if given.get(name) is not None}
    arguments |= {"job_id": job_id, "broker": broker, "broker_password": password}
    arguments.setdefault("topic_prefix", f"python/mqtt/jobs/{job_id}")
    extra = {
        name: value for name, value in given.items() if name not in _ACCEPTED_FIELDS and name not in _MANAGED_FIELDS
    }
    open_registry(registry_dir).register(**arguments, extra=extra)
    return load_job(registry_dir, job_id)


def load_job(registry_dir: Folder, job_id: str) -> Record:
    """Return one job's record.

    Raises:
        NoSuchJob: there is none; also a FileNotFoundError, as the old module raised it.
    """
    registry = open_registry(registry_dir)
    with registry.store.read() as tx:
        row = _find_job(tx, job_id)
    return record_from_row(row, registry.engine.vault).as_document()


def list_jobs(registry_dir: Folder, status: str | None = None, agent: str | None = None) -> list[Record]:
    """Return the records of all jobs, or of those with a status or an agent, oldest first."""
    registry = open_registry(registry_dir)
    with registry.store.read() as tx:
        return [
            record_from_row(row, registry.engine.vault).as_document()
            for row in all_jobs(tx)
            if status in (None, row.status) and agent in (None, row.agent)
        ]


def pick_pending(registry_dir: Folder, agent: str | None = None, agent_session: str | None = None) -> Record | None:
    """Claim the oldest pending job, optionally of an agent or a session; it is then running and cannot be picked again.

    Returns:
        The record; None if nothing is pending. As in the old module, there is no lease: the caller keeps the job.
    """
    registry = open_registry(registry_dir)
    worker = f"{socket.gethostname()}:{os.getpid()}"
    claim = registry.claim(worker=worker, agent=agent, agent_session=agent_session, lease_sec=None)
    return None if claim is None else load_job(registry_dir, claim.job_id)


def update_status(registry_dir: Folder, job_id: str, status: str) -> Record:
    """Set a job's status without recording an event, because the old agents send their own.

    Raises:
        NoSuchJob: there is no such job.
        InvalidInput: there is no such status.
        IllegalTransition: the job's lifecycle does not allow the change.
    """
    if status not in list(JobStatus):
        raise InvalidInput(f"unknown status {status!r:.40}; use one of {', '.join(JobStatus)}")
    target = JobStatus(status)
    registry = open_registry(registry_dir)
    with registry.store.write() as tx:
        row = _find_job(tx, job_id)
        current = JobStatus(row.status)
        if target is not current:
            if not any(before is current and after is target for (before, _), after in TRANSITIONS.items()):
                raise IllegalTransition(f"job {job_id} is {current} and cannot become {target}")
            tx.run(
                LEGACY.legacy_set_status,
                job=row.row_id,
                status=target.value,
                now=tx.now_ms,
                started_ms=tx.now_ms if target is JobStatus.RUNNING else None,
                finished_ms=tx.now_ms if target.terminal else None,
                terminal_seq=row.last_seq if target.terminal else None,
            )
    return load_job(registry_dir, job_id)


def next_seq(registry_dir: Folder, job_id: str) -> int:
    """Allocate and return the seq for an event that the caller sends to the broker itself.

    `jobdb.Registry.publish` numbers, signs and records an event in one step: prefer it.

    Raises:
        NoSuchJob: there is no such job.
    """
    with open_registry(registry_dir).store.write() as tx:
        row = tx.one(LEGACY.legacy_next_seq, job_id=job_id, now=tx.now_ms)
    if row is None:
        raise NoSuchJob(job_id)
    (seq,) = row
    return int(seq)


def _find_job(tx: Transaction, job_id: str) -> JobRow:
    row = find_job(tx, job_id)
    if row is None:
        raise NoSuchJob(job_id)
    return row


def _broker(given: Json) -> tuple[Broker | None, str | None]:
    if given is None or isinstance(given, Broker):
        return given, None
    if not isinstance(given, Mapping) or "host" not in given:
        raise InvalidInput("broker must be a dict with a host, or None")
    known = {name: given[name] for name in ("host", "port", "tls", "username") if given.get(name) is not None}
    return Broker(**known), given.get("password")


if __name__ == "__main__":
    from .registry_cli import RegistryFunctions, main

    raise SystemExit(main(RegistryFunctions(register_job, load_job, list_jobs, pick_pending, update_status)))
