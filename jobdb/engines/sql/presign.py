"""The signing of an event before the write lock is requested.

Called by the publish verb (``events.py``). Calls the vault before the transaction; runs statements only in it.

The process that published a job's last event knows the job's state, unless another process has changed it since. So the
next event is numbered and signed before the lock is requested, and under the lock the statement that updates the job
checks that state. If it differs, nothing is written, and the event is signed again from the state in the database.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from ...core.lifecycle import next_status
from ...core.protocol import WireEvent, build
from ...errors import InvalidInput, KeyProblem
from ...model import JobStatus
from .job_updates import event_row
from .rows import shorten
from .sealer import token_binding
from .statements import EVENTS
from .timestamps import wire_timestamp

if TYPE_CHECKING:
    from ...crypto.vault import Vault
    from ...model import NewEvent
    from ..store import Transaction

_MAX_JOBS = 256
"""The number of jobs that are remembered; the least recently published to are forgotten first."""


class JobVersion(NamedTuple):
    """The state of a running job after this process published its last event.

    Attributes:
        job: jobs.id.
        last_seq: the event's seq.
        attempt: the number of the current claim; 0 before the first.
        has_broker: 1 if the job's events go to a broker.
        kid: the version of the current token; 0 if the job has none.
        sealed: the sealed token.
    """

    job: int
    last_seq: int
    attempt: int
    has_broker: int
    kid: int
    sealed: bytes | None


class PresignedEvent(NamedTuple):
    """An event as it will be recorded if its job is unchanged.

    Attributes:
        wire: the event.
        expected: the state that its job must have.
        row: its row, except for the time at which it is recorded.
        detail: its detail as the job's record shows it.
        fenced: it names its attempt, which a job that is held under a lease demands.
    """

    wire: WireEvent
    expected: JobVersion
    row: dict[str, Any]
    detail: str | None
    fenced: bool

    def try_record(self, tx: Transaction) -> bool:
        """Record the event and update its job; return False, with nothing written, if the job has changed."""
        wire, (job, last_seq, attempt, has_broker, kid, sealed), row, detail, fenced = self
        now = tx.now_ms
        moved = tx.run(
            EVENTS.advance_job_if_unchanged,
            job=job,
            job_id=wire.job_id,
            last_seq=last_seq,
            attempt=attempt,
            has_broker=has_broker,
            kid=kid,
            sealed=sealed,
            fenced=int(fenced),
            seq=wire.seq,
            event=row["event"],
            now=now,
            detail=detail,
        )
        if not moved:
            return False
        tx.run(EVENTS.insert_event, **{**row, "now": now})
        if has_broker:
            tx.run(EVENTS.insert_delivery, job=job, seq=wire.seq)
        return True

    @property
    def resulting_version(self) -> JobVersion:
        """The state of the job after the event."""
        return self.expected._replace(last_seq=self.wire.seq)


class PresignCache:
    """The last known states of the jobs that this process publishes to. Threads may share it: stale ones do no harm."""

    def __init__(self) -> None:
        self._versions: OrderedDict[str, JobVersion] = OrderedDict()

    def presign(self, new: NewEvent, vault: Vault, now_ms: int) -> PresignedEvent | None:
        """Number and sign an event; return None if its job is not known or the event ends it."""
        job_version = self._versions.pop(new.job_id, None)  # remembered again once the event is recorded
        if job_version is None or next_status(JobStatus.RUNNING, new.event) is not JobStatus.RUNNING:
            return None
        if new.attempt is not None and new.attempt != job_version.attempt:
            return None
        try:
            token = None
            if job_version.sealed is not None:
                token = vault.unseal(job_version.sealed, bound_to=token_binding(new.job_id, job_version.kid))
            wire = build(
                job_id=new.job_id,
                seq=job_version.last_seq + 1,
                event=new.event,
                timestamp=wire_timestamp(now_ms),
                detail=new.detail,
                data=new.data,
                attempt=job_version.attempt or None,
                kid=job_version.kid or None,
                token=token,
            )
        except (InvalidInput, KeyProblem):
            return None  # if it must be refused, that happens under the lock, from the state in the database
        detail = shorten(wire.detail) if wire.detail else None
        return PresignedEvent(
            wire, job_version, event_row(job_version.job, wire, now_ms), detail, new.attempt is not None
        )

    def remember(self, job_id: str, job_version: JobVersion) -> None:
        """Remember a job's state after an event. Called after the commit."""
        self._versions[job_id] = job_version
        if len(self._versions) > _MAX_JOBS:
            with suppress(KeyError):
                self._versions.popitem(last=False)
