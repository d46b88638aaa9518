"""Following events over a broker: the iterator behind ``jobdb subscribe --subscriber NAME --from-broker``.

It is used like the one that follows the database (:meth:`jobdb.Registry.subscribe`), whose class it extends: each event
is accepted once and handled at least once, an event counts as handled when the next is requested, and after a restart
events that were accepted but not handled come first. The consumer's thread accepts events; this iterator yields the
accepted events from the database. One job's iteration ends with the job, even if nothing on the broker says so (a
cancellation has no event). Called by the command line and by applications.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..core import arguments
from ..engines.identity import require_place
from ..engines.sql.rows import event_from_row
from ..registry.follower import PAGE_SIZE, Follower, WaitLimits, job_steps, with_previous_seq
from ..registry.waiting import WaitForChange
from .backfill import read_cursor
from .consumer import GRACE_SEC, BrokerConsumer
from .statements import SUBSCRIBER

if TYPE_CHECKING:
    from ..engines.sql.engine import Engine
    from ..model import Acceptance
    from ..registry import Registry
    from ..registry.follower import Step, Steps
    from .reporting import ReportCallback
    from .settings import BrokerSettings

DEFAULT_FILTERS = ("jobdb/jobs/+/events",)
SESSION_SEC = 7 * 86_400
_POLL_INTERVAL_SEC = 1.0


class BrokerFollower(Follower):
    """An iterator over events from a broker; close it, or use it in a ``with`` block.

    Args:
        engine: the registry's engine.
        consumer: accepts events from the broker.
        subscriber: the name of the subscriber.
        steps: the source of the events.
        limits: the time limits.

    Attributes:
        subscriber: the name of the subscriber.
        outcome: the job, once its iteration has ended; None before that, and when following all jobs.
    """

    def __init__(
        self, engine: Engine, consumer: BrokerConsumer, *, subscriber: str, steps: Steps, limits: WaitLimits
    ) -> None:
        super().__init__(engine, subscriber, steps, limits)
        self._consumer = consumer

    def close(self) -> None:
        """End the connection. The broker keeps messages that arrive meanwhile, unless the job has ended."""
        self._consumer.stop(forget_session=self.outcome is not None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _accepted_steps(engine: Engine, job_id: str, subscriber: str) -> Iterator[Step]:
    """Yield a job's accepted but unhandled events, in order, until there are no more."""
    while True:
        with engine.store.read() as tx:
            cursor = read_cursor(tx, job_id, subscriber)
            rows = tx.all(SUBSCRIBER.accepted_unhandled, job_id=job_id, subscriber=subscriber, after=0, limit=PAGE_SIZE)
        if not rows or cursor is None or cursor.handled_seq is None:
            return
        engine.store.sync()
        yield from with_previous_seq([event_from_row(row) for row in rows], cursor.handled_seq)


def _job_steps(engine: Engine, consumer: BrokerConsumer, job_id: str, subscriber: str, limits: WaitLimits) -> Steps:
    """Yield one job's events as the consumer accepts them; return the job once it has ended and all are yielded."""
    while True:
        seen = engine.store.data_version()
        ended = engine.get(job_id).terminal
        yield from _accepted_steps(engine, job_id, subscriber)
        if ended:
            break
        consumer.raise_failure()
        yield WaitForChange(seen, min(_POLL_INTERVAL_SEC, limits.remaining_sec()))
    # The database knows the outcome: do not wait for events that it has and the broker has not delivered yet.
    return (yield from job_steps(engine, job_id, subscriber=subscriber, start="beginning", limits=limits))


def _all_steps(
    engine: Engine, consumer: BrokerConsumer, unhandled: Iterable[str], subscriber: str, limits: WaitLimits
) -> Steps:
    """Yield the events of all jobs as the consumer accepts them, without end; begin with the jobs in ``unhandled``."""
    for job_id in unhandled:
        yield from _accepted_steps(engine, job_id, subscriber)
    while True:
        ready_job = consumer.next_ready_job(min(_POLL_INTERVAL_SEC, limits.remaining_sec()))
        if ready_job is not None:
            yield from _accepted_steps(engine, ready_job, subscriber)


