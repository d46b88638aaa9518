"""Following events in the database itself, without a broker: the iterators behind ``Registry.subscribe``.

Each step accepts what is new for the subscriber in one transaction and then hands it out from the database, so a
restart goes on where the handler was. Waiting costs next to nothing: SQLite's data_version, PostgreSQL's NOTIFY.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..errors import TimedOut, UnknownJob

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..engines.sql.engine import Engine
    from ..engines.sql.following import FollowResult
    from ..model import Event, Job

    # An event to hand out, and the handled_seq that it follows.
    _Step = tuple[Event, int]

_PAGE_SIZE = 100
_MAX_WAIT_SEC = 60.0


class WaitLimits:
    """The time limits of one wait: for the whole, and from event to event."""

    def __init__(self, subject: str, timeout_sec: float | None, idle_timeout_sec: float | None) -> None:
        self._subject = subject
        self._timeout_sec = timeout_sec
        self._idle_timeout_sec = idle_timeout_sec
        self._began = self._idle_since = time.monotonic()

    def reset_idle(self) -> None:
        """An event was received: the idle time begins anew."""
        self._idle_since = time.monotonic()

    def check_total(self) -> None:
        """Called before an event is handed out: a job that never falls silent must not outlast the limit.

        Raises:
            TimedOut: the limit for the whole is over.
        """
        if self._timeout_sec is not None and time.monotonic() - self._began >= self._timeout_sec:
            raise self._timed_out(self._timeout_sec, "in all")

    def _timed_out(self, limit: float, word: str) -> TimedOut:
        return TimedOut(f"{self._subject}: {limit:g} s {word} are over; subscribe again to go on")

    def left(self) -> float:
        """How long to wait at most, in seconds.

        Raises:
            TimedOut: a limit is over.
        """
        now, left = time.monotonic(), _MAX_WAIT_SEC
        for limit, since, word in (
            (self._timeout_sec, self._began, "in all"),
            (self._idle_timeout_sec, self._idle_since, "without an event"),
        ):
            if limit is None:
                continue
            if now - since >= limit:
                raise self._timed_out(limit, word)
            left = min(left, limit - (now - since))
        return left


class Follower:
    """An iterator over events, each handed out at least once and marked as handled when the next is requested.

    Attributes:
        subscriber: the name of the subscriber.
        outcome: the job, once following one job has come to its end; None before, and when following all jobs.

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

    def __init__(self, engine: Engine, subscriber: str, steps: Iterator[_Step]) -> None:
        self._engine = engine
        self._steps = steps
        self.subscriber = subscriber
        self.outcome: Job | None = None
        self._unhandled: _Step | None = None

    def __iter__(self) -> Follower:
        return self

    def __next__(self) -> Event:
        self.handled()
        self._unhandled = next(self._steps)
        return self._unhandled[0]

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


def with_previous_seq(events: Iterable[Event], after: int) -> Iterator[tuple[Event, int]]:
    """Each event with the seq that was handed out before it; ``after`` is the one before the first."""
    for event in events:
        yield event, after
        after = event.seq


def follow_job(
    engine: Engine,
    job_id: str,
    subscriber: str,
    start: str,
    timeout_sec: float | None,
    idle_timeout_sec: float | None,
) -> Follower:
    """One job's events, until the job has ended and all are handled."""
    engine.get(job_id)
    limits = WaitLimits(f"job {job_id}", timeout_sec, idle_timeout_sec)

    def steps() -> Iterator[_Step]:
        while True:
            seen = engine.store.data_version()
            followed = engine.follow(job_id, subscriber=subscriber, start=start, limit=_PAGE_SIZE)
            for step in with_previous_seq(followed.events, followed.after):
                limits.check_total()
                limits.reset_idle()
                yield step
            if followed.ended is not None:
                follower.outcome = engine.get(job_id)
                return
            if not followed.events:
                engine.store.wait_for_change(seen, limits.left())

    follower = Follower(engine, subscriber, steps())
    return follower


def follow_all(
    engine: Engine, subscriber: str, start: str, timeout_sec: float | None, idle_timeout_sec: float | None
) -> Follower:
    """All jobs' events, in order for each job."""
    limits = WaitLimits("all jobs", timeout_sec, idle_timeout_sec)
    unhandled = engine.open_feed(subscriber, start=start)

    def steps() -> Iterator[_Step]:
        for job_id in unhandled:
            yield from one_job(job_id)
        while True:
            seen = engine.store.data_version()
            page = engine.poll_feed(subscriber, after=None, limit=1000)
            for job_id in page.job_ids:
                yield from one_job(job_id)
            if page.job_ids:
                engine.advance_feed(subscriber, event=page.last_event)
            else:
                engine.store.wait_for_change(seen, min(limits.left(), page.recheck_sec))

    def one_job(job_id: str) -> Iterator[_Step]:
        while (followed := look(job_id)) is not None and followed.events:
            for step in with_previous_seq(followed.events, followed.after):
                limits.check_total()
                limits.reset_idle()
                yield step

    def look(job_id: str) -> FollowResult | None:
        try:
            return engine.follow_in_feed(job_id, subscriber=subscriber, limit=_PAGE_SIZE)
        except UnknownJob:
            return None  # pruned since we learned of it

    return Follower(engine, subscriber, steps())
