"""The verbs of :class:`Registry` for subscribers: accept wire events, follow jobs, and list refusals.

Called by applications and by every command that accepts or follows events, as methods of an open registry; they check
their arguments and call the engine or ``follower``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import model
from ..core import arguments
from ..system.descriptor_shortage import translate_shortage
from .base import RegistryBase

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..model import Acceptance, Arrival, Page, Refusal, StartPoint, Subscription, Verdict
    from .follower import Follower

_NEWEST = 2**62


class SubscriberVerbs(RegistryBase):
    """The verbs for subscribers."""

    def accept(
        self,
        payload: bytes | str | Mapping[str, Any],
        *,
        subscriber: str,
        topic: str | None = None,
        window: int = 0,
        start: StartPoint = "beginning",
    ) -> Acceptance:
        """Accept one wire event: verify it, check it for replay, record it and apply it to its job.

        The content of a payload never raises an error: the verdict says what is wrong with it.

        Args:
            payload: the payload as received.
            subscriber: the name of the subscriber against whose ``last_seq`` it is checked.
            topic: the MQTT topic that it arrived on, to be compared with the job's.
            window: how many seqs behind a skipped event may be and still be accepted late, once (RFC 6479); 0 means
                strictly monotonic.
            start: where a subscriber that is new to the job begins: "beginning", or "now", which is after the events
                that are recorded when its first authentic event arrives. If events are recorded here before they are
                sent, that first one is refused; to begin earlier, call ``subscribe`` with ``start="now"`` before.

        Returns:
            The verdict, with the event and the skipped seqs. Every verdict is durable.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> event = registry.publish("sort-1", "progress", detail="step 1")
            >>> registry.accept(event.payload, subscriber="orchestrator").verdict
            <Verdict.ACCEPTED: 'accepted'>
            >>> again = registry.accept(event.payload, subscriber="orchestrator")
            >>> again.verdict, again.reason
            (<Verdict.DUPLICATE: 'duplicate'>, 'seq 1 was accepted before')
        """
        return self.accept_many([model.Arrival(payload, topic)], subscriber=subscriber, window=window, start=start)[0]

    @translate_shortage
    def accept_many(
        self,
        arrivals: Iterable[Arrival | bytes | str | Mapping[str, Any]],
        *,
        subscriber: str,
        window: int = 0,
        start: StartPoint = "beginning",
    ) -> list[Acceptance]:
        """Accept several wire events in one transaction.

        Args:
            arrivals: payloads, or :class:`Arrival` objects, which add the topic.
            subscriber: as for :meth:`accept`.
            window: as for :meth:`accept`.
            start: as for :meth:`accept`.

        Returns:
            A verdict for each arrival, in the order given.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> event = registry.publish("sort-1", "progress")
            >>> answers = registry.accept_many([Arrival(event.payload, job.topic), b"{}"], subscriber="orchestrator")
            >>> [answer.verdict.value for answer in answers]
            ['accepted', 'malformed']
        """
        given = arguments.items("arrivals", arrivals, of="payloads")
        batch = [item if isinstance(item, model.Arrival) else model.Arrival(item) for item in given]
        subscriber = arguments.text("subscriber", subscriber, most=256)
        window = arguments.integer("window", window, least=0, most=arguments.MAX_WINDOW)
        start = arguments.start(start)
        if not batch:
            return []
        return self.engine.accept(batch, subscriber=subscriber, window=window, start=start)

    @translate_shortage
    def subscribe(
        self,
        job_id: str | None = None,
        *,
        subscriber: str,
        start: StartPoint = "beginning",
        timeout_sec: float | None = None,
        idle_timeout_sec: float | None = None,
    ) -> Follower:
        """Iterate over events as they are recorded; each is accepted once and handled at least once.

        An event counts as handled when the next one is requested. After a restart, events that were accepted but not
        handled come first. The iteration over one job ends when the job has ended and all its events are handled; its
        ``outcome`` is then the job.

        Args:
            job_id: the id of the job; None for all jobs, an iteration that only a timeout or the caller ends.
            subscriber: the name of the subscriber, under which its position is stored.
            start: where a new subscriber begins: "beginning", or "now", which is after the events already recorded.
            timeout_sec: the maximum time for the whole iteration, in seconds; no limit if None.
            idle_timeout_sec: the maximum time between two events, in seconds; no limit if None.

        Raises:
            UnknownJob: there is no job with that id.
            TimedOut: during the iteration, when a limit is reached.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> events = registry.publish("sort-1", "progress"), registry.complete("sort-1")
            >>> follower = registry.subscribe("sort-1", subscriber="orchestrator", timeout_sec=10)
            >>> [event.event.value for event in follower]
            ['progress', 'completed']
            >>> follower.outcome.status
            <JobStatus.COMPLETED: 'completed'>
        """
        from .follower import follow_all, follow_job

        subscriber = arguments.text("subscriber", subscriber, most=256)
        start = arguments.start(start)
        timeout_sec = arguments.limit_sec("timeout_sec", timeout_sec)
        idle_timeout_sec = arguments.limit_sec("idle_timeout_sec", idle_timeout_sec)
        if job_id is None:
            return follow_all(self.engine, subscriber, start, timeout_sec, idle_timeout_sec)
        return follow_job(self.engine, arguments.job_id(job_id), subscriber, start, timeout_sec, idle_timeout_sec)

    @translate_shortage
    def subscriptions(
        self, *, job_id: str | None = None, subscriber: str | None = None, limit: int = 1000
    ) -> Page[Subscription, None]:
        """Return the positions of subscribers, oldest subscription first.

        Args:
            job_id: only positions in this job.
            subscriber: only positions of this subscriber.
            limit: the maximum number to return, 1 to 10,000.

        Returns:
            One page; if it ``has_more``, raise ``limit``, or name the job or the subscriber.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> event = registry.publish("sort-1", "progress")
            >>> answer = registry.accept(event.payload, subscriber="orchestrator")
            >>> [(each.subscriber, each.job_id, each.last_seq) for each in registry.subscriptions()]
            [('orchestrator', 'sort-1', 1)]
        """
        limit = arguments.page_limit(limit)
        job_id = arguments.optional_job_id(job_id)
        subscriber = arguments.optional_text("subscriber", subscriber, most=256)
        found = self.engine.subscriptions(job_id=job_id, subscriber=subscriber, limit=limit + 1)
        return model.cut_page(found, limit)

    @translate_shortage
    def refusals(self, *, job_id: str | None = None, after: int | None = None, limit: int = 100) -> Page[Refusal, int]:
        """Return one page of the authentic events that were refused, newest first.

        The latest 64 per job are kept, and at most 10,000 in total.

        Args:
            job_id: only refusals for this job.
            after: the ``next_after`` of the previous page: the number of its last refusal.
            limit: the length of the page, 1 to 10,000.

        Returns:
            The page; see its ``has_more`` and ``next_after`` for the next one.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> first, second = registry.publish("sort-1", "started"), registry.publish("sort-1", "progress")
            >>> answers = registry.accept_many([second.payload, first.payload], subscriber="orchestrator")
            >>> [(refusal.seq, refusal.verdict.value) for refusal in registry.refusals()]
            [(1, 'replayed')]
        """
        limit = arguments.page_limit(limit)
        job_id = arguments.optional_job_id(job_id)
        below = _NEWEST if after is None else arguments.integer("after", after, least=0, most=_NEWEST)
        found = self.engine.refusals(job_id=job_id, below=below, limit=limit + 1)
        return model.cut_page(found, limit, cursor=_number_of)

    @translate_shortage
    def verdict_counts(self, job_id: str | None = None) -> dict[Verdict, int]:
        """Return how often each refusing verdict was given.

        Args:
            job_id: count for this job only; None counts for all jobs and for payloads that name no job.

        Example:
            >>> answer = registry.accept(b"not JSON", subscriber="orchestrator")
            >>> registry.verdict_counts()
            {<Verdict.MALFORMED: 'malformed'>: 1}
        """
        return self.engine.verdict_counts(arguments.optional_job_id(job_id))


def _number_of(refusal: Refusal) -> int:
    return refusal.number
