"""Following events: the iterator that yields them, and its source in the database.

``Registry.subscribe`` returns a ``Follower``; for a broker, ``jobdb.mqtt.subscribe`` returns a subclass. The class
implements what both share: the time limits, which event counts as handled, and the outcome. The source of the events
is a generator of steps: here :func:`job_steps` and :func:`feed_steps`, which accept new events in one transaction and
yield them from the database, so that a restart continues where the handler stopped. Waiting is cheap: it uses SQLite's
data_version or PostgreSQL's NOTIFY. Called by the registry, by the asyncio face, which waits in its own way
(:func:`advance_follower`), and by ``mqtt/subscriber.py``; calls the engine.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from ..errors import TimedOut, UnknownJob
from .waiting import WaitForChange

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from ..engines.sql.engine import Engine
    from ..engines.sql.following import FollowResult
    from ..model import Event, Job

    # An event to yield, and the seq that was yielded before it.
    Step = tuple[Event, int]
    # The generator for one job returns the job once it has ended. It never waits itself.
    Steps = Generator[Step | WaitForChange, None, Job | None]

PAGE_SIZE = 100
_MAX_WAIT_SEC = 60.0


class WaitLimits:
    """The time limits of one iteration: in total, and between events.

    Args:
        subject: the name of what is followed, for the error message.
        timeout_sec: the total limit, in seconds; None: no limit.
        idle_timeout_sec: the limit between events, in seconds; None: no limit.
    """

    def __init__(self, subject: str, timeout_sec: float | None, idle_timeout_sec: float | None) -> None:
        self._subject = subject
        self._timeout_sec = timeout_sec
        self._idle_timeout_sec = idle_timeout_sec
        self._began = self._idle_since = time.monotonic()

    def reset_idle(self) -> None:
        """Restart the idle time: an event was received."""
        self._idle_since = time.monotonic()

    def check_total(self) -> None:
        """Check the total limit before an event is yielded: a job that is never idle must not exceed it.

        Raises:
            TimedOut: the total limit was reached.
        """
        if self._timeout_sec is not None and time.monotonic() - self._began >= self._timeout_sec:
            raise self._timed_out(self._timeout_sec, "in all")

    def remaining_sec(self) -> float:
        """Return the maximum time to wait, in seconds.

        Raises:
            TimedOut: a limit was reached.
        """
        now, remaining = time.monotonic(), _MAX_WAIT_SEC
        for limit, since, word in (
            (self._timeout_sec, self._began, "in all"),
            (self._idle_timeout_sec, self._idle_since, "without an event"),
        ):
            if limit is None:
                continue
            if now - since >= limit:
                raise self._timed_out(limit, word)
            remaining = min(remaining, limit - (now - since))
        return remaining

    def _timed_out(self, limit: float, word: str) -> TimedOut:
        return TimedOut(f"{self._subject}: {limit:g} s {word} are over", advice="subscribe again to continue")


class Follower:
    """An iterator over events, each yielded at least once and marked as handled when the next is requested.

    Args:
        engine: records what is handled.
        subscriber: the observer's name.
        steps: the source of the events.
        limits: the time limits.

    Attributes:
        subscriber: the observer's name.
        outcome: the job, once its iteration has ended; None before that, and when following all jobs.

    Example:
        >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
        >>> event = registry.complete("sort-1")
        >>> follower = registry.subscribe("sort-1", subscriber="orchestrator", timeout_sec=10)
        >>> for event in follower:
        ...     print(event.seq, event.event)
        1 completed
        >>> follower.outcome.status
        <JobStatus.COMPLETED: 'completed'>
    """

    def __init__(self, engine: Engine, subscriber: str, steps: Steps, limits: WaitLimits) -> None:
        self._engine = engine
        self._steps = steps
        self._limits = limits
        self._unhandled: Step | None = None
        self.subscriber = subscriber
        self.outcome: Job | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        """Mark the last event as handled and return the next.

        Raises:
            TimedOut: a limit was reached. An event that has arrived meanwhile is not yielded and stays unhandled.
        """
        while isinstance(found := self._advance(), WaitForChange):
            self._engine.store.wait_for_change(found.seen, found.timeout_sec)
        if found is None:
            raise StopIteration
        return found

    def _advance(self) -> Event | WaitForChange | None:
        self.handled()
        try:
            step = next(self._steps)
        except StopIteration as end:
            self.outcome = self.outcome or end.value
            return None
        if isinstance(step, WaitForChange):
            return step
        self._limits.check_total()
        self._limits.reset_idle()
        self._unhandled = step
        event, _before = step
        return event

    def handled(self) -> None:
        """Mark the last event as handled without requesting the next.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> event = registry.publish("sort-1", "progress")
            >>> follower = registry.subscribe("sort-1", subscriber="orchestrator", timeout_sec=10)
            >>> event = next(follower)
            >>> follower.handled()
            >>> registry.subscriptions()[0].handled_seq
            1
        """
        if self._unhandled is not None:
            event, after = self._unhandled
            self._engine.mark_handled(event.job_id, subscriber=self.subscriber, seq=event.seq, after=after)
            self._unhandled = None


def advance_follower(follower: Follower) -> Event | WaitForChange | None:
    """Mark the last event as handled, and go one step: return the next event, or how long to wait, or None at the end.

    Raises:
        TimedOut: a limit was reached.
    """
    return follower._advance()


def with_previous_seq(events: Iterable[Event], after: int) -> Iterator[Step]:
    """Yield each event with the seq that was yielded before it.

    The pair shows whether an event between the two was accepted late meanwhile; if so, all events from there on are
    yielded again.

    Args:
        events: a job's events, in order.
        after: the seq before the first event.
    """
    for event in events:
        yield event, after
        after = event.seq


def job_steps(engine: Engine, job_id: str, *, subscriber: str, start: str, limits: WaitLimits) -> Steps:
    """Yield one job's events from the database; return the job once it has ended and all are yielded."""
    while True:
        seen = engine.store.data_version()
        followed = engine.follow(job_id, subscriber=subscriber, start=start, limit=PAGE_SIZE)
        yield from with_previous_seq(followed.events, followed.after)
        if followed.ended is not None:
            return engine.get(job_id)
        if not followed.events:
            yield WaitForChange(seen, limits.remaining_sec())