def subscribe(
    registry: Registry,
    job_id: str | None = None,
    *,
    subscriber: str,
    settings: BrokerSettings,
    filters: Sequence[str] = DEFAULT_FILTERS,
    start: str = "beginning",
    window: int = 0,
    timeout_sec: float | None = None,
    idle_timeout_sec: float | None = None,
    session_sec: int = SESSION_SEC,
    grace_sec: float = GRACE_SEC,
    report: ReportCallback,
    on_accepted: Callable[[Acceptance], None] | None = None,
) -> BrokerFollower:
    """Follow events over a broker, in a session that the broker keeps under the subscriber's name.

    Args:
        registry: the registry with the jobs, their tokens and the subscriber's cursors.
        job_id: the job; all jobs if None.
        subscriber: the name of the subscriber. Two concurrent processes need two names.
        settings: the broker: see :func:`subscriber_settings`.
        filters: for all jobs: topic filters in addition to the topics of the live jobs in this database.
        start: where a new subscriber begins: "beginning" or "now".
        window: how many seqs behind a skipped event may be and still be accepted late, once; 0: strictly monotonic.
        timeout_sec: the maximum time for the whole iteration, in seconds; None: no limit.
        idle_timeout_sec: the maximum time between two events, in seconds, counted from receipt; None: no limit.
        session_sec: how long the broker keeps messages while nobody is connected, in seconds.
        grace_sec: the time in seconds after which events that are recorded here but have not arrived are taken from
            the database.
        report: called with sentences about the connection and about refusals (verdict, job and seq).
        on_accepted: called with each acceptance from the broker, in another thread.

    Returns:
        The iterator, already connecting. Close it, or use it in a ``with`` block.

    Raises:
        UnknownJob: there is no job with that id.
        InvalidInput: an argument is invalid, or paho-mqtt is not installed.
        MovedOrCopied: the database may be a copy, which must not take the original's events.

    Example:
        settings = BrokerSettings("broker.example")
        with subscribe(registry, subscriber="watcher", settings=settings, report=print) as follower:
            for event in follower:
                print(event.job_id, event.seq, event.event)
    """
    from .paho_client import import_paho

    import_paho()
    subscriber = arguments.text("subscriber", subscriber, most=256)
    start = arguments.start(start)
    window = arguments.integer("window", window, least=0, most=1_000_000)
    session_sec = arguments.integer("session_sec", session_sec, least=1, most=2**32 - 2)
    engine = registry.engine
    identity = require_place(engine.store)  # the broker delivers the session to any client with this name
    unhandled: list[str] = []
    if job_id is not None:
        job_id = arguments.job_id(job_id)
        engine.follow(job_id, subscriber=subscriber, start=start, limit=0)
        filters = [engine.get(job_id).topic]
    else:
        unhandled = engine.open_feed(subscriber, start=start)
    limits = WaitLimits("all jobs" if job_id is None else f"job {job_id}", timeout_sec, idle_timeout_sec)
    consumer = BrokerConsumer(
        engine,
        subscriber=subscriber,
        settings=settings,
        client_id=settings.client_id("sub", identity, subscriber, job_id or ""),
        job_id=job_id,
        filters=filters,
        start=start,
        window=window,
        session_sec=session_sec,
        grace_sec=grace_sec,
        report=report,
        on_accepted=on_accepted,
    )
    if job_id is not None:
        steps = _job_steps(engine, consumer, job_id, subscriber, limits)
    else:
        steps = _all_steps(engine, consumer, unhandled, subscriber, limits)
    consumer.start()
    return BrokerFollower(engine, consumer, subscriber=subscriber, steps=steps, limits=limits)
