"""Verbs of subscribers that read the database itself: follow a job or all jobs, and note the events that were handled.

Two numbers per subscriber and job: ``last_seq`` (accepted) and ``handled_seq`` (its handler is done with). What lies
between them is delivered again after a restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ... import model
from ...errors import UnknownJob
from ...model import JobStatus, from_ms
from ..verbs import verb
from .rows import event_from_row
from .statements import ACCEPT, SUBSCRIPTIONS
from .verb_group import VerbGroup

if TYPE_CHECKING:
    from ...model import Event, Subscription
    from ..store import Row, Transaction

_ALL = 2**31 - 1


class FollowResult(NamedTuple):
    """The events of a followed job that are to be handled, and where the job stands.

    Attributes:
        events: the events, in order.
        ended: the job's final status when nothing is left to handle and nothing can come; None otherwise.
        after: the seq (handled_seq) that the events follow.
    """

    events: tuple[Event, ...]
    ended: JobStatus | None
    after: int = 0


class FeedPage(NamedTuple):
    """The jobs that have news for a subscriber of all jobs.

    Attributes:
        job_ids: the jobs, each once, in the order of their first event.
        last_event: the id (events.id) of the last event that was looked at.
        recheck_sec: look again after so many seconds although nothing may announce it; infinite where that is not so.
    """

    job_ids: list[str]
    last_event: int
    recheck_sec: float


class _SubscriptionState(NamedTuple):
    """A row of ``subscription_state``: a job's end, and a subscriber's numbers for it.

    ``subscription`` is None when the subscriber has not begun with the job; the numbers then mean nothing.
    """

    job: int
    status: str
    job_last_seq: int
    terminal_seq: int | None
    subscription: int | None
    start_seq: int
    last_seq: int
    handled_seq: int


class _Feed(NamedTuple):
    """A row of ``get_feed``: the event before which a subscriber of all jobs began, and the last it has looked at."""

    start_event: int
    event: int


class _FollowRows(NamedTuple):
    """A result as it was read. The payloads are parsed when the lock is given back: they may be large."""

    rows: list[Row]
    ended: JobStatus | None
    after: int

    def result(self) -> FollowResult:
        return FollowResult(tuple(map(event_from_row, self.rows)), self.ended, self.after)


class SubscriptionVerbs(VerbGroup):
    """Verbs of subscribers that read the database itself."""

    @verb
    def follow(
        self, job_id: str, *, subscriber: str, start: str, limit: int, include_events: bool = True
    ) -> FollowResult:
        """Accept a job's recorded events for a subscriber; return those that are not handled, in order.

        With ``include_events`` false it returns none, however many it accepts.
        """
        if (result := self._poll_without_lock(job_id, subscriber)) is not None:
            return result
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            found = _follow(tx, job_id, subscriber, start, limit, start_event=None, include_events=include_events)
        return found.result()

    def _poll_without_lock(self, job_id: str, subscriber: str) -> FollowResult | None:
        """Look without the write lock; return None where it is needed.

        A job's news must not cost every follower of another job a transaction.
        """
        with self.store.read() as tx:
            state = _require_state(tx, job_id, subscriber)
            if state.subscription is None or tx.one(
                SUBSCRIPTIONS.follow_events,
                job_id=job_id,
                subscription=state.subscription,
                after=state.handled_seq,
                limit=1,
            ):
                return None
        self.store.sync()
        status = JobStatus(state.status)
        return FollowResult((), status if status.terminal else None)

    @verb
    def mark_handled(self, job_id: str, *, subscriber: str, seq: int, after: int | None = None) -> None:
        """Note that the handler is done with everything up to ``seq``.

        ``after`` is the seq that was handed out before it. If one up to there or between the two was accepted late
        meanwhile, nothing is noted: the handler has not seen that one and gets all from there again. None: no event
        is ever accepted late for this subscriber (window 0).
        """
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            tx.run(SUBSCRIPTIONS.mark_handled, job_id=job_id, subscriber=subscriber, seq=seq, after=after)

    @verb
    def subscriptions(self, *, job_id: str | None, subscriber: str | None, limit: int) -> list[Subscription]:
        """Return each subscriber's numbers, oldest subscription first."""
        with self.store.read() as tx:
            rows = tx.all(SUBSCRIPTIONS.list_subscriptions, job_id=job_id, subscriber=subscriber, limit=limit)
        return [_subscription(row) for row in rows]

    # -- all jobs

    @verb
    def open_feed(self, subscriber: str, *, start: str) -> list[str]:
        """Begin or resume following all jobs; return the jobs with events that were accepted and not handled."""
        stable = self.store.stable_events()
        with self.store.write() as tx:
            newest = tx.one(SUBSCRIPTIONS.newest_event)
            assert newest is not None
            start_event = min(newest[0], stable.event_id) if start == "now" else 0
            tx.run(SUBSCRIPTIONS.insert_feed, subscriber=subscriber, start_event=start_event)
            return [job_id for (job_id,) in tx.all(SUBSCRIPTIONS.unhandled_jobs, subscriber=subscriber, limit=_ALL)]

    @verb
    def poll_feed(self, subscriber: str, *, after: int | None, limit: int) -> FeedPage:
        """Return the jobs that have events after one; None: after the last that the subscriber has looked at."""
        stable = self.store.stable_events()
        with self.store.read() as tx:
            after = _require_feed(tx, subscriber).event if after is None else after
            rows = tx.all(SUBSCRIPTIONS.feed_page, after=after, stable_event_id=stable.event_id, limit=limit)
        job_ids = list(dict.fromkeys(job_id for _event, job_id, _recorded_ms in rows))
        last_event = rows[-1][0] if rows else after
        return FeedPage(job_ids, last_event, stable.recheck_sec)

    @verb
    def follow_in_feed(self, job_id: str, *, subscriber: str, limit: int, include_events: bool = True) -> FollowResult:
        """Follow a job as a subscriber of all jobs."""
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            start_event = _require_feed(tx, subscriber).start_event
            found = _follow(
                tx, job_id, subscriber, "beginning", limit, start_event=start_event, include_events=include_events
            )
        return found.result()

    @verb
    def advance_feed(self, subscriber: str, *, event: int) -> None:
        """Note how far a subscriber of all jobs has looked."""
        with self.store.write() as tx:
            tx.run(SUBSCRIPTIONS.advance_feed, subscriber=subscriber, event=event)


