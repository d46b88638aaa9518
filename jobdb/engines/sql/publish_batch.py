"""The events that one transaction publishes: each job is read once and updated once, however many events it has.

Called by the verb publish, and by reap, which ends jobs with an event. The caller locks the jobs and ends the
transaction.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from ...core.lifecycle import next_status
from ...core.protocol import WireEvent, build
from ...errors import AttemptRequired, IllegalTransition, JobdbError, KeyProblem, StaleAttempt, UnknownJob
from ...model import JobStatus
from .job_updates import JobUpdates, event_row, run_each, run_job_updates
from .presign import JobVersion
from .rows import STATUSES
from .sealer import token_binding
from .statements import EVENTS
from .timestamps import wire_timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...crypto.vault import Vault
    from ...model import NewEvent
    from ..store import Transaction


class _PublishRow(NamedTuple):
    """A row of ``publish_state``."""

    job: int
    status: str
    last_seq: int
    attempt: int
    has_broker: int
    kid: int
    sealed: bytes | None
    revoked_ms: int | None
    worker: str | None
    lease_until_ms: int | None


class _PublishState:
    """The state of one job while its events are being published in one transaction."""

    __slots__ = (
        "attempt",
        "has_broker",
        "job",
        "kid",
        "last_seq",
        "lease_until_ms",
        "sealed",
        "status",
        "token",
        "updates",
        "worker",
    )

    def __init__(self, row: _PublishRow, token: str | None) -> None:
        (
            self.job,
            status,
            self.last_seq,
            self.attempt,
            self.has_broker,
            self.kid,
            self.sealed,
            _revoked_ms,
            self.worker,
            self.lease_until_ms,
        ) = row
        self.status = STATUSES[status]
        self.token = token
        self.updates = JobUpdates()

    def sign(self, new: NewEvent, timestamp: str) -> WireEvent:
        """Number and sign an event, if its job's status and its attempt allow it."""
        target = next_status(self.status, new.event)
        if target is None:
            raise IllegalTransition(
                f"job {new.job_id} has ended as {self.status}; {new.event} cannot follow",
                advice=f"registry.events({new.job_id!r}) returns its events",
                command=f"'jobdb events {new.job_id}' shows its events",
            )
        self._check_attempt(new)
        if self.kid and self.token is None:
            raise KeyProblem(
                f"the current token of job {new.job_id} is revoked",
                advice=f"create a new one with registry.tokens.rotate({new.job_id!r})",
                command=f"create a new one with 'jobdb token rotate {new.job_id}'",
            )
        wire = build(
            job_id=new.job_id,
            seq=self.last_seq + 1,
            event=new.event,
            timestamp=timestamp,
            detail=new.detail,
            data=new.data,
            attempt=self.attempt or None,
            kid=self.kid or None,
            token=self.token,
        )
        self.last_seq += 1
        self.updates.add(self.status, wire, wire.seq)
        self.status = target
        return wire

    @property
    def job_version(self) -> JobVersion | None:
        """The job's state for the next event; None if it has ended."""
        if self.status is not JobStatus.RUNNING:
            return None
        return JobVersion(self.job, self.last_seq, self.attempt, self.has_broker, self.kid, self.sealed)

    def _check_attempt(self, new: NewEvent) -> None:
        """Refuse a stale or missing attempt; begin a new one if the event names none and the job was released."""
        pending_again = self.status is JobStatus.PENDING and self.attempt > 0
        if new.attempt is None:
            if self.lease_until_ms is not None:
                raise attempt_required(f"publish {new.event} for", new.job_id, worker=self.worker, current=self.attempt)
            # Somebody works on a job that was claimed before and released: the old attempt stays invalid.
            if pending_again:
                self.attempt += 1
        elif new.attempt != self.attempt or pending_again:
            raise stale_attempt(
                f"publish {new.event} for", new.job_id, new.attempt, status=self.status, current=self.attempt
            )