def feed_steps(engine: Engine, unhandled: Iterable[str], *, subscriber: str, limits: WaitLimits) -> Steps:
    """Yield the events of all jobs from the database, in order per job, without end.

    Args:
        engine: the registry's engine.
        unhandled: the jobs to begin with: those with events that were accepted but not handled.
        subscriber: the observer's name.
        limits: the time limits.
    """

    def steps_of(job_id: str) -> Iterator[Step]:
        while (followed := follow(job_id)) is not None and followed.events:
            yield from with_previous_seq(followed.events, followed.after)

    def follow(job_id: str) -> FollowResult | None:
        try:
            return engine.follow_in_feed(job_id, subscriber=subscriber, limit=PAGE_SIZE)
        except UnknownJob:
            return None  # the job was pruned meanwhile

    for job_id in unhandled:
        yield from steps_of(job_id)
    while True:
        seen = engine.store.data_version()
        page = engine.poll_feed(subscriber, after=None, limit=1000)
        for job_id in page.job_ids:
            yield from steps_of(job_id)
        if page.job_ids:
            engine.advance_feed(subscriber, event=page.last_event)
        else:
            yield WaitForChange(seen, min(limits.remaining_sec(), page.recheck_sec))


def follow_job(
    engine: Engine,
    job_id: str,
    subscriber: str,
    start: str,
    timeout_sec: float | None,
    idle_timeout_sec: float | None,
) -> Follower:
    """Follow one job's events in the database until the job has ended and all are handled.

    Raises:
        UnknownJob: there is no job with that id.
    """
    engine.get(job_id)
    limits = WaitLimits(f"job {job_id}", timeout_sec, idle_timeout_sec)
    steps = job_steps(engine, job_id, subscriber=subscriber, start=start, limits=limits)
    return Follower(engine, subscriber, steps, limits)


def follow_all(
    engine: Engine, subscriber: str, start: str, timeout_sec: float | None, idle_timeout_sec: float | None
) -> Follower:
    """Follow the events of all jobs in the database, in order per job."""
    limits = WaitLimits("all jobs", timeout_sec, idle_timeout_sec)
    unhandled = engine.open_feed(subscriber, start=start)
    return Follower(engine, subscriber, feed_steps(engine, unhandled, subscriber=subscriber, limits=limits), limits)
