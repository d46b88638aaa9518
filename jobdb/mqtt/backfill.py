"""The backfill: accepts from the database the events that the broker did not deliver, and keeps the cursors.

The database is authoritative; the broker's session only avoids polling it. Events that were recorded here but have not
arrived within a grace period (the broker or its relay is down, or the broker lost messages when it was killed), or that
are missing before an event that did arrive, are accepted from the database in order; the broker's late copy is then a
duplicate. Called by the consumer, in its thread; calls the engine.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..core.authenticity import CLOCK_SLACK_MS
from ..core.protocol.topics import events_topic
from ..errors import UnknownJob
from .statements import SUBSCRIBER

if TYPE_CHECKING:
    from ..core.protocol import WireEvent
    from ..engines.sql.engine import Engine
    from ..engines.store import Transaction
    from .reporting import ReportCallback

_CACHE_SIZE = 10_000
_PAGE_SIZE = 1000
_log = logging.getLogger("jobdb.mqtt")


class SubscriberCursor(NamedTuple):
    """A row of ``subscriber_cursor``: a job and a subscriber's position in it; None if it has not begun.

    Attributes:
        job: the job's row (jobs.id).
        status: the job's status.
        job_last_seq: the job's highest seq.
        start_seq: where the subscriber began.
        last_seq: the highest seq that it has accepted.
        handled_seq: the seq up to which all events are handled.
        topic_prefix: the prefix of the topic of the job's events.
    """

    job: int
    status: str
    job_last_seq: int
    start_seq: int | None
    last_seq: int | None
    handled_seq: int | None
    topic_prefix: str


@dataclass(slots=True)
class Cursor:
    """A subscriber's position in a job: where it began, and the highest seq that it has accepted."""

    start_seq: int
    last_seq: int


def read_cursor(tx: Transaction, job_id: str, subscriber: str) -> SubscriberCursor | None:
    """Read a subscriber's position in a job; return None if there is no such job."""
    row = tx.one(SUBSCRIBER.subscriber_cursor, job_id=job_id, subscriber=subscriber)
    return None if row is None else SubscriberCursor(*row)


