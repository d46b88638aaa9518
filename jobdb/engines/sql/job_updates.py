"""The rows that publish and accept write: one per event, and the update of its job.

Called by publish, accept, register and prune, and by the outbox of tickets. Runs statements in its caller's
transaction; never begins or ends one.

Also :func:`run_each`, with which a verb executes one statement for several rows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ... import model
from ...core.lifecycle import next_status
from ...model import JobStatus, from_ms
from .rows import shorten
from .statements import EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from ...core.protocol import WireEvent
    from ...model import Event
    from ..statements import Statement
    from ..store import Transaction


class JobUpdates:
    """The events of one transaction that update their job: the one that starts a pending job, and the last one.

    The events between them leave no trace in the job's row.
    """

    __slots__ = ("_updates",)

    def __init__(self) -> None:
        self._updates: list[tuple[JobStatus, WireEvent, int]] = []

    def add(self, status: JobStatus, wire: WireEvent, last_seq: int) -> None:
        """Add an event.

        Args:
            status: the job's status before it.
            wire: the event, which the lifecycle allows in that status.
            last_seq: the job's last_seq after it.
        """
        if status is JobStatus.RUNNING and self._updates and self._updates[-1][0] is JobStatus.RUNNING:
            self._updates.pop()
        self._updates.append((status, wire, last_seq))

    def rows(self, job: int, attempt: int, now: int) -> Iterator[tuple[Statement, dict[str, Any]]]:
        """Yield the statements that update the job's row, with their parameters."""
        for status, wire, last_seq in self._updates:
            yield _job_update(job, wire, status, attempt, last_seq, now)


def run_job_updates(tx: Transaction, updates: Iterable[tuple[Statement, dict[str, Any]]]) -> None:
    """Run updates of jobs, grouped by statement: starts first, then progress, then ends.

    The updates of one job are already in this order.
    """
    found = list(updates)
    if len(found) == 1:
        statement, row = found[0]
        tx.run(statement, **row)
        return
    rows: dict[Statement, list[dict[str, Any]]] = {
        EVENTS.start_job: [],
        EVENTS.advance_job: [],
        EVENTS.finish_job: [],
    }
    for statement, row in found:
        rows[statement].append(row)
    for statement, each in rows.items():
        run_each(tx, statement, each)


def event_row(job: int, wire: WireEvent, now: int) -> dict[str, Any]:
    """Return the parameters of ``insert_event`` for a wire event."""
    return {
        "job": job,
        "seq": wire.seq,
        "event": wire.event._value_,
        "attempt": wire.attempt,
        "now": now,
        "digest": wire.digest,
        "payload": wire.text,
    }


def run_each(tx: Transaction, statement: Statement, rows: Sequence[dict[str, Any]]) -> None:
    """Execute a statement for each row; several rows are executed in one call."""
    if len(rows) == 1:
        tx.run(statement, **rows[0])
    elif rows:
        tx.run_many(statement, rows)


def _job_update(
    job: int, wire: WireEvent, status: JobStatus, attempt: int, last_seq: int, now: int
) -> tuple[Statement, dict[str, Any]]:
    """Return the statement that applies an event to its job, which is not terminal."""
    target = next_status(status, wire.event)
    assert target is not None
    row = {
        "job": job,
        "seq": last_seq,
        "event": wire.event._value_,
        "now": now,
        "detail": shorten(wire.detail) if wire.detail else None,
    }
    if target is JobStatus.RUNNING:
        if status is JobStatus.RUNNING:
            return EVENTS.advance_job, row
        return EVENTS.start_job, {**row, "attempt": attempt}
    return EVENTS.finish_job, {
        **row,
        "attempt": attempt,
        "status": target._value_,
        "last_seq": last_seq,
        "seq": wire.seq,
    }


def event_from_wire(wire: WireEvent, recorded_ms: int) -> Event:
    """Return the public object for a wire event that was just recorded."""
    return model.Event(
        job_id=wire.job_id,
        seq=wire.seq,
        event=wire.event,
        timestamp=wire.timestamp,
        detail=wire.detail,
        data=wire.data,
        attempt=wire.attempt,
        recorded_at=_utc_datetime(recorded_ms),
        payload=wire.text,
    )


@lru_cache(maxsize=16)  # the events of a batch are recorded at the same time
def _utc_datetime(ms: int) -> datetime:
    moment = from_ms(ms)
    assert moment is not None
    return moment
