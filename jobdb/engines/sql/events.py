"""Verbs about what an agent says: publish (with its seq), events, and the outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import model
from ...core.lifecycle import next_status
from ...core.protocol import WireEvent, build
from ...errors import IllegalTransition, KeyProblem, StaleAttempt, UnknownJob
from ...model import EventKind, JobStatus
from .job_updates import JobUpdates, event_from_wire, event_row, run_each, run_job_updates
from .presign import JobVersion, PresignCache
from .rows import STATUSES, event_from_row, open_broker, token_binding, wire_timestamp
from .statements import EVENTS, JOBS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...crypto.vault import Vault
    from ...model import Broker, Delivery, Event, NewEvent
    from ..store import Store, Transaction


class EventVerbs:
    """Verbs about what an agent says."""

    store: Store
    vault: Vault
    presign_cache: PresignCache

    def publish(self, events: Sequence[NewEvent]) -> list[Event]:
        """Gives each event its seq, signs it, records it and moves the job; all or none."""
        if len(events) == 1 and self.store.supports_presigning:
            return [self._publish_one(events[0])]
        with self.store.write() as tx:
            tx.lock_jobs(event.job_id for event in events)
            recorded, now = self._publish(tx, events, {}), tx.now_ms
        return [event_from_wire(wire, now) for wire in recorded]

    def _publish_one(self, new: NewEvent) -> Event:
        """The same for one event, which was signed ahead if its job has not been changed by anybody else."""
        self.store.check()  # before a lock that another thread may have held when this process was forked
        ahead = self.presign_cache.sign(new, self.vault, self.store.clock())
        with self.store.write() as tx:
            now = tx.now_ms
            job_version: JobVersion | None
            if ahead is not None and ahead.recorded(tx):
                wire, job_version = ahead.wire, ahead.after
            else:
                jobs: dict[str, _PublishState] = {}
                wire = self._publish(tx, [new], jobs)[0]
                job_version = jobs[new.job_id].job_version
        if job_version is not None:
            self.presign_cache.remember(new.job_id, job_version)
        return event_from_wire(wire, now)

    def _publish(self, tx: Transaction, events: Sequence[NewEvent], jobs: dict[str, _PublishState]) -> list[WireEvent]:
        """Each job is read once, into ``jobs``, and moved once, however many of the events are its own."""
        recorded, rows, deliveries = [], [], []
        now = tx.now_ms
        timestamp = wire_timestamp(now)
        for new in events:
            job = jobs.get(new.job_id)
            if job is None:
                job = jobs[new.job_id] = self._load_publish_state(tx, new.job_id)
            wire = job.sign(new, timestamp)
            recorded.append(wire)
            rows.append(event_row(job.number, wire, now))
            if job.has_broker:
                deliveries.append({"job": job.number, "seq": wire.seq})
        run_each(tx, EVENTS.insert_event, rows)
        run_each(tx, EVENTS.insert_delivery, deliveries)
        run_job_updates(
            tx, (update for job in jobs.values() for update in job.updates.rows(job.number, job.attempt, now))
        )
        return recorded

    def _load_publish_state(self, tx: Transaction, job_id: str) -> _PublishState:
        row = tx.one(EVENTS.publish_state, job_id=job_id)
        if row is None:
            raise UnknownJob(job_id)
        number, status, last_seq, attempt, has_broker, kid, sealed, revoked_ms = row
        token = None
        if kid and revoked_ms is None:
            token = self.vault.unseal(sealed, bound_to=token_binding(job_id, kid))
        return _PublishState(number, STATUSES[status], last_seq, attempt, has_broker, kid, sealed, token)

    def events(self, job_id: str, *, after: int, limit: int) -> list[Event]:
        """A page of a job's events in order, that follows the seq ``after``."""
        with self.store.read() as tx:
            rows = tx.all(EVENTS.list_events, job_id=job_id, after=after, limit=limit)
            if not rows and tx.one(JOBS.job_number, job_id=job_id) is None:
                raise UnknownJob(job_id)
            return [event_from_row(row) for row in rows]

    # -- the outbox

    def outbox(self, *, after: int, limit: int, job_id: str | None = None) -> list[Delivery]:
        """A page of the events that wait for the broker, oldest first, that follows the delivery ``after``."""
        self.store.sync()
        with self.store.read() as tx:
            if job_id is None:
                rows = tx.all(EVENTS.outbox_page, after=after, limit=limit)
            else:
                rows = tx.all(EVENTS.outbox_page_of_job, job_id=job_id, after=after, limit=limit)
        self.store.sync()
        return [
            model.Delivery(number, job, seq, EventKind(kind), prefix + "/events", payload)
            for number, job, seq, kind, payload, prefix in rows
        ]

    def mark_delivered(self, numbers: Sequence[int]) -> None:
        """Takes events that the broker has acknowledged out of the outbox."""
        with self.store.write() as tx:
            for number in numbers:
                tx.run(EVENTS.mark_delivered, event=number)

    def outbox_size(self) -> tuple[int, int | None]:
        """How many events wait, and since when the oldest does, in Unix milliseconds."""
        with self.store.read() as tx:
            row = tx.one(EVENTS.count_outbox)
            assert row is not None
            return row[0], row[1]

    def broker(self, job_id: str) -> tuple[Broker | None, str | None]:
        """Where a job's events go, and the password for it."""
        with self.store.read() as tx:
            row = tx.one(EVENTS.broker_of_job, job_id=job_id)
        if row is None:
            raise UnknownJob(job_id)
        return open_broker(self.vault, job_id, *row)


class _PublishState:
    """One job while its events are being published in one transaction."""

    __slots__ = ("attempt", "has_broker", "kid", "last_seq", "number", "sealed", "status", "token", "updates")

    def __init__(
        self,
        number: int,
        status: JobStatus,
        last_seq: int,
        attempt: int,
        has_broker: int,
        kid: int,
        sealed: bytes | None,
        token: str | None,
    ) -> None:
        self.number = number
        self.status = status
        self.last_seq = last_seq
        self.attempt = attempt
        self.has_broker = has_broker
        self.kid = kid
        self.sealed = sealed
        self.token = token
        self.updates = JobUpdates()

    def sign(self, new: NewEvent, timestamp: str) -> WireEvent:
        """The event with its seq and signature, if its job and its attempt allow it."""
        target = next_status(self.status, new.event)
        if target is None:
            raise IllegalTransition(
                f"job {new.job_id} has ended as {self.status}; {new.event} cannot follow. "
                f"'jobdb events {new.job_id}' shows what it said"
            )
        self._check_attempt(new)
        if self.kid and self.token is None:
            raise KeyProblem(
                f"the present token of job {new.job_id} is revoked; make a new one: jobdb token rotate {new.job_id}"
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
        """How the job is left, for the next event; None when it has ended."""
        if self.status is not JobStatus.RUNNING:
            return None
        return JobVersion(self.number, self.last_seq, self.attempt, self.has_broker, self.kid, self.sealed)

    def _check_attempt(self, new: NewEvent) -> None:
        """Refuses a stale attempt; begins a new one where nobody names one and the job was given back."""
        pending_again = self.status is JobStatus.PENDING and self.attempt > 0
        if new.attempt is None:
            # Somebody works on a job that was claimed before and given back: the old attempt stays out.
            if pending_again:
                self.attempt += 1
        elif new.attempt != self.attempt or pending_again:
            raise StaleAttempt(
                f"cannot publish {new.event} for job {new.job_id} with attempt {new.attempt}: it is {self.status} at "
                f"attempt {self.attempt}. Stop this work; 'jobdb show {new.job_id}' tells where it stands"
            )