class Backfill:
    """One subscriber's cursors, and its events from the database.

    Args:
        engine: the registry's engine.
        subscriber: the name of the subscriber.
        job_id: only this job; None: all.
        start: where a subscriber that is new to the job begins, if it follows one job.
        grace_sec: how long the broker may take to deliver an event that is recorded here, in seconds.
        on_filled: called with the id of a job of which events were accepted here.
        report: called with sentences about cancellations.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        subscriber: str,
        job_id: str | None,
        start: str,
        grace_sec: float,
        on_filled: Callable[[str], None],
        report: ReportCallback,
    ) -> None:
        self._engine = engine
        self._store = engine.store
        self._subscriber = subscriber
        self._job_id = job_id
        self._start = start
        self._grace_ms = round(grace_sec * 1000)
        self._on_filled = on_filled
        self._report = report
        self._cursors: OrderedDict[str, Cursor] = OrderedDict()
        self._cancelled_since = self._store.clock()

    # -- cursors

    def find_cursor(self, job_id: str) -> Cursor | None:
        """Return this subscriber's cursor in a job; None if there is no such job or it has not begun the job."""
        cursor = self._cursors.get(job_id)
        if cursor is not None:
            self._cursors.move_to_end(job_id)
            return cursor
        with self._store.read() as tx:
            row = read_cursor(tx, job_id, self._subscriber)
        if row is None or row.start_seq is None or row.last_seq is None:
            return None
        cursor = self._cursors[job_id] = Cursor(row.start_seq, row.last_seq)
        if len(self._cursors) > _CACHE_SIZE:
            self._cursors.popitem(last=False)
        return cursor

    def reload_cursor(self, job_id: str) -> Cursor | None:
        """Read the cursor from the database again: the job may be a new one with the id of a pruned one."""
        self._cursors.pop(job_id, None)
        return self.find_cursor(job_id)

    def ensure_cursor(self, job_id: str) -> Cursor | None:
        """Return the cursor, beginning the job if it is new to the subscriber; None if there is no such job."""
        cursor = self.find_cursor(job_id)
        if cursor is not None or not self._follow(job_id, limit=0):
            return cursor
        return self.find_cursor(job_id)

    def advance(self, job_id: str, seq: int) -> None:
        """Advance the cursor past an event that was accepted from the broker."""
        cursor = self._cursors.get(job_id)
        if cursor is not None:
            cursor.last_seq = max(cursor.last_seq, seq)

    # -- recorded events

    def is_recorded(self, wire: WireEvent) -> bool:
        """Return whether this exact event is in the database."""
        with self._store.read() as tx:
            row = tx.one(SUBSCRIBER.recorded_digest, job_id=wire.job_id, seq=wire.seq)
        return row is not None and bytes(row[0]) == wire.digest

    def recorded_digests(self, job_id: str, *, after: int, limit: int) -> dict[int, bytes]:
        """Return the digests of a job's recorded events after a seq, keyed by seq."""
        with self._store.read() as tx:
            rows = tx.all(SUBSCRIBER.recorded_digests, job_id=job_id, after=after, limit=limit)
        return {seq: bytes(digest) for seq, digest in rows}

    def is_topic_of(self, job_id: str, topic: str) -> bool:
        """Return whether a topic is that of a job's events."""
        with self._store.read() as tx:
            row = read_cursor(tx, job_id, self._subscriber)
        return row is not None and events_topic(row.topic_prefix) == topic

    # -- filling

    def _follow(self, job_id: str, *, limit: int) -> bool:
        """Accept recorded events, from the first unhandled one on; with limit 0 only begin the job.

        Returns:
            False if the job no longer exists.
        """
        try:
            if self._job_id is None:
                self._engine.follow_in_feed(job_id, subscriber=self._subscriber, limit=limit, include_events=False)
            else:
                self._engine.follow(
                    job_id, subscriber=self._subscriber, start=self._start, limit=limit, include_events=False
                )
        except UnknownJob:
            return False
        return True

    def fill_gap(self, job_id: str, last: int, seq: int) -> bool:
        """Accept the events recorded between two seqs; return whether there were any."""
        with self._store.read() as tx:
            row = read_cursor(tx, job_id, self._subscriber)
            if row is None or row.handled_seq is None:
                return False
            if tx.one(SUBSCRIBER.recorded_between, job=row.job, after=last, before=seq) is None:
                return False
        if not self._follow(job_id, limit=seq - 1 - row.handled_seq):
            return False
        self._cursors.pop(job_id, None)
        self._on_filled(job_id)
        _log.info("job %s: events up to seq %d taken from the database", job_id, seq - 1)
        return True

    def sweep(self, stopped: Callable[[], bool]) -> None:
        """Accept events that were recorded a grace period ago but have not arrived; report cancelled jobs.

        Args:
            stopped: called between pages; returns whether to stop.
        """
        now = self._store.clock()
        before, latest = now - self._grace_ms, now + CLOCK_SLACK_MS
        if self._job_id is not None:
            self._sweep_job(self._job_id, before, latest)
        else:
            self._sweep_all(before, latest, stopped)
            self._report_cancelled(latest)

    def _sweep_job(self, job_id: str, before: int, latest: int) -> None:
        with self._store.read() as tx:
            row = read_cursor(tx, job_id, self._subscriber)
            if row is None or row.last_seq is None or row.last_seq >= row.job_last_seq:
                return
            newest = tx.one(SUBSCRIBER.overdue_event, job=row.job, after=row.last_seq, before=before, latest=latest)
        if newest is not None and newest[0] is not None:
            self.fill_gap(job_id, row.last_seq, newest[0] + 1)

    def _sweep_all(self, before: int, latest: int, stopped: Callable[[], bool]) -> None:
        """Process the events after the feed's position as a database subscriber does, but a grace period later."""
        stable = self._store.stable_events().event_id  # a newer event may still be followed by one with a lower number
        position = self._engine.poll_feed(self._subscriber, after=None, limit=0).last_event
        begun_at = position
        more = True
        while more and not stopped():
            with self._store.read() as tx:
                rows = tx.all(SUBSCRIBER.recorded_after, after=position, stable=stable, limit=_PAGE_SIZE)
            more = len(rows) == _PAGE_SIZE
            newest: dict[str, int] = {}
            for number, job_id, seq, recorded_ms in rows:
                if before <= recorded_ms <= latest:  # later ones were recorded while a clock was ahead
                    more = False
                    break
                position = number
                newest[job_id] = max(seq, newest.get(job_id, 0))
            for job_id, seq in newest.items():
                cursor = self.reload_cursor(job_id) or self.ensure_cursor(job_id)
                if cursor is not None and seq > cursor.last_seq:
                    self.fill_gap(job_id, cursor.last_seq, seq + 1)
        if position > begun_at:
            self._engine.advance_feed(self._subscriber, event=position)

    def _report_cancelled(self, latest: int) -> None:
        """Report cancellations, for which there is no event."""
        with self._store.read() as tx:
            rows = tx.all(SUBSCRIBER.cancelled_since, since=self._cancelled_since, latest=latest, limit=_PAGE_SIZE)
        for job_id, finished_ms in rows:
            self._cancelled_since = max(self._cancelled_since, finished_ms)
            self._report(f"job {job_id} was cancelled")