class PublishBatch:
    """The events of one transaction.

    Args:
        tx: the transaction; the events' jobs are locked.
        vault: unseals the jobs' tokens.
    """

    def __init__(self, tx: Transaction, vault: Vault) -> None:
        self._tx = tx
        self._vault = vault
        self._jobs: dict[str, _PublishState] = {}

    def publish(
        self, events: Sequence[NewEvent], *, refused: dict[tuple[str, int], JobdbError] | None = None
    ) -> list[WireEvent]:
        """Number, sign and record events, add them to the outbox, and update their jobs.

        Args:
            events: the events, each job's in order.
            refused: collects the first error per job and attempt, and the other events are published; if None, the
                first error is raised and no event is published.

        Raises:
            UnknownJob, IllegalTransition, StaleAttempt, KeyProblem, InvalidInput: an event cannot be published.
        """
        tx, jobs = self._tx, self._jobs
        recorded, rows, deliveries = [], [], []
        now = tx.now_ms
        timestamp = wire_timestamp(now)
        states = self._read_states(events) if len(events) > 1 else {}
        for new in events:
            try:
                job = jobs.get(new.job_id)
                if job is None:
                    job = jobs[new.job_id] = self._load(new.job_id, states)
                wire = job.sign(new, timestamp)
            except JobdbError as error:
                if refused is None:
                    raise
                refused.setdefault((new.job_id, new.attempt or 0), error)
                continue
            recorded.append(wire)
            rows.append(event_row(job.job, wire, now))
            if job.has_broker:
                deliveries.append({"job": job.job, "seq": wire.seq})
        run_each(tx, EVENTS.insert_event, rows)
        run_each(tx, EVENTS.insert_delivery, deliveries)
        run_job_updates(tx, (update for job in jobs.values() for update in job.updates.rows(job.job, job.attempt, now)))
        return recorded

    def job_version(self, job_id: str) -> JobVersion | None:
        """Return the state of a job of the batch after its events; None if it has ended."""
        return self._jobs[job_id].job_version

    def _read_states(self, events: Sequence[NewEvent]) -> dict[str, _PublishRow]:
        """Return the states of the events' jobs that are not known yet, read in one statement."""
        job_ids = {event.job_id for event in events} - self._jobs.keys()
        if len(job_ids) < 2:
            return {}
        rows = self._tx.all(EVENTS.publish_states, job_ids=json.dumps(sorted(job_ids)))
        return {job_id: _PublishRow._make(row) for *row, job_id in rows}

    def _read_state(self, job_id: str) -> _PublishRow:
        row = self._tx.one(EVENTS.publish_state, job_id=job_id)
        if row is None:
            raise UnknownJob(job_id)
        return _PublishRow._make(row)

    def _load(self, job_id: str, states: dict[str, _PublishRow]) -> _PublishState:
        found = states.get(job_id) or self._read_state(job_id)
        token = None
        if found.kid and found.revoked_ms is None and found.sealed is not None:
            token = self._vault.unseal(found.sealed, bound_to=token_binding(job_id, found.kid))
        return _PublishState(found, token)


def stale_attempt(doing: str, job_id: str, attempt: int | None, *, status: JobStatus, current: int) -> StaleAttempt:
    """Return the error for a worker whose claim is no longer current.

    Args:
        doing: the refused operation, such as "renew".
        job_id: the job.
        attempt: the claim that the worker named, if any.
        status: the job's status.
        current: the current claim's number.
    """
    named = "without a claim" if attempt is None else f"with attempt {attempt}"
    return StaleAttempt(
        f"cannot {doing} job {job_id} {named}: it is {status} at attempt {current}",
        advice=f"stop this work; registry.get({job_id!r}) returns its state",
        command=f"stop this work; 'jobdb show {job_id}' shows its state",
    )


def attempt_required(
    doing: str, job_id: str, *, worker: str | None, current: int, leased: bool = True
) -> AttemptRequired:
    """Return the error for a call without an attempt on a running job.

    Args:
        doing: the refused operation, such as "renew".
        job_id: the job.
        worker: the worker that holds the claim; None if a publisher without a claim began the attempt.
        current: the claim's number.
        leased: it is held under a lease.
    """
    holder = f"{worker} holds it{' under a lease' if leased else ''} as" if worker else "it is running at"
    return AttemptRequired(
        f"cannot {doing} job {job_id} without an attempt: {holder} attempt {current}",
        advice=f"if you are that worker, pass attempt={current}",
        command=f"if you are that worker, pass --attempt {current}, or set JOBDB_ATTEMPT={current}",
    )
