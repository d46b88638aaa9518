"""Verbs about what an agent says: publish (with its seq), events, and the outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import model
from ...errors import IllegalTransition, KeyProblem, StaleAttempt, UnknownJob
from ...lifecycle import next_status
from ...model import EventKind, JobStatus, from_ms
from ...protocol import WireEvent, build
from .rows import broker_from_text, event_from_row, password_binding, shorten, token_binding, wire_timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...model import Broker, Delivery, Event, NewEvent
    from ...vault import Vault
    from .transaction import Store, Transaction


class EventVerbs:
    """Verbs about what an agent says."""

    store: Store
    vault: Vault

    def publish(self, events: Sequence[NewEvent]) -> list[Event]:
        """Gives each event its seq, signs it, records it and moves the job; all or none."""
        with self.store.write() as tx:
            tx.lock_jobs(event.job_id for event in events)
            return [self._publish_one(tx, event) for event in events]

    def _publish_one(self, tx: Transaction, new: NewEvent) -> Event:
        row = tx.one("publish_state", job_id=new.job_id)
        if row is None:
            raise UnknownJob(new.job_id)
        number, status, last_seq, present, has_broker, kid, sealed, revoked_ms = row
        status = JobStatus(status)
        target = next_status(status, new.event)
        if target is None:
            raise IllegalTransition(
                f"job {new.job_id} has ended as {status}; {new.event} cannot follow. "
                f"'jobdb events {new.job_id}' shows what it said"
            )
        attempt = _attempt(new, status, present)
        token = None
        if kid:
            if revoked_ms is not None:
                raise KeyProblem(
                    f"the present token of job {new.job_id} is revoked; make a new one: jobdb token rotate {new.job_id}"
                )
            token = self.vault.unseal(sealed, bound_to=token_binding(new.job_id, kid))
        seq, now = last_seq + 1, tx.now_ms
        wire = build(
            job_id=new.job_id,
            seq=seq,
            event=new.event,
            timestamp=wire_timestamp(now),
            detail=new.detail,
            data=new.data,
            attempt=attempt or None,
            kid=kid or None,
            token=token,
        )
        event_number = record_event(tx, number, wire, now)
        move_job(tx, number, wire, status, attempt, last_seq=seq, now=now)
        if has_broker:
            tx.run("insert_delivery", event=event_number, job=number)
        return event_of(wire, now)

    def events(self, job_id: str, *, after: int, limit: int) -> list[Event]:
        """A page of a job's events in order, that follows the seq ``after``."""
        with self.store.read() as tx:
            rows = tx.all("list_events", job_id=job_id, after=after, limit=limit)
            if not rows and tx.one("job_number", job_id=job_id) is None:
                raise UnknownJob(job_id)
            return [event_from_row(row) for row in rows]

    # -- the outbox

    def outbox(self, *, after: int, limit: int, job_id: str | None = None) -> list[Delivery]:
        """A page of the events that wait for the broker, oldest first, that follows the delivery ``after``."""
        self.store.sync()
        with self.store.read() as tx:
            if job_id is None:
                rows = tx.all("outbox_page", after=after, limit=limit)
            else:
                rows = tx.all("outbox_page_of_job", job_id=job_id, after=after, limit=limit)
        self.store.sync()
        return [
            model.Delivery(number, job, seq, EventKind(kind), prefix + "/events", payload)
            for number, job, seq, kind, payload, prefix in rows
        ]

    def mark_delivered(self, numbers: Sequence[int]) -> None:
        """Takes events that the broker has acknowledged out of the outbox."""
        with self.store.write() as tx:
            for number in numbers:
                tx.run("mark_delivered", event=number)

    def outbox_size(self) -> tuple[int, int | None]:
        """How many events wait, and since when the oldest does, in Unix milliseconds."""
        with self.store.read() as tx:
            row = tx.one("count_outbox")
            assert row is not None
            return row[0], row[1]

    def broker(self, job_id: str) -> tuple[Broker | None, str | None]:
        """Where a job's events go, and the password for it."""
        with self.store.read() as tx:
            row = tx.one("broker_of_job", job_id=job_id)
        if row is None:
            raise UnknownJob(job_id)
        text, sealed = row
        password = None
        if sealed is not None:
            password = self.vault.unseal(sealed, bound_to=password_binding(job_id))
        return broker_from_text(text, sealed is not None), password


def _attempt(new: NewEvent, status: JobStatus, present: int) -> int:
    """The attempt that the event belongs to; a stale one is refused."""
    if new.attempt is not None:
        if new.attempt != present or (status is JobStatus.PENDING and present > 0):
            raise StaleAttempt(
                f"cannot publish {new.event} for job {new.job_id} with attempt {new.attempt}: it is {status} at "
                f"attempt {present}. Stop this work; 'jobdb show {new.job_id}' tells where it stands"
            )
        return present
    # Somebody works on a job that was claimed before and given back: a new attempt, so that the old one stays out.
    return present + 1 if status is JobStatus.PENDING and present > 0 else present


def record_event(tx: Transaction, job: int, wire: WireEvent, now: int) -> int:
    """Stores a wire event; returns its number."""
    row = tx.one(
        "insert_event",
        job=job,
        seq=wire.seq,
        event=wire.event.value,
        attempt=wire.attempt,
        now=now,
        digest=wire.digest,
        payload=wire.text,
    )
    assert row is not None
    number: int = row[0]
    return number


def move_job(
    tx: Transaction, job: int, wire: WireEvent, status: JobStatus, attempt: int, *, last_seq: int, now: int
) -> None:
    """Applies an event to its job, which is not terminal."""
    target = next_status(status, wire.event)
    assert target is not None
    detail = shorten(wire.detail) if wire.detail else None
    if target.terminal:
        tx.run(
            "finish_job",
            job=job,
            status=target.value,
            last_seq=last_seq,
            seq=wire.seq,
            event=wire.event.value,
            now=now,
            detail=detail,
        )
    elif status is JobStatus.PENDING:
        tx.run(
            "start_job",
            job=job,
            attempt=attempt,
            seq=last_seq,
            event=wire.event.value,
            now=now,
            detail=detail,
        )
    else:
        tx.run("advance_job", job=job, seq=last_seq, event=wire.event.value, now=now, detail=detail)


def event_of(wire: WireEvent, recorded_ms: int) -> Event:
    """The public object of a wire event that was just recorded."""
    recorded_at = from_ms(recorded_ms)
    assert recorded_at is not None
    return model.Event(
        job_id=wire.job_id,
        seq=wire.seq,
        event=wire.event,
        timestamp=wire.timestamp,
        detail=wire.detail,
        data=wire.data,
        attempt=wire.attempt,
        recorded_at=recorded_at,
        payload=wire.text,
    )
