"""Following events over a broker: the iterator behind ``jobdb subscribe --subscriber NAME --from-broker``.

It is used like the one that follows the database (:meth:`jobdb.Registry.subscribe`): each event is accepted once and
handled at least once, an event counts as handled when the next is asked for, and after a restart what was accepted and
not handled comes first. The intake's thread accepts; this iterator hands out from the database what was accepted. One
job's iteration ends with the job, also when nothing says so over the broker (a cancellation has no event).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from ..core import arguments
from ..engines.identity import require_place
from ..engines.sql.engine import Engine
from ..engines.sql.rows import broker_from_json, event_from_row
from ..errors import InvalidInput
from ..model import Acceptance, Broker, Event, Job
from ..registry import Registry
from ..registry.follower import WaitLimits, with_previous_seq
from .backfill import SUBSCRIBER
from .consumer import GRACE_SEC, BrokerConsumer
from .reconnecting import ReportCallback
from .settings import BrokerSettings, Environment, parse_broker_address

DEFAULT_FILTERS = ("jobdb/jobs/+/events",)
SESSION_SEC = 7 * 86_400
_PAGE_SIZE = 100
_POLL_INTERVAL_SEC = 1.0


class BrokerFollower:
    """An iterator over events from a broker. ``outcome`` is the job, when following one job has come to its end."""

    def __init__(
        self,
        engine: Engine,
        consumer: BrokerConsumer,
        *,
        subscriber: str,
        job_id: str | None,
        limits: WaitLimits,
        unhandled: list[str],
    ) -> None:
        self._engine = engine
        self._consumer = consumer
        self._job_id = job_id
        self._limits = limits
        self._unhandled: tuple[Event, int] | None = None
        self._steps = self._all_jobs(unhandled) if job_id is None else self._one_job(job_id)
        self.subscriber = subscriber
        self.outcome: Job | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        self.handled()
        self._unhandled = next(self._steps)
        self._limits.reset_idle()
        return self._unhandled[0]

    def handled(self) -> None:
        """Notes that the last event is handled, without asking for the next."""
        if self._unhandled is not None:
            event, after = self._unhandled
            self._engine.mark_handled(event.job_id, subscriber=self.subscriber, seq=event.seq, after=after)
            self._unhandled = None

    def close(self) -> None:
        """Ends the connection. The broker keeps what comes meanwhile, unless the job has ended."""
        self._consumer.stop(forget_session=self.outcome is not None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the steps

    def _accepted(self, job_id: str) -> Iterator[tuple[Event, int]]:
        """What was accepted of a job and is not handled, in order, until there is no more; with the seq before each.

        The seq before tells whether one between the two was accepted late meanwhile: then all from there comes again.
        """
        while True:
            with self._engine.store.read() as tx:
                numbers = tx.one(SUBSCRIBER.broker_subscription, job_id=job_id, subscriber=self.subscriber)
                rows = tx.all(
                    SUBSCRIBER.accepted_unhandled, job_id=job_id, subscriber=self.subscriber, after=0, limit=_PAGE_SIZE
                )
            if not rows or numbers is None:
                return
            self._engine.store.sync()
            yield from with_previous_seq([event_from_row(row) for row in rows], numbers[5])

    def _one_job(self, job_id: str) -> Iterator[tuple[Event, int]]:
        store = self._engine.store
        while True:
            seen = store.data_version()
            ended = self._engine.get(job_id).terminal
            yield from self._accepted(job_id)
            if ended:
                break
            self._consumer.raise_failure()
            store.wait_for_change(seen, min(_POLL_INTERVAL_SEC, self._limits.left()))
        # The database knows the outcome: what it has and the broker has not brought yet is not waited for.
        while True:
            followed = self._engine.follow(job_id, subscriber=self.subscriber, start="beginning", limit=_PAGE_SIZE)
            yield from with_previous_seq(followed.events, followed.after)
            if followed.ended is not None:
                self.outcome = self._engine.get(job_id)
                return

    def _all_jobs(self, unhandled: list[str]) -> Iterator[tuple[Event, int]]:
        for job_id in unhandled:
            yield from self._accepted(job_id)
        while True:
            ready_job = self._consumer.next_ready_job(min(_POLL_INTERVAL_SEC, self._limits.left()))
            if ready_job is not None:
                yield from self._accepted(ready_job)


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
    """Follows events over a broker, from a session that the broker keeps under the subscriber's name.

    Args:
        registry: knows the jobs and their tokens, and keeps the subscriber's numbers.
        job_id: the job; all jobs when None.
        subscriber: the observer's name. Two processes at once need two names.
        settings: the broker: see :func:`subscriber_settings`.
        filters: for all jobs: the topics to subscribe to besides those of the living jobs in this database.
        start: where a subscriber that is new begins: "beginning" or "now".
        window: an event at most so many seqs behind that was skipped is accepted late, once; 0: strictly monotonic.
        timeout_sec: the most that the whole may take, in seconds.
        idle_timeout_sec: the most between two events, in seconds, counted from receipt.
        session_sec: how long the broker keeps what comes while nobody is connected, in seconds.
        grace_sec: after how many seconds what is recorded here and has not come is taken from the database.
        report: takes sentences about the connection and about refusals (verdict, job and seq).
        on_accepted: called with each acceptance from the broker, in another thread.

    Returns:
        The iterator, already connecting. Close it, or use it in a ``with`` block.

    Raises:
        UnknownJob: there is none of that id.
        InvalidInput: an argument is not what it should be, or paho-mqtt is missing.
        MovedOrCopied: the database may be a copy, which must not take the original's events.
    """
    from .connection import import_paho

    import_paho()
    subscriber = arguments.text("subscriber", subscriber, most=256)
    start = arguments.start(start)
    window = arguments.integer("window", window, least=0, most=1_000_000)
    session_sec = arguments.integer("session_sec", session_sec, least=1, most=2**32 - 2)
    engine = registry.engine
    identity = require_place(registry.store)  # the broker gives whoever comes under this name what it keeps for it
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
    consumer.start()
    return BrokerFollower(engine, consumer, subscriber=subscriber, job_id=job_id, limits=limits, unhandled=unhandled)


def subscriber_settings(
    registry: Registry, job_id: str | None = None, *, address: str | None = None, environment: Environment | None = None
) -> BrokerSettings:
    """The broker to subscribe at: the address given, else the job's, else the environment's, else that of all jobs.

    Where the environment names that broker and a user, we subscribe as that user: a job's own user may be one that can
    only write its job's topic.

    Args:
        registry: knows the jobs' brokers and their passwords.
        job_id: the job to be followed; None: all.
        address: ``host``, ``host:port`` or ``mqtts://user@host:port``; None: look.
        environment: read now when None.

    Raises:
        UnknownJob: there is none of that id.
        InvalidInput: no broker is known, or several are.
    """
    environment = environment or Environment.read()
    if job_id is not None and address is None:
        broker, password = registry.engine.broker(arguments.job_id(job_id))
        if broker is not None:
            return _environment_login(broker, environment) or environment.settings(broker, password)
    known = _known_brokers(registry, environment)
    if address is not None:
        named = parse_broker_address(address)
        own_settings = _environment_login(named, environment)
        if own_settings is not None and named.username in (None, own_settings.username):
            return own_settings
        for settings in known:
            same = (settings.host.lower(), settings.port) == (named.host.lower(), named.port)
            if same and named.username in (None, settings.username) and (settings.tls or not named.tls):
                return settings
        return environment.settings(named, None)
    if environment.broker is not None:
        return environment.broker
    if len(known) == 1:
        return known[0]
    if not known:
        raise InvalidInput("no broker is known; name one with --broker HOST[:PORT], or set MQTT_BROKER")
    names = ", ".join(sorted({str(settings) for settings in known}))
    raise InvalidInput(f"the living jobs have several brokers ({names}); name one with --broker HOST:PORT")


def _environment_login(broker: Broker, environment: Environment) -> BrokerSettings | None:
    """The environment's way into a broker, if it names that one and a user for it."""
    own_settings = environment.broker
    if own_settings is None or (own_settings.host.lower(), own_settings.port) != (broker.host.lower(), broker.port):
        return None
    if own_settings.username is None and own_settings.certfile is None:
        return None
    return replace(own_settings, tls=own_settings.tls or broker.tls)


def _known_brokers(registry: Registry, environment: Environment) -> list[BrokerSettings]:
    """The brokers of the living jobs, each way in once."""
    store = registry.store
    with store.read() as tx:
        rows = tx.all(SUBSCRIBER.brokers_of_live_jobs)
    found: dict[BrokerSettings, None] = {}
    for text, job_id, has_password in rows:
        record = broker_from_json(text, bool(has_password))
        assert record is not None
        password = registry.engine.broker(job_id)[1] if has_password else None
        found.setdefault(environment.settings(record, password))
    return list(found)
