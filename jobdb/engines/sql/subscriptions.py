"""The verbs for subscribers that read the database: follow one job or all jobs, and record which events were handled.

Called by the registry's ``subscribers.py`` and by subscribers at a broker, through the engine. Calls only the store
and ``following``.

There are two numbers per subscriber and job: ``last_seq`` (accepted) and ``handled_seq`` (processed by its handler).
The events between them are delivered again after a restart. The transactions are in ``following``, which is imported on
the first call: publishing does not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import model
from ...model import JobStatus, from_ms
from ..verbs import verb
from .statements import SUBSCRIPTIONS
from .verb_group import VerbGroup

if TYPE_CHECKING:
    from ...model import Subscription
    from ..store import Row
    from .following import FeedPage, FollowResult

_NO_LIMIT = 2**31 - 1


class SubscriptionVerbs(VerbGroup):
    """The verbs for subscribers that read the database."""

    @verb
    def follow(
        self, job_id: str, *, subscriber: str, start: str, limit: int, include_events: bool = True
    ) -> FollowResult:
        """Accept a job's recorded events for a subscriber; return those not handled yet, in order.

        If ``include_events`` is false, no events are returned, however many are accepted.
        """
        from .following import follow, poll

        if (result := poll(self.store, job_id, subscriber)) is not None:
            return result
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            found = follow(tx, job_id, subscriber, start, limit, start_event=None, include_events=include_events)
        return found.result()

    @verb
    def mark_handled(self, job_id: str, *, subscriber: str, seq: int, after: int | None = None) -> None:
        """Record that the handler has processed everything up to ``seq``.

        ``after`` is the seq that was delivered before it. If a late event with a seq up to ``after``, or between the
        two, has been accepted meanwhile, nothing is recorded: the handler has not seen that event, and everything from
        there on is delivered again. None: no event is ever accepted late for this subscriber (window 0).
        """
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            tx.run(SUBSCRIPTIONS.mark_handled, job_id=job_id, subscriber=subscriber, seq=seq, after=after)

    @verb
    def subscriptions(self, *, job_id: str | None, subscriber: str | None, limit: int) -> list[Subscription]:
        """Return the subscriptions with their numbers, oldest first."""
        with self.store.read() as tx:
            rows = tx.all(SUBSCRIPTIONS.list_subscriptions, job_id=job_id, subscriber=subscriber, limit=limit)
        return [_subscription(row) for row in rows]

    # -- all jobs

    @verb
    def open_feed(self, subscriber: str, *, start: str) -> list[str]:
        """Begin or resume following all jobs; return the jobs that have accepted but unhandled events."""
        stable = self.store.stable_events()
        with self.store.write() as tx:
            newest = tx.one(SUBSCRIPTIONS.newest_event)
            assert newest is not None
            start_event = min(newest[0], stable.event_id) if start == "now" else 0
            tx.run(SUBSCRIPTIONS.insert_feed, subscriber=subscriber, start_event=start_event)
            return [
                job_id for (job_id,) in tx.all(SUBSCRIPTIONS.unhandled_jobs, subscriber=subscriber, limit=_NO_LIMIT)
            ]

    @verb
    def poll_feed(self, subscriber: str, *, after: int | None, limit: int) -> FeedPage:
        """Return the jobs with events after the event ``after``; None stands for the last one that was examined."""
        from .following import FeedPage, require_feed

        stable = self.store.stable_events()
        with self.store.read() as tx:
            after = require_feed(tx, subscriber).event if after is None else after
            rows = tx.all(SUBSCRIPTIONS.feed_page, after=after, stable_event_id=stable.event_id, limit=limit)
        job_ids = list(dict.fromkeys(job_id for _event, job_id, _recorded_ms in rows))
        last_event = rows[-1][0] if rows else after
        return FeedPage(job_ids, last_event, stable.recheck_sec)

    @verb
    def follow_in_feed(self, job_id: str, *, subscriber: str, limit: int, include_events: bool = True) -> FollowResult:
        """Follow a job as a subscriber of all jobs."""
        from .following import follow, require_feed

        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            start_event = require_feed(tx, subscriber).start_event
            found = follow(
                tx, job_id, subscriber, "beginning", limit, start_event=start_event, include_events=include_events
            )
        return found.result()

    @verb
    def advance_feed(self, subscriber: str, *, event: int) -> None:
        """Record how far a subscriber of all jobs has come."""
        with self.store.write() as tx:
            tx.run(SUBSCRIPTIONS.advance_feed, subscriber=subscriber, event=event)


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
