"""What a subscriber has of each job, and taking from the database what its broker did not bring.

The database is what remembers, the broker's session only saves looking. What was recorded here and has not come within
a grace time (the broker is down, its relay is, or it lost messages when it was killed), or is missing before an event
that did come, is accepted from the database in order; the broker's late copy is a duplicate then. Called by the intake,
in its thread; calls the engine.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..core.protocol import WireEvent
from ..engines.sql.engine import Engine
from ..engines.sql.precheck import SenderCredentials, check_authenticity
from ..engines.sql.rows import CLOCK_SLACK_MS
from ..engines.sql.statements import ACCEPT
from ..engines.statements import Statement, StatementSet
from ..errors import UnknownJob
from .reconnecting import ReportCallback


class BackfillStatements(StatementSet):
    """The statements of ``backfill.sql``."""

    broker_subscription: Statement
    recorded_between: Statement
    recorded_digest: Statement
    recorded_digests: Statement
    accepted_unhandled: Statement
    recorded_after: Statement
    overdue_event: Statement
    cancelled_since: Statement
    live_topics: Statement
    brokers_of_live_jobs: Statement


SUBSCRIBER = BackfillStatements(Path(__file__).with_name("backfill.sql"))


_CACHE_SIZE = 10_000
_PAGE_SIZE = 1000
_MOST_SEQ = 2**53
_log = logging.getLogger("jobdb.mqtt")


@dataclass(slots=True)
class Cursor:
    """What a subscriber has of one job: where it began, and the highest seq that it has accepted."""

    start_seq: int
    last_seq: int


class Backfill:
    """One subscriber's numbers, and its other source of events.

    Args:
        engine: the registry's engine.
        subscriber: the observer's name.
        job_id: only this job; None: all.
        start: where a subscriber that is new to the job begins, when it is one job.
        grace_sec: how long the broker may take to deliver what is recorded here, in seconds.
        on_filled: called with the id of a job of which something was accepted here.
        report: takes sentences about cancellations.
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

    # -- the numbers

    def find_cursor(self, job_id: str) -> Cursor | None:
        """This subscriber's numbers for a job; None when there is no such job, or it was not begun."""
        cursor = self._cursors.get(job_id)
        if cursor is not None:
            self._cursors.move_to_end(job_id)
            return cursor
        with self._store.read() as tx:
            row = tx.one(SUBSCRIBER.broker_subscription, job_id=job_id, subscriber=self._subscriber)
        if row is None or row[3] is None:
            return None
        cursor = self._cursors[job_id] = Cursor(row[3], row[4])
        if len(self._cursors) > _CACHE_SIZE:
            self._cursors.popitem(last=False)
        return cursor

    def reload_cursor(self, job_id: str) -> Cursor | None:
        """The same from the database: the job may be a new one that has the id of one that was pruned."""
        self._cursors.pop(job_id, None)
        return self.find_cursor(job_id)

    def ensure_cursor(self, job_id: str) -> Cursor | None:
        """The same; a job that is new to the subscriber is begun. None when there is no such job."""
        cursor = self.find_cursor(job_id)
        if cursor is not None or not self._follow(job_id, limit=0):
            return cursor
        return self.find_cursor(job_id)

    def is_authentic(self, wire: WireEvent, topic: str) -> bool:
        """Whether accept would believe that an event is its job's.

        Asked before anything is done because an event came that does not follow the last one: a forged event must
        change nothing.
        """
        with self._store.read() as tx:
            row = tx.one(ACCEPT.sender_credentials, job_id=wire.job_id, kid=wire.kid)
            now = tx.now_ms
        return (
            row is not None
            and check_authenticity(wire, topic, SenderCredentials(*row), self._engine.vault, now) is None
        )

    def accepted(self, job_id: str, seq: int) -> None:
        """Notes what came from the broker."""
        cursor = self._cursors.get(job_id)
        if cursor is not None:
            cursor.last_seq = max(cursor.last_seq, seq)

    def is_recorded(self, wire: WireEvent) -> bool:
        """Whether this very event is in the database."""
        with self._store.read() as tx:
            row = tx.one(SUBSCRIBER.recorded_digest, job_id=wire.job_id, seq=wire.seq)
        return row is not None and bytes(row[0]) == wire.digest

    def recorded_digests(self, job_id: str, *, after: int, limit: int) -> dict[int, bytes]:
        """What is recorded of a job after a seq: the digests by seq."""
        with self._store.read() as tx:
            rows = tx.all(SUBSCRIBER.recorded_digests, job_id=job_id, after=after, limit=limit)
        return {seq: bytes(digest) for seq, digest in rows}

    def is_topic_of(self, job_id: str, topic: str) -> bool:
        """Whether another job's events come on this topic rightly: then they are not this subscriber's to judge."""
        with self._store.read() as tx:
            row = tx.one(SUBSCRIBER.broker_subscription, job_id=job_id, subscriber=self._subscriber)
        return row is not None and f"{row[6]}/events" == topic

    # -- the other source

    def _follow(self, job_id: str, *, limit: int) -> bool:
        """Accepts what is recorded here, from the first unhandled event on; with limit 0 only begins.

        False when the job is not there any more.
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
        """Accepts what is recorded here between two seqs; True when there was something."""
        with self._store.read() as tx:
            row = tx.one(SUBSCRIBER.broker_subscription, job_id=job_id, subscriber=self._subscriber)
            if (
                row is None
                or tx.one(SUBSCRIBER.recorded_between, job=row[0], after=last, before=min(seq, _MOST_SEQ)) is None
            ):
                return False
        if not self._follow(job_id, limit=seq - 1 - row[5]):
            return False
        self._cursors.pop(job_id, None)
        self._on_filled(job_id)
        _log.info("job %s: events up to seq %d taken from the database", job_id, seq - 1)
        return True

    def sweep(self, stopped: Callable[[], bool]) -> None:
        """Takes over what was recorded a grace time ago and has not come, and says which jobs were cancelled.

        Args:
            stopped: asked between pages whether to end.
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
            row = tx.one(SUBSCRIBER.broker_subscription, job_id=job_id, subscriber=self._subscriber)
            if row is None or row[3] is None or row[4] >= row[2]:
                return
            overdue = tx.one(SUBSCRIBER.overdue_event, job=row[0], after=row[4], before=before, latest=latest)
        if overdue is not None and overdue[0] is not None:
            self.fill_gap(job_id, row[4], overdue[0] + 1)

    def _sweep_all(self, before: int, latest: int, stopped: Callable[[], bool]) -> None:
        """Goes over the events after the feed's position, as a subscriber of the database does, a grace time later."""
        # After an event that is not stable one with a lower id can still appear.
        stable_event_id = self._store.stable_events().event_id
        position = self._engine.poll_feed(self._subscriber, after=None, limit=0).last_event
        begun_at = position
        more = True
        while more and not stopped():
            with self._store.read() as tx:
                rows = tx.all(
                    SUBSCRIBER.recorded_after, after=position, stable_event_id=stable_event_id, limit=_PAGE_SIZE
                )
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
        """No event says it."""
        with self._store.read() as tx:
            rows = tx.all(SUBSCRIBER.cancelled_since, since=self._cancelled_since, latest=latest, limit=_PAGE_SIZE)
        for job_id, finished_ms in rows:
            self._cancelled_since = max(self._cancelled_since, finished_ms)
            self._report(f"job {job_id} was cancelled")