def _follow(
    tx: Transaction,
    job_id: str,
    subscriber: str,
    start: str,
    limit: int,
    start_event: int | None,
    include_events: bool,
) -> _FollowRows:
    state = _require_state(tx, job_id, subscriber)
    subscription, last_seq, handled_seq = state.subscription, state.last_seq, state.handled_seq
    if subscription is None:
        start_seq = _start_seq(tx, state, start, start_event)
        made = tx.one(
            ACCEPT.insert_subscription, job=state.job, subscriber=subscriber, start_seq=start_seq, now=tx.now_ms
        )
        assert made is not None
        subscription, last_seq, handled_seq = int(made[0]), start_seq, start_seq
    statement = SUBSCRIPTIONS.follow_events if include_events else SUBSCRIPTIONS.follow_seqs
    rows = tx.all(statement, job_id=job_id, subscription=subscription, after=handled_seq, limit=limit)
    _accept_recorded(tx, subscription, last_seq, [seq for _job_id, seq, *_event in rows])
    final = JobStatus(state.status)
    return _FollowRows(rows if include_events else [], final if final.terminal and not rows else None, handled_seq)


def _accept_recorded(tx: Transaction, subscription: int, last_seq: int, seqs: list[int]) -> None:
    """Advance over recorded events: they were verified or signed here when they were recorded."""
    expected = last_seq + 1
    for seq in seqs:
        if seq < expected:
            continue
        if seq > expected:
            tx.run(ACCEPT.insert_gap, subscription=subscription, first_seq=expected, last_seq=seq - 1)
        expected = seq + 1
    if expected > last_seq + 1:
        tx.run(ACCEPT.advance_subscription, subscription=subscription, seq=expected - 1, now=tx.now_ms)


def _require_state(tx: Transaction, job_id: str, subscriber: str) -> _SubscriptionState:
    row = tx.one(SUBSCRIPTIONS.subscription_state, job_id=job_id, subscriber=subscriber)
    if row is None:
        raise UnknownJob(job_id)
    return _SubscriptionState._make(row)


def _require_feed(tx: Transaction, subscriber: str) -> _Feed:
    row = tx.one(SUBSCRIPTIONS.get_feed, subscriber=subscriber)
    assert row is not None  # open_feed comes first
    return _Feed._make(row)


def _start_seq(tx: Transaction, state: _SubscriptionState, start: str, start_event: int | None) -> int:
    """Return after which seq a new subscriber of a job begins."""
    if start_event:
        row = tx.one(SUBSCRIPTIONS.seq_at_event, job=state.job, event=start_event)
        assert row is not None
        return int(row[0])
    return state.job_last_seq if start == "now" else 0


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
