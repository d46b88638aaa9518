"""The consumer: accepts messages from a broker in batches, and acknowledges each batch once it is durable.

Runs in its own thread, so that a slow handler does not delay acceptance. All messages that have arrived are accepted in
one transaction and then acknowledged in the order of arrival; unacknowledged messages are delivered again. Events that
do not arrive are supplied by :mod:`.backfill`. Called by :mod:`.subscriber`; calls the engine and :mod:`.reconnecting`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import Busy, Refused
from ..model import Verdict
from ..system.interrupt_safe_flag import Flag
from .backfill import Backfill
from .batch import MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, BatchProgress, PendingBatch
from .inbox import Inbox
from .ready_jobs import ReadyJobs
from .reconnecting import ReconnectingConnection
from .reporting import RefusalReporter
from .topic_subscriptions import TopicSubscriptions

if TYPE_CHECKING:
    from ..engines.sql.engine import Engine
    from ..engines.sql.precheck import PrecheckedArrival
    from ..model import Acceptance
    from .connection import Message
    from .reporting import ReportCallback
    from .settings import BrokerSettings

ACCEPT_BUDGET_SEC = 1.0
GRACE_SEC = 10.0
SWEEP_INTERVAL_SEC = 2.0
_RAPID_DISCONNECT_LIMIT = 3


class BrokerConsumer:
    """The consumer of one subscriber at one broker.

    Args:
        engine: the registry's engine.
        subscriber: the name of the subscriber.
        settings: the broker.
        client_id: the client id under which the broker keeps our session.
        job_id: only this job; None: all.
        filters: for one job, its topic; for all jobs, topic filters in addition to the topics of live jobs.
        start: where a subscriber that is new to a job begins: "beginning" or "now".
        window: as for ``Registry.accept``.
        session_sec: how long the broker keeps our session, in seconds.
        grace_sec: how long the broker may take to deliver an event that is recorded here, in seconds.
        report: called with sentences about progress and refusals.
        on_accepted: called with each event accepted from the broker, in the consumer's thread.
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
        self._subscriber = subscriber
        self._job_id = job_id
        self._window = window
        self._report = report
        self._on_accepted = on_accepted
        self._refusals = RefusalReporter(report)
        self._ready = ReadyJobs()
        self._backfill = Backfill(
            engine,
            subscriber=subscriber,
            job_id=job_id,
            start=start,
            grace_sec=grace_sec,
            on_filled=lambda job_id: self._ready.put([job_id]),
            report=report,
        )
        self._inbox = Inbox()
        self._batch: PendingBatch | None = None  # until it is accepted and removed from the inbox
        self._activity = Flag()
        self._stop = Flag()
        self._forget_session = False  # set before _stop
        self._failure: BaseException | None = None
        self._next_sweep_at = 0.0
        self._link = ReconnectingConnection(
            settings,
            client_id,
            wake=self._activity.set,
            report=report,
            session_sec=session_sec,
            on_message=self._enqueue,
        )
        self._topics = TopicSubscriptions(
            engine.store, self._link, topics=filters, follow_live_jobs=job_id is None, report=report
        )
        self._thread = threading.Thread(target=self._run, name="jobdb-consumer", daemon=True)

    # -- called by the follower

    def start(self) -> None:
        """Start the thread and return immediately."""
        self._thread.start()

    def stop(self, *, forget_session: bool = False) -> None:
        """Stop, acknowledging the accepted messages; all others are delivered again.

        Args:
            forget_session: True if the broker need not keep our session.
        """
        self._forget_session = forget_session
        self._stop.set()
        self._activity.set()
        if self._thread.is_alive():
            self._thread.join(15.0)

    def next_ready_job(self, timeout_sec: float) -> str | None:
        """Return a job of which events were accepted; None if there is none within ``timeout_sec`` seconds.

        Raises:
            JobdbError: the failure that ended the consumer.
        """
        job_id = self._ready.pop(timeout_sec)
        if job_id is None:
            self.raise_failure()
        return job_id

    def raise_failure(self) -> None:
        """Raise the error that ended the consumer, if any."""
        if self._failure is not None:
            raise self._failure

    # -- the consumer's thread

    def _enqueue(self, message: Message) -> None:
        """Queue a message. Called in the network thread."""
        self._activity.set()  # first: if the inbox is full, the consumer has to make space
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
            if self._failure is not None:
                self._ready.close()

    def _run_once(self) -> None:
        self._check_taken_over()
        disconnects = self._link.rapid_disconnects
        if self._link.poll():
            self._topics.reset()
            self._next_sweep_at = 0.0
        if disconnects < _RAPID_DISCONNECT_LIMIT <= self._link.rapid_disconnects:
            self._report(f"the connection is lost repeatedly: does another process subscribe as {self._subscriber!r}?")
        try:
            self._accept_waiting()
            self._refusals.report_dropped(self._inbox.pop_dropped_count())
            self._topics.update(self._accept_while_subscribing)
            if time.monotonic() >= self._next_sweep_at:
                self._backfill.sweep(self._stop.is_set)
                self._next_sweep_at = time.monotonic() + SWEEP_INTERVAL_SEC
        except Busy as busy:
            self._report_busy(busy)

    def _report_busy(self, busy: Busy) -> None:
        self._report(f"{busy}; trying again")
        self._activity.set()

    def _check_taken_over(self) -> None:
        """Fail if another client took over our session. MQTT 5 has a reason code for it, which some brokers omit."""
        connection = self._link.connection
        if connection is not None and connection.session_taken_over:
            raise Refused(
                f"another process subscribes as {self._subscriber!r} to the same",
                advice="stop one of them, or give them different subscriber names",
                command="stop one of them, or give them different --subscriber names",
            )

    # -- accepting

    def _accept_waiting(self) -> None:
        """Accept waiting messages for a bounded time, since there is other work however many arrive."""
        until = time.monotonic() + ACCEPT_BUDGET_SEC
        while self._inbox and not self._stop.is_set():
            if time.monotonic() > until:
                self._activity.set()
                return
            self._accept_batch()

    def _accept_while_subscribing(self) -> None:
        """Accept waiting messages while waiting for the broker's answer, which a busy database must not interrupt."""
        try:
            self._accept_waiting()
        except Busy as busy:
            self._report_busy(busy)

    def _accept_batch(self) -> None:
        """Accept the messages that have arrived, up to a limit, in one transaction; then acknowledge them in order.

        Raises:
            Busy: the database was locked for too long. The batch is kept unchanged and accepted by the next call.
        """
        batch = self._batch
        if batch is None:
            batch = self._batch = PendingBatch(self._engine, self._inbox.peek(MAX_BATCH_MESSAGES, MAX_BATCH_BYTES))
        selected = self._select(batch)
        answers = []
        if selected:
            answers = self._engine.accept_prechecked(
                selected, subscriber=self._subscriber, window=self._window, start="beginning"
            )
        self._batch = None
        self._inbox.remove(len(batch.messages))
        for message in batch.messages:
            message.acknowledge()
        for answer in answers:
            self._handle_answer(answer)
        self._ready.put(
            answer.job_id for answer in answers if answer.verdict is Verdict.ACCEPTED and answer.job_id is not None
        )

    def _select(self, batch: PendingBatch) -> list[PrecheckedArrival]:
        """Fill the gaps before the arrivals of a batch; return the arrivals to accept or refuse."""
        progress = BatchProgress(self._backfill, batch.arrivals)
        selected = []
        for index, message in enumerate(batch.messages):
            if self._belongs_to_another_job(batch.arrivals[index], message.topic):
                continue
            if self._fill_gap_before(batch, index, progress):
                selected.append(batch.arrivals[index])
        return selected

    def _belongs_to_another_job(self, arrival: PrecheckedArrival, topic: str) -> bool:
        """Return whether an event is another job's and arrived on its topic, so that this subscriber ignores it."""
        job_id = arrival.job_id
        if self._job_id is None or job_id is None or job_id == self._job_id:
            return False
        return self._backfill.is_topic_of(job_id, topic)

    def _fill_gap_before(self, batch: PendingBatch, index: int, progress: BatchProgress) -> bool:
        """Accept the events missing before an event from the database; return whether the event itself is relevant.

        A job that is seen for the first time is begun, and the events recorded between the last accepted one and this
        one are accepted first: the broker has lost them, or delivered them before we subscribed. This is done only for
        an authentic event: a forged one must change nothing.
        """
        wire, retained = batch.arrivals[index].wire, batch.messages[index].retained
        if wire is None:
            return True
        cursor = self._backfill.find_cursor(wire.job_id)
        if cursor is not None and wire.seq <= cursor.last_seq:
            cursor = self._backfill.reload_cursor(wire.job_id)
        last = max(cursor.last_seq if cursor else 0, progress.last_seq_of(wire.job_id))
        if cursor is None or retained or wire.seq > last + 1:
            if not batch.verify_from(index).authentic:
                return True
            cursor = self._backfill.ensure_cursor(wire.job_id)
            if cursor is None:
                return True
            if retained and wire.seq <= cursor.start_seq and self._backfill.is_recorded(wire):
                return False  # a retained end from before a new subscriber began: nothing new, and not a refusal
            last = max(cursor.last_seq, last)
            if wire.seq > last + 1:
                self._backfill.fill_gap(wire.job_id, last, wire.seq)
        progress.advance(wire, last)
        return True

    def _handle_answer(self, answer: Acceptance) -> None:
        if answer.verdict.refused:
            self._refusals.report(answer)
            return
        if answer.verdict is not Verdict.ACCEPTED or answer.job_id is None or answer.seq is None:
            return
        self._backfill.advance(answer.job_id, answer.seq)
        if answer.missing:
            self._report(
                f"job {answer.job_id}: {len(answer.missing)} events before seq {answer.seq} did not arrive, "
                f"the first is seq {answer.missing[0]}"
            )
        if self._on_accepted is not None:
            self._on_accepted(answer)
