"""Verbs of subscribers that read the database itself: follow a job or all jobs, and note what was handled.

Two numbers a subscriber and job: ``last_seq`` (accepted) and ``handled_seq`` (its handler is done with). What lies
between them is delivered again after a restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ... import model
from ...errors import UnknownJob
from ...model import JobStatus, from_ms
from .rows import event_from_row
from .statements import ACCEPT

if TYPE_CHECKING:
    from ...model import Event, Subscription
    from ..store import Row, Store, Transaction


class FollowResult(NamedTuple):
    """What following a job brought: events to handle, in order, and where the job stands.

    ``ended`` is the job's final status when nothing is left to handle and nothing can come. ``after`` is the
    handled_seq that the events follow.
    """

    events: tuple[Event, ...]
    ended: JobStatus | None
    after: int = 0


class _FollowRows(NamedTuple):
    """The same as it was read. The payloads are parsed when the lock is given back: they may be large."""

    rows: list[Row]
    ended: JobStatus | None
    after: int

    def result(self) -> FollowResult:
        return FollowResult(tuple(map(event_from_row, self.rows)), self.ended, self.after)


class SubscriptionVerbs:
    """Verbs of subscribers that read the database itself."""

    store: Store

    def follow(
        self, job_id: str, *, subscriber: str, start: str, limit: int, include_events: bool = True
    ) -> FollowResult:
        """Accepts a job's recorded events for a subscriber and gives those that are not handled, in order.

        With ``include_events`` false it gives none, however many it accepts.
        """
        if (result := self._poll_without_lock(job_id, subscriber)) is not None:
            return result
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            found = self._follow(tx, job_id, subscriber, start, limit, start_event=None, include_events=include_events)
        return found.result()

    def _poll_without_lock(self, job_id: str, subscriber: str) -> FollowResult | None:
        """A look without the write lock: a job's news must not cost every follower of another job a transaction."""
        with self.store.read() as tx:
            row = tx.one(ACCEPT.subscription_state, job_id=job_id, subscriber=subscriber)
            if row is None:
                raise UnknownJob(job_id)
            subscription, handled_seq = row[4], row[7]
            if subscription is None:
                return None
            if tx.one(ACCEPT.follow_events, job_id=job_id, subscription=subscription, after=handled_seq, limit=1):
                return None
        self.store.sync()
        status = JobStatus(row[1])
        return FollowResult((), status if status.terminal else None)

    def _follow(
        self,
        tx: Transaction,
        job_id: str,
        subscriber: str,
        start: str,
        limit: int,
        start_event: int | None,
        include_events: bool,
    ) -> _FollowRows:
        row = tx.one(ACCEPT.subscription_state, job_id=job_id, subscriber=subscriber)
        if row is None:
            raise UnknownJob(job_id)
        number, status, job_last_seq, _terminal_seq, subscription, start_seq, last_seq, handled_seq = row
        if subscription is None:
            start_seq = _start_seq(tx, number, job_last_seq, start, start_event)
            made = tx.one(
                ACCEPT.insert_subscription, job=number, subscriber=subscriber, start_seq=start_seq, now=tx.now_ms
            )
            assert made is not None
            subscription, last_seq, handled_seq = made[0], start_seq, start_seq
        statement = ACCEPT.follow_events if include_events else ACCEPT.follow_seqs
        rows = tx.all(statement, job_id=job_id, subscription=subscription, after=handled_seq, limit=limit)
        self._accept_recorded(tx, subscription, last_seq, [row[1] for row in rows])
        final = JobStatus(status)
        return _FollowRows(rows if include_events else [], final if final.terminal and not rows else None, handled_seq)

    @staticmethod
    def _accept_recorded(tx: Transaction, subscription: int, last_seq: int, seqs: list[int]) -> None:
        """Advances over recorded events: they were verified or signed here when they were recorded."""
        expected = last_seq + 1
        for seq in seqs:
            if seq < expected:
                continue
            if seq > expected:
                tx.run(ACCEPT.insert_gap, subscription=subscription, first_seq=expected, last_seq=seq - 1)
            expected = seq + 1
        if expected > last_seq + 1:
            tx.run(ACCEPT.advance_subscription, subscription=subscription, seq=expected - 1, now=tx.now_ms)

    def mark_handled(self, job_id: str, *, subscriber: str, seq: int, after: int | None = None) -> None:
        """Notes that the handler is done with everything up to ``seq``.

        ``after`` is the seq that was handed out before it. If one up to there or between the two was accepted late
        meanwhile, nothing is noted: the handler has not seen that one and gets all from there again. None: no event
        is ever accepted late for this subscriber (window 0).
        """
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            tx.run(ACCEPT.mark_handled, job_id=job_id, subscriber=subscriber, seq=seq, after=after)

    def subscriptions(self, *, job_id: str | None, subscriber: str | None, limit: int) -> list[Subscription]:
        """Each subscriber's numbers, oldest subscription first."""
        with self.store.read() as tx:
            rows = tx.all(ACCEPT.list_subscriptions, job_id=job_id, subscriber=subscriber, limit=limit)
        return [_subscription(row) for row in rows]

    # -- all jobs

    def open_feed(self, subscriber: str, *, start: str) -> list[str]:
        """Begins or resumes following all jobs; gives the jobs with events that were accepted and not handled."""
        settled = self.store.stable_event_id()
        with self.store.write() as tx:
            newest = tx.one(ACCEPT.newest_event)
            assert newest is not None
            start_event = min(newest[0], settled) if start == "now" else 0
            tx.run(ACCEPT.insert_feed, subscriber=subscriber, start_event=start_event)
            rows = tx.all(ACCEPT.unhandled_jobs, subscriber=subscriber, limit=2**31 - 1)
            return [row[0] for row in rows]

    def poll_feed(self, subscriber: str, *, after: int | None, limit: int) -> tuple[list[str], int]:
        """The jobs of the events after one (None: where the feed stands), each once, and the last event's number."""
        settled = self.store.stable_event_id()
        with self.store.read() as tx:
            feed = tx.one(ACCEPT.get_feed, subscriber=subscriber)
            assert feed is not None
            after = feed[1] if after is None else after
            rows = tx.all(ACCEPT.feed_page, after=after, settled=settled, limit=limit)
        jobs = list(dict.fromkeys(row[1] for row in rows))
        return jobs, rows[-1][0] if rows else after

    def follow_in_feed(self, job_id: str, *, subscriber: str, limit: int, include_events: bool = True) -> FollowResult:
        """The same as follow, for a subscriber of all jobs."""
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            feed = tx.one(ACCEPT.get_feed, subscriber=subscriber)
            assert feed is not None
            found = self._follow(
                tx, job_id, subscriber, "beginning", limit, start_event=feed[0], include_events=include_events
            )
        return found.result()

    def advance_feed(self, subscriber: str, *, event: int) -> None:
        """Notes how far the feed was looked through."""
        with self.store.write() as tx:
            tx.run(ACCEPT.advance_feed, subscriber=subscriber, event=event)


def _start_seq(tx: Transaction, job: int, job_last_seq: int, start: str, start_event: int | None) -> int:
    """Where a new subscriber of a job begins."""
    if start_event:
        row = tx.one(ACCEPT.seq_at_event, job=job, event=start_event)
        assert row is not None
        return int(row[0])
    return job_last_seq if start == "now" else 0


def _subscription(row: Row) -> Subscription:
    subscriber, job_id, status, start_seq, last_seq, handled_seq, job_last_seq, last_event_ms = row
    return model.Subscription(
        subscriber,
        job_id,
        JobStatus(status),
        start_seq,
        last_seq,
        handled_seq,
        job_last_seq,
        from_ms(last_event_ms),
    )
