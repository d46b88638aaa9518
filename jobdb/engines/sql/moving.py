"""What publish and accept write of an event: its row, and what it does to its job's row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ... import model
from ...lifecycle import next_status
from ...model import JobStatus, from_ms
from .rows import shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...model import Event
    from ...protocol import WireEvent
    from .transaction import Transaction


class Moves:
    """The events of one transaction that a job is moved by: what takes a pending job up, and the last one.

    Those between them leave no trace in the job's row.
    """

    __slots__ = ("_moves",)

    def __init__(self) -> None:
        self._moves: list[tuple[JobStatus, WireEvent, int]] = []

    def add(self, status: JobStatus, wire: WireEvent, last_seq: int) -> None:
        """Adds an event.

        Args:
            status: the job's status before it.
            wire: the event; the job's life allows it.
            last_seq: the job's last_seq after it.
        """
        if status is JobStatus.RUNNING and self._moves and self._moves[-1][0] is JobStatus.RUNNING:
            self._moves.pop()
        self._moves.append((status, wire, last_seq))

    def apply(self, tx: Transaction, job: int, attempt: int, now: int) -> None:
        """Writes them to the job's row."""
        for status, wire, last_seq in self._moves:
            _move_job(tx, job, wire, status, attempt, last_seq, now)


def event_row(job: int, wire: WireEvent, now: int) -> dict[str, Any]:
    """The row of a wire event, for ``insert_event``."""
    return {
        "job": job,
        "seq": wire.seq,
        "event": wire.event._value_,
        "attempt": wire.attempt,
        "now": now,
        "digest": wire.digest,
        "payload": wire.text,
    }


def run_each(tx: Transaction, name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Executes a statement for each row: at once where there are several."""
    if len(rows) == 1:
        tx.run(name, **rows[0])
    elif rows:
        tx.run_many(name, rows)


def _move_job(
    tx: Transaction, job: int, wire: WireEvent, status: JobStatus, attempt: int, last_seq: int, now: int
) -> None:
    """Applies an event to its job, which is not terminal."""
    target = next_status(status, wire.event)
    assert target is not None
    detail = shorten(wire.detail) if wire.detail else None
    event = wire.event._value_
    if target is JobStatus.RUNNING:
        if status is JobStatus.RUNNING:
            tx.run("advance_job", job=job, seq=last_seq, event=event, now=now, detail=detail)
        else:
            tx.run("start_job", job=job, attempt=attempt, seq=last_seq, event=event, now=now, detail=detail)
    else:
        tx.run(
            "finish_job",
            job=job,
            status=target._value_,
            attempt=attempt,
            last_seq=last_seq,
            seq=wire.seq,
            event=event,
            now=now,
            detail=detail,
        )


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
