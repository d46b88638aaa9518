"""Taking messages from a broker: accepted in batches, acknowledged when that is durable, gaps closed from the database.

Runs in a thread of its own, so that a slow handler keeps nothing from being accepted. The database is what remembers:
the broker's session only saves looking. So what was recorded here and did not come from the broker within a grace time
(it is down, its relay is, or it lost messages when it was killed) is taken from the database, in order, and the
broker's late copy is a duplicate. Called by :mod:`.subscriber`; calls the engine and :mod:`.link`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engines.base import Engine
from ..errors import Busy
from ..model import Acceptance, Arrival, Verdict
from ..protocol import MalformedPayload, UnsupportedVersion, WireEvent, parse
from .connection import ConnectionFailed, Message
from .link import Link, Report
from .settings import BrokerSettings

STATEMENTS = Path(__file__).parent / "subscriber.sql"
BATCH = 500
GRACE_SEC = 10.0
SWEEP_SEC = 2.0
MOST_UNACKNOWLEDGEABLE = 10_000
_REMEMBERED = 10_000
_PAGE = 1000
_SUSPICIOUS_LOSSES = 3
_MOST_SEQ = 2**53
_log = logging.getLogger("jobdb.mqtt")


@dataclass(slots=True)
class _Numbers:
    """What this subscriber has of one job."""

    start_seq: int
    last_seq: int


class Refusals:
    """Says what was refused: verdict, job and seq, never the payload. At most so many lines a period, then a count.

    Args:
        report: takes the sentence.
        clock: seconds that never go back.
        most: lines a period.
        period_sec: its length.
    """

    def __init__(
        self, report: Report, *, clock: Callable[[], float] = time.monotonic, most: int = 20, period_sec: float = 10.0
    ) -> None:
        self._report = report
        self._clock = clock
        self._most = most
        self._period_sec = period_sec
        self._since = clock()
        self._said = 0
        self._unsaid = 0

    def say(self, answer: Acceptance) -> None:
        """One refusal."""
        self._turn_over()
        if self._said >= self._most:
            self._unsaid += 1
            return
        self._said += 1
        job = answer.job_id or "?"
        seq = "?" if answer.seq is None else answer.seq
        self._report(f"refused: {answer.verdict} job {job} seq {seq}: {answer.reason}")

    def _turn_over(self) -> None:
        now = self._clock()
        if now - self._since < self._period_sec:
            return
        if self._unsaid:
            self._report(f"refused: {self._unsaid} more; 'jobdb stats' counts them")
        self._since, self._said, self._unsaid = now, 0, 0


class Intake:
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
        report: Report,
        on_accepted: Callable[[Acceptance], None] | None = None,
    ) -> None:
        self._engine = engine
        self._store = engine.store
        self._store.learn(STATEMENTS)
        self._subscriber = subscriber
        self._job_id = job_id
        self._filters = list(filters)
        self._subscribed: set[str] = set()
        self._start = start
        self._window = window
        self._grace_ms = round(grace_sec * 1000)
        self._report = report
        self._refusals = Refusals(report)
        self._on_accepted = on_accepted
        self._inbox: deque[Message] = deque()
        self._activity = threading.Event()
        self._stop = threading.Event()
        self._forget = False
        self._numbers: OrderedDict[str, _Numbers] = OrderedDict()
        self._news: OrderedDict[str, None] = OrderedDict()
        self._news_changed = threading.Condition()
        self._failure: BaseException | None = None
        self._sweep_at = 0.0
        self._topics_at = 0.0
        self._topics_seen: int | None = None
        self._cancelled_since = self._store.clock()
        self._link = Link(
            settings,
            client_id,
            wake=self._activity.set,
            report=report,
            session_sec=session_sec,
            on_message=self._arrived,
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
        self._forget = forget_session
        self._stop.set()
        self._activity.set()
        if self._thread.is_alive():
            self._thread.join(15.0)

    def next_news(self, timeout_sec: float) -> str | None:
        """A job of which something was accepted, or None when the time is over.

        Raises:
            JobdbError: what made the intake end.
        """
        with self._news_changed:
            self._news_changed.wait_for(lambda: self._news or self._failure, timeout_sec)
            if self._news:
                return self._news.popitem(last=False)[0]
        self.check()
        return None

    def check(self) -> None:
        """Raises what made the intake end, if it did."""
        if self._failure is not None:
            raise self._failure

    # -- the thread

    def _arrived(self, message: Message) -> None:
        """In the network's thread."""
        if message.qos == 0 and len(self._inbox) >= MOST_UNACKNOWLEDGEABLE:
            return  # nothing was promised for it, and its sender could fill our memory
        self._inbox.append(message)
        self._activity.set()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._activity.wait(0.2)
                self._activity.clear()
                self._turn()
        except BaseException as failure:
            self._failure = failure
        finally:
            self._link.close(forget_session=self._forget)
            with self._news_changed:
                self._news_changed.notify_all()

    def _turn(self) -> None:
        self._lost_to_another()
        losses = self._link.quick_losses
        if self._link.tend():
            self._subscribed.clear()
            self._topics_at = self._sweep_at = 0.0
        if losses < _SUSPICIOUS_LOSSES <= self._link.quick_losses:
            self._report(
                f"the connection is lost again and again: does another process subscribe as {self._subscriber!r}?"
            )
        try:
            while self._inbox and not self._stop.is_set():
                self._accept_batch()
            if time.monotonic() >= self._topics_at:
                self._subscribe()
            if time.monotonic() >= self._sweep_at:
                self._sweep()
                self._sweep_at = time.monotonic() + SWEEP_SEC
        except Busy as busy:
            self._report(f"{busy}; trying again")
            self._activity.set()

    def _lost_to_another(self) -> None:
        """MQTT 5 has a word for it, which not every broker says."""
        connection = self._link.connection
        if connection is not None and connection.taken_over:
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
        if connection is None or (self._subscribed and version == self._topics_seen):
            return
        began = time.monotonic()
        wanted = [name for name in self._wanted() if name not in self._subscribed]
        self._topics_seen, self._topics_at = version, time.monotonic() + 20 * (time.monotonic() - began)
        if not wanted:
            return
        try:
            refused = connection.subscribe(wanted)
        except ConnectionFailed as failure:
            self._link.drop(str(failure))
            return
        self._subscribed.update(wanted)
        self._report(f"subscribed to {', '.join(wanted[:5])}" + (f" and {len(wanted) - 5} more" if wanted[5:] else ""))
        for name in refused:
            self._report(f"the broker refuses the subscription to {name}; its events come from the database alone")

    def _wanted(self) -> list[str]:
        if self._job_id is not None:
            return self._filters
        with self._store.read() as tx:
            topics = [f"{row[0]}/events" for row in tx.all("live_topics")]
        return self._filters + [
            topic for topic in topics if not any(topic_matches(name, topic) for name in self._filters)
        ]

    # -- accepting

    def _accept_batch(self) -> None:
        """All that has arrived, up to a bound, in one transaction; then its acknowledgements, in order."""
        batch = [self._inbox[place] for place in range(min(len(self._inbox), BATCH))]
        expected: dict[str, int] = {}
        kept = [message for message in batch if self._prepare(message, expected)]
        arrivals = [Arrival(message.payload, message.topic) for message in kept]
        answers = self._engine.accept(arrivals, subscriber=self._subscriber, window=self._window, start="beginning")
        for message in batch:
            self._inbox.popleft()
            message.acknowledge()
        accepted = []
        for answer in answers:
            self._note(answer)
            if answer.verdict is Verdict.ACCEPTED and answer.job_id is not None:
                accepted.append(answer.job_id)
        self._tell(accepted)

    def _prepare(self, message: Message, expected: dict[str, int]) -> bool:
        """Makes ready for one message; False when it can be passed over.

        A job that is seen for the first time gets its beginning, and what is recorded here between the last accepted
        event and this one is accepted first: the broker has lost it, or delivered it before we subscribed.
        """
        try:
            wire = parse(message.payload)
        except (MalformedPayload, UnsupportedVersion):
            return True
        if self._job_id is not None and wire.job_id != self._job_id:
            return not self._shares_topic(wire.job_id, message.topic)
        numbers = self._numbers_of(wire.job_id)
        if numbers is None:
            return True
        if message.retained and wire.seq <= numbers.start_seq and self._is_recorded(wire):
            return False  # the broker tells a newcomer of an end that was before its time: no news, and no alarm
        last = max(numbers.last_seq, expected.get(wire.job_id, 0))
        if wire.seq > last + 1 and self._close_gap(wire.job_id, last, wire.seq):
            numbers = self._numbers_of(wire.job_id) or numbers
        expected[wire.job_id] = max(last, wire.seq)
        return True

    def _shares_topic(self, job_id: str, topic: str) -> bool:
        """Whether another job's events come on this topic rightly: then they are not this subscriber's to judge."""
        with self._store.read() as tx:
            row = tx.one("broker_subscription", job_id=job_id, subscriber=self._subscriber)
        return row is not None and f"{row[6]}/events" == topic

    def _is_recorded(self, wire: WireEvent) -> bool:
        with self._store.read() as tx:
            row = tx.one("recorded_digest", job_id=wire.job_id, seq=wire.seq)
        return row is not None and bytes(row[0]) == wire.digest

    def _numbers_of(self, job_id: str) -> _Numbers | None:
        """This subscriber's numbers for a job, begun if it is new; None when there is no such job."""
        numbers = self._numbers.get(job_id)
        if numbers is not None:
            self._numbers.move_to_end(job_id)
            return numbers
        with self._store.read() as tx:
            row = tx.one("broker_subscription", job_id=job_id, subscriber=self._subscriber)
        if row is None:
            return None
        if row[3] is None:
            self._follow(job_id, limit=0)
            with self._store.read() as tx:
                row = tx.one("broker_subscription", job_id=job_id, subscriber=self._subscriber)
            if row is None:
                return None
        numbers = self._numbers[job_id] = _Numbers(row[3], row[4])
        if len(self._numbers) > _REMEMBERED:
            self._numbers.popitem(last=False)
        return numbers

    def _follow(self, job_id: str, *, limit: int) -> None:
        """Accepts what is recorded here, from the first unhandled event on; with limit 0 only begins."""
        if self._job_id is None:
            self._engine.follow_in_feed(job_id, subscriber=self._subscriber, limit=limit)
        else:
            self._engine.follow(job_id, subscriber=self._subscriber, start=self._start, limit=limit)

    def _close_gap(self, job_id: str, last: int, seq: int) -> bool:
        """Accepts what is recorded here between two seqs; True when there was something."""
        with self._store.read() as tx:
            row = tx.one("broker_subscription", job_id=job_id, subscriber=self._subscriber)
            if row is None or tx.one("recorded_between", job=row[0], after=last, before=min(seq, _MOST_SEQ)) is None:
                return False
        self._follow(job_id, limit=seq - 1 - row[5])
        self._numbers.pop(job_id, None)
        self._tell([job_id])
        return True

    def _note(self, answer: Acceptance) -> None:
        if answer.verdict.refused:
            self._refusals.say(answer)
            return
        if answer.verdict is not Verdict.ACCEPTED or answer.job_id is None or answer.seq is None:
            return
        numbers = self._numbers.get(answer.job_id)
        if numbers is not None:
            numbers.last_seq = max(numbers.last_seq, answer.seq)
        if answer.missing:
            self._report(
                f"job {answer.job_id}: {len(answer.missing)} events before seq {answer.seq} did not arrive, "
                f"the first is seq {answer.missing[0]}"
            )
        if self._on_accepted is not None:
            self._on_accepted(answer)

    def _tell(self, job_ids: Sequence[str]) -> None:
        if not job_ids:
            return
        with self._news_changed:
            self._news.update(dict.fromkeys(job_ids))
            self._news_changed.notify_all()

    # -- what the broker did not bring

    def _sweep(self) -> None:
        """Takes from the database what was recorded there a grace time ago and has not come."""
        before = self._store.clock() - self._grace_ms
        if self._job_id is not None:
            self._sweep_job(self._job_id, before)
        else:
            self._sweep_all(before)
            self._say_cancelled()

    def _sweep_job(self, job_id: str, before: int) -> None:
        with self._store.read() as tx:
            row = tx.one("broker_subscription", job_id=job_id, subscriber=self._subscriber)
            if row is None or row[3] is None or row[4] >= row[2]:
                return
            overdue = tx.one("overdue_event", job=row[0], after=row[4], before=before)
        if overdue is None or overdue[0] is None:
            return
        self._take_over(job_id, overdue[0])

    def _sweep_all(self, before: int) -> None:
        """Goes over the events after the feed's position, as a subscriber of the database does, a grace time later."""
        _jobs, position = self._engine.news(self._subscriber, after=None, limit=0)
        begun_at = position
        while not self._stop.is_set():
            with self._store.read() as tx:
                rows = tx.all("recorded_before", after=position, limit=_PAGE)
            newest: dict[str, int] = {}
            for number, job_id, seq, recorded_ms in rows:
                if recorded_ms >= before:
                    rows = []
                    break
                position = number
                newest[job_id] = max(seq, newest.get(job_id, 0))
            for job_id, seq in newest.items():
                numbers = self._numbers_of(job_id)
                if numbers is not None and seq > numbers.last_seq:
                    self._take_over(job_id, seq)
            if len(rows) < _PAGE:
                break
        if position > begun_at:
            self._engine.advance_feed(self._subscriber, event=position)

    def _take_over(self, job_id: str, seq: int) -> None:
        numbers = self._numbers_of(job_id)
        if numbers is not None and self._close_gap(job_id, numbers.last_seq, seq + 1):
            _log.info("job %s: events up to seq %d taken from the database", job_id, seq)

    def _say_cancelled(self) -> None:
        with self._store.read() as tx:
            rows = tx.all("cancelled_since", since=self._cancelled_since, limit=_PAGE)
        for job_id, finished_ms in rows:
            self._cancelled_since = max(self._cancelled_since, finished_ms)
            self._report(f"job {job_id} was cancelled")


def topic_matches(name: str, topic: str) -> bool:
    """Whether a topic filter covers a topic. Source: MQTT 5, section 4.7."""
    levels, parts = name.split("/"), topic.split("/")
    for place, level in enumerate(levels):
        if level == "#":
            return True
        if place >= len(parts) or level not in ("+", parts[place]):
            return False
    return len(levels) == len(parts)
