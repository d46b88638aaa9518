"""The following of recorded events: a subscriber accepts them, and receives those that it has not handled.

Called by the subscription verbs. The events were signed or verified when they were recorded in this database, so they
are not verified again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...errors import UnknownJob
from ...model import JobStatus
from .rows import event_from_row
from .statements import ACCEPT, SUBSCRIPTIONS

if TYPE_CHECKING:
    from ...model import Event
    from ..store import Row, Store, Transaction


class FollowResult(NamedTuple):
    """The events of a followed job that remain to be handled, and whether the job has ended.

    Attributes:
        events: the events, in order.
        ended: the job's final status if no event is left to handle and none can follow; None otherwise.
        after: the seq (handled_seq) after which the events begin.
    """

    events: tuple[Event, ...]
    ended: JobStatus | None
    after: int = 0


class FeedPage(NamedTuple):
    """The jobs that have new events for a subscriber of all jobs.

    Attributes:
        job_ids: the jobs, each once, in the order of their first event.
        last_event: the id (events.id) of the last event that was examined.
        recheck_sec: check again after so many seconds even without a notification; infinite if that is not needed.
    """

    job_ids: list[str]
    last_event: int
    recheck_sec: float


class _SubscriptionState(NamedTuple):
    """A row of ``subscription_state``: a job's status and last seqs, and a subscriber's numbers for it.

    ``subscription`` is None if the subscriber has not begun with the job; its numbers are then meaningless.
    """

    job: int
    status: str
    job_last_seq: int
    terminal_seq: int | None
    subscription: int | None
    start_seq: int
    last_seq: int
    handled_seq: int


class Feed(NamedTuple):
    """A row of ``get_feed``: the event after which a subscriber of all jobs began, and the last one it has examined."""

    start_event: int
    event: int


class FollowRows(NamedTuple):
    """A result whose rows are not parsed yet."""

    rows: list[Row]
    ended: JobStatus | None
    after: int

    def result(self) -> FollowResult:
        """Parse the payloads; called after the lock has been released, since they may be large."""
        return FollowResult(tuple(map(event_from_row, self.rows)), self.ended, self.after)


def poll(store: Store, job_id: str, subscriber: str) -> FollowResult | None:
    """Look for new events without the write lock; return None if there are any, or if the subscriber has yet to begin.

    A new event of one job must not cost every follower of another job a write transaction.

    Raises:
        UnknownJob: there is no job with that id.
    """
    with store.read() as tx:
        state = _require_state(tx, job_id, subscriber)
        if state.subscription is None or tx.one(
            SUBSCRIPTIONS.follow_events,
            job_id=job_id,
            subscription=state.subscription,
            after=state.handled_seq,
            limit=1,
        ):
            return None
    store.sync()
    status = JobStatus(state.status)
    return FollowResult((), status if status.terminal else None)


def follow(
    tx: Transaction,
    job_id: str,
    subscriber: str,
    start: str,
    limit: int,
    start_event: int | None,
    include_events: bool,
) -> FollowRows:
    """Accept a job's recorded events for a subscriber.

    Args:
        tx: the transaction; the job is locked.
        job_id: the job.
        subscriber: the subscriber.
        start: where a new subscriber begins: "beginning" or "now".
        limit: the maximum number of events.
        start_event: the event (events.id) after which a new subscriber begins instead; None or 0 for no such event.
        include_events: also return the events.

    Raises:
        UnknownJob: there is no job with that id.
    """
    state = _require_state(tx, job_id, subscriber)
    subscription, last_seq, handled_seq = state.subscription, state.last_seq, state.handled_seq
    if subscription is None:
        start_seq = _start_seq(tx, state, start, start_event)
        inserted = tx.one(
            ACCEPT.insert_subscription, job=state.job, subscriber=subscriber, start_seq=start_seq, now=tx.now_ms
        )
        assert inserted is not None
        subscription, last_seq, handled_seq = int(inserted[0]), start_seq, start_seq
    statement = SUBSCRIPTIONS.follow_events if include_events else SUBSCRIPTIONS.follow_seqs
    rows = tx.all(statement, job_id=job_id, subscription=subscription, after=handled_seq, limit=limit)
    _accept_recorded(tx, subscription, last_seq, [seq for _job_id, seq, *_event in rows])
    final = JobStatus(state.status)
    return FollowRows(rows if include_events else [], final if final.terminal and not rows else None, handled_seq)


def _accept_recorded(tx: Transaction, subscription: int, last_seq: int, seqs: list[int]) -> None:
    """Record that a subscriber has accepted these seqs, and the gaps between them."""
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


def require_feed(tx: Transaction, subscriber: str) -> Feed:
    """Read how far a subscriber of all jobs has come."""
    row = tx.one(SUBSCRIPTIONS.get_feed, subscriber=subscriber)
    assert row is not None  # open_feed comes first
    return Feed._make(row)


def _start_seq(tx: Transaction, state: _SubscriptionState, start: str, start_event: int | None) -> int:
    """Return the seq after which a new subscriber of a job begins."""
    if start_event:
        row = tx.one(SUBSCRIPTIONS.seq_at_event, job=state.job, event=start_event)
        assert row is not None
        return int(row[0])
    return state.job_last_seq if start == "now" else 0
