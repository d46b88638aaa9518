"""Taking messages from a broker: accepted in batches, acknowledged when that is durable.

Runs in a thread of its own, so that a slow handler keeps nothing from being accepted. All that has arrived is accepted
in one transaction and then acknowledged in the order of arrival; what was not acknowledged comes again. What does not
arrive is :mod:`.catching_up`'s. Called by :mod:`.subscriber`; calls the engine and :mod:`.link`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence

from ..core.protocol import WireEvent
from ..engines.sql.engine import Engine
from ..engines.sql.precheck import PrecheckedArrival
from ..errors import Busy
from ..model import Acceptance, Arrival, Verdict
from ..system.interrupt_safe_flag import Flag
from .backfill import SUBSCRIBER, Backfill
from .connection import ConnectionFailed, Message
from .inbox import Inbox
from .reconnecting import ReconnectingConnection, ReportCallback
from .refusal_reporter import RefusalReporter
from .settings import BrokerSettings
from .topic_filters import is_valid_topic, topic_matches

MAX_BATCH_MESSAGES = 500
MAX_BATCH_BYTES = 1_048_576
ACCEPT_BUDGET_SEC = 1.0
GRACE_SEC = 10.0
SWEEP_INTERVAL_SEC = 2.0
_RAPID_DISCONNECT_LIMIT = 3
_MAX_UNUSABLE_REPORTED = 20


class BrokerConsumer:
    """Accepts for one subscriber from one broker.

    Args:
        engine: the registry's engine.
        subscriber: the observer's name.
        settings: the broker.
        client_id: under which the broker keeps our session.
        job_id: only this job; None: all.
        filters: topic filters besides the topics of living jobs.
        start: where a subscriber that is new to a job begins: "beginning" or "now".
        window: as for ``Registry.accept``.
        session_sec: how long the broker keeps our session, in seconds.
        grace_sec: how long the broker may take to deliver what is recorded here, in seconds.
        report: takes sentences about the progress and about refusals.
        on_accepted: called with each event that was accepted from the broker, in the intake's thread.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        subscriber: str,
        settings: BrokerSettings,
        client_id: str,
        job_id: str | None,
        filters: Sequence[str],
        start: str,
        window: int,
        session_sec: int,
        grace_sec: float,
        report: ReportCallback,
        on_accepted: Callable[[Acceptance], None] | None = None,
    ) -> None:
        self._engine = engine
        self._store = engine.store
        self._subscriber = subscriber
        self._job_id = job_id
        self._filters = list(filters)
        self._subscribed: set[str] = set()
        self._window = window
        self._report = report
        self._refusals = RefusalReporter(report)
        self._backfill = Backfill(
            engine,
            subscriber=subscriber,
            job_id=job_id,
            start=start,
            grace_sec=grace_sec,
            on_filled=lambda job_id: self._queue_jobs([job_id]),
            report=report,
        )
        self._on_accepted = on_accepted
        self._inbox = Inbox()
        self._unsubscribable: set[str] = set()
        self._activity = Flag()
        self._stop = Flag()
        self._forget_session = False
        self._ready_jobs: OrderedDict[str, None] = OrderedDict()
        self._ready_lock = threading.Lock()
        self._ready_changed = Flag()
        self._failure: BaseException | None = None
        self._sweep_at = 0.0
        self._resubscribe_at = 0.0
        self._topics_version: int | None = None
        self._link = ReconnectingConnection(
            settings,
            client_id,
            wake=self._activity.set,
            report=report,
            session_sec=session_sec,
            on_message=self._enqueue,
        )
        self._thread = threading.Thread(target=self._run, name="jobdb intake", daemon=True)

    # -- for the follower

    def start(self) -> None:
        """Begins; returns at once."""
        self._thread.start()

    def stop(self, *, forget_session: bool = False) -> None:
        """Ends: what was accepted is acknowledged, what was not comes again.

        Args:
            forget_session: the broker need not keep our session.
        """
        self._forget_session = forget_session
        self._stop.set()
        self._activity.set()
        if self._thread.is_alive():
            self._thread.join(15.0)

    def next_ready_job(self, timeout_sec: float) -> str | None:
        """A job of which something was accepted, or None when the time is over.

        Raises:
            JobdbError: what made the intake end.
        """
        self._ready_changed.wait(timeout_sec)
        with self._ready_lock:
            job_id = self._ready_jobs.popitem(last=False)[0] if self._ready_jobs else None
            if not self._ready_jobs and self._failure is None:
                self._ready_changed.clear()
        if job_id is None:
            self.raise_failure()
        return job_id

    def raise_failure(self) -> None:
        """Raises what made the intake end, if it did."""
        if self._failure is not None:
            raise self._failure

    # -- the thread

    def _enqueue(self, message: Message) -> None:
        """In the network's thread."""
        self._activity.set()  # before there is room, which the intake makes
        self._inbox.put(message)
        self._activity.set()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._activity.wait(0.2)
                self._activity.clear()
                self._run_once()
        except BaseException as failure:
            self._failure = failure
        finally:
            self._inbox.close()
            self._link.close(forget_session=self._forget_session)
            with self._ready_lock:
                self._ready_changed.set()

    def _run_once(self) -> None:
        self._check_taken_over()
        losses = self._link.rapid_disconnects
        if self._link.poll():
            self._subscribed.clear()
            self._resubscribe_at = self._sweep_at = 0.0
        if losses < _RAPID_DISCONNECT_LIMIT <= self._link.rapid_disconnects:
            self._report(
                f"the connection is lost again and again: does another process subscribe as {self._subscriber!r}?"
            )
        try:
            self._accept_waiting()
            self._refusals.report_dropped(self._inbox.pop_dropped_count())
            if time.monotonic() >= self._resubscribe_at:
                self._subscribe()
            if time.monotonic() >= self._sweep_at:
                self._backfill.sweep(self._stop.is_set)
                self._sweep_at = time.monotonic() + SWEEP_INTERVAL_SEC
        except Busy as busy:
            self._report(f"{busy}; trying again")
            self._activity.set()

    def _check_taken_over(self) -> None:
        """MQTT 5 has a word for it, which not every broker says."""
        connection = self._link.connection
        if connection is not None and connection.session_taken_over:
            from ..errors import Refused

            raise Refused(
                f"another process subscribes as {self._subscriber!r} to the same; stop one of them, or give them "
                "different --subscriber names"
            )

    # -- subscribing

    def _subscribe(self) -> None:
        """Subscribes to the topics that are wanted and not subscribed yet on this connection.

        New jobs may have topics of their own, so it is looked again when something was committed, within a
        twentieth of our time.
        """
        connection = self._link.connection
        version = self._store.data_version()
        if connection is None or (self._subscribed and version == self._topics_version):
            return
        began = time.monotonic()
        wanted = [name for name in self._wanted() if name not in self._subscribed]
        self._topics_version, self._resubscribe_at = version, time.monotonic() + 20 * (time.monotonic() - began)
        if not wanted:
            return
        try:
            refused = connection.subscribe(wanted, on_wait=self._accept_waiting)
        except ConnectionFailed as failure:
            self._link.reconnect(str(failure))
            return
        self._subscribed.update(wanted)
        self._report(f"subscribed to {', '.join(wanted[:5])}" + (f" and {len(wanted) - 5} more" if wanted[5:] else ""))
        for name in refused:
            self._report(f"the broker refuses the subscription to {name}; its events come from the database alone")

    def _wanted(self) -> list[str]:
        if self._job_id is not None:
            return [topic for topic in self._filters if self._is_subscribable(topic)]
        with self._store.read() as tx:
            topics = [f"{row[0]}/events" for row in tx.all(SUBSCRIBER.live_topics)]
        return self._filters + [
            topic
            for topic in topics
            if self._is_subscribable(topic) and not any(topic_matches(name, topic) for name in self._filters)
        ]

    def _is_subscribable(self, topic: str) -> bool:
        """Tell whether a job's topic can be subscribed to; of one that cannot it is said once, of many how many."""
        if is_valid_topic(topic):
            return True
        if topic not in self._unsubscribable:
            self._unsubscribable.add(topic)
            count = len(self._unsubscribable)
            if count <= _MAX_UNUSABLE_REPORTED or count % 1000 == 0:
                self._report(
                    f"topic {topic!r:.200} of a job is not one that MQTT allows ({count} such so far); its events come "
                    "from the database alone"
                )
        return False

    # -- accepting

    def _accept_waiting(self) -> None:
        """Accepts what waits, for a bounded time: there is more to do, however much comes in."""
        until = time.monotonic() + ACCEPT_BUDGET_SEC
        while self._inbox and not self._stop.is_set():
            if time.monotonic() > until:
                self._activity.set()
                return
            self._accept_batch()

    def _accept_batch(self) -> None:
        """All that has arrived, up to a bound, in one transaction; then its acknowledgements, in order."""
        batch = self._inbox.peek(MAX_BATCH_MESSAGES, MAX_BATCH_BYTES)
        prechecked = self._engine.precheck([Arrival(message.payload, message.topic) for message in batch])
        progress = _BatchProgress(
            self._backfill, Counter(each.wire.job_id for each in prechecked if each.wire is not None)
        )
        kept = [each for message, each in zip(batch, prechecked, strict=True) if self._admit(message, each, progress)]
        answers = []
        if kept:
            answers = self._engine.accept_prechecked(
                kept, subscriber=self._subscriber, window=self._window, start="beginning"
            )
        self._inbox.remove(len(batch))
        for message in batch:
            message.acknowledge()
        accepted = []
        for answer in answers:
            self._handle_acceptance(answer)
            if answer.verdict is Verdict.ACCEPTED and answer.job_id is not None:
                accepted.append(answer.job_id)
        self._queue_jobs(accepted)

    def _admit(self, message: Message, prechecked: PrecheckedArrival, progress: _BatchProgress) -> bool:
        """Makes ready for one message; False when it can be passed over.

        A job that is seen for the first time gets its beginning, and what is recorded here between the last accepted
        event and this one is accepted first: the broker has lost it, or delivered it before we subscribed.
        """
        job_id, wire = prechecked.job_id, prechecked.wire
        if self._job_id is not None and job_id is not None and job_id != self._job_id:
            return not self._backfill.is_topic_of(job_id, message.topic)
        if wire is None:
            return True
        cursor = self._backfill.find_cursor(wire.job_id)
        if cursor is not None and wire.seq <= cursor.last_seq:
            cursor = self._backfill.reload_cursor(wire.job_id)
        last = max(cursor.last_seq if cursor else 0, progress.last_seq_of(wire.job_id))
        if cursor is None or message.retained or wire.seq > last + 1:
            if not prechecked.authentic and not self._backfill.is_authentic(wire, message.topic):
                return True
            cursor = self._backfill.ensure_cursor(wire.job_id)
            if cursor is None:
                return True
            if message.retained and wire.seq <= cursor.start_seq and self._backfill.is_recorded(wire):
                return False  # the broker tells a newcomer of an end before its time: no news, and no alarm
            last = max(cursor.last_seq, last)
            if wire.seq > last + 1:
                self._backfill.fill_gap(wire.job_id, last, wire.seq)
        progress.advance(wire, last)
        return True

    def _handle_acceptance(self, answer: Acceptance) -> None:
        if answer.verdict.refused:
            self._refusals.say(answer)
            return
        if answer.verdict is not Verdict.ACCEPTED or answer.job_id is None or answer.seq is None:
            return
        self._backfill.accepted(answer.job_id, answer.seq)
        if answer.missing:
            self._report(
                f"job {answer.job_id}: {len(answer.missing)} events before seq {answer.seq} did not arrive, "
                f"the first is seq {answer.missing[0]}"
            )
        if self._on_accepted is not None:
            self._on_accepted(answer)

    def _queue_jobs(self, job_ids: Sequence[str]) -> None:
        if not job_ids:
            return
        with self._ready_lock:
            self._ready_jobs.update(dict.fromkeys(job_ids))
            self._ready_changed.set()


class _BatchProgress:
    """How far each job will be when what comes before a message in its batch is accepted.

    An event that differs from what is recorded under its seq brings its job no further: a forged one must not stand in
    for a genuine one that the broker has lost.

    Args:
        known: asked for what is recorded of a job of which the batch has several messages.
        times: how many it has of each.
    """

    def __init__(self, known: Backfill, times: Counter[str]) -> None:
        self._backfill = known
        self._times = times
        self._last: dict[str, int] = {}
        self._recorded: dict[str, dict[int, bytes]] = {}

    def last_seq_of(self, job_id: str) -> int:
        """The highest seq that the messages so far bring; 0: none."""
        return self._last.get(job_id, 0)

    def advance(self, wire: WireEvent, last: int) -> None:
        """Notes a message that comes when the job is at ``last``."""
        job_id = wire.job_id
        if self._times[job_id] == 1:
            return
        if job_id not in self._recorded:
            self._recorded[job_id] = self._backfill.recorded_digests(job_id, after=last, limit=MAX_BATCH_MESSAGES)
        authentic = self._recorded[job_id].get(wire.seq, wire.digest) == wire.digest
        self._last[job_id] = max(last, wire.seq) if authentic else last
