"""Signing an event before its turn has come.

Who published a job's last event knows how the job stands, unless somebody has changed it since. So the next event is
numbered and signed before the lock is asked for, and under the lock the statement that moves the job says whether it
stood so. If not, nothing was written and the event is signed anew from what the database holds.
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
from .rows import shorten, token_binding, wire_timestamp
from .statements import EVENTS

if TYPE_CHECKING:
    from ...crypto.vault import Vault
    from ...model import NewEvent
    from ..store import Transaction

_MAX_JOBS = 256
"""So many jobs are remembered; those published to longest ago go first."""


class JobVersion(NamedTuple):
    """How a running job was left by an event of this process.

    Attributes:
        job: jobs.id.
        last_seq: the event's seq.
        attempt: the claim that it belongs to; 0 before the first.
        has_broker: 1 if its events go to a broker.
        kid: the version of the current token; 0: the job has none.
        sealed: that token, sealed.
    """

    job: int
    last_seq: int
    attempt: int
    has_broker: int
    kid: int
    sealed: bytes | None


class PresignedEvent(NamedTuple):
    """An event as it will be recorded if its job still stands as it was left.

    Attributes:
        wire: the event.
        expected: how its job must stand.
        row: its row, but for the moment.
        detail: what its job will show of it.
    """

    wire: WireEvent
    expected: JobVersion
    row: dict[str, Any]
    detail: str | None

    def recorded(self, tx: Transaction) -> bool:
        """Records it and moves its job; False, and nothing written, if the job stands otherwise."""
        wire, (job, last_seq, attempt, has_broker, kid, sealed), row, detail = self
        now = row["now"] = tx.now_ms
        moved = tx.run(
            EVENTS.advance_job_if_unchanged,
            job=job,
            job_id=wire.job_id,
            last_seq=last_seq,
            attempt=attempt,
            has_broker=has_broker,
            kid=kid,
            sealed=sealed,
            seq=wire.seq,
            event=row["event"],
            now=now,
            detail=detail,
        )
        if not moved:
            return False
        tx.run(EVENTS.insert_event, **row)
        if has_broker:
            tx.run(EVENTS.insert_delivery, job=job, seq=wire.seq)
        return True

    @property
    def after(self) -> JobVersion:
        """How it leaves its job."""
        return self.expected._replace(last_seq=self.wire.seq)


class PresignCache:
    """What this process knows of the jobs it publishes to. It may be shared by threads: it holds guesses."""

    def __init__(self) -> None:
        self._versions: OrderedDict[str, JobVersion] = OrderedDict()

    def sign(self, new: NewEvent, vault: Vault, now_ms: int) -> PresignedEvent | None:
        """The event signed ahead; None where its job is not known, or where it takes more than to move on."""
        job_version = self._versions.pop(new.job_id, None)  # kept again when the event is recorded
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
            return None  # it is said, if it is so, from what the database holds
        detail = shorten(wire.detail) if wire.detail else None
        return PresignedEvent(wire, job_version, event_row(job_version.job, wire, now_ms), detail)

    def remember(self, job_id: str, job_version: JobVersion) -> None:
        """Remembers how a job was left. Called when that is committed."""
        self._versions[job_id] = job_version
        if len(self._versions) > _MAX_JOBS:
            with suppress(KeyError):
                self._versions.popitem(last=False)
