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
from ..engines.base import Engine
from ..engines.sql.verifying import Examined
from ..errors import Busy
from ..model import Acceptance, Arrival, Verdict
from ..system.flag import Flag
from .catching_up import SUBSCRIBER, CatchingUp
from .connection import ConnectionFailed, Message
from .inbox import Inbox
from .link import Link, Report
from .refusals import Refusals
from .settings import BrokerSettings
from .topics import is_topic, topic_matches

BATCH = 500
BATCH_BYTES = 1_048_576
TURN_SEC = 1.0
GRACE_SEC = 10.0
SWEEP_SEC = 2.0
_SUSPICIOUS_LOSSES = 3
_UNUSABLE_SAID = 20


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
        self._subscriber = subscriber
        self._job_id = job_id
        self._filters = list(filters)
        self._subscribed: set[str] = set()
        self._window = window
        self._report = report
        self._refusals = Refusals(report)
        self._known = CatchingUp(
            engine,
            subscriber=subscriber,
            job_id=job_id,
            start=start,
            grace_sec=grace_sec,
            tell=lambda told: self._tell([told]),
            report=report,
        )
        self._on_accepted = on_accepted
        self._inbox = Inbox()
        self._unusable: set[str] = set()
        self._activity = Flag()
        self._stop = Flag()
        self._forget = False
        self._news: OrderedDict[str, None] = OrderedDict()
        self._news_lock = threading.Lock()
        self._news_changed = Flag()
        self._failure: BaseException | None = None
        self._sweep_at = 0.0
        self._topics_at = 0.0
        self._topics_seen: int | None = None
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
        self._news_changed.wait(timeout_sec)
        with self._news_lock:
            news = self._news.popitem(last=False)[0] if self._news else None
            if not self._news and self._failure is None:
                self._news_changed.clear()
        if news is None:
            self.check()
        return news

    def check(self) -> None:
        """Raises what made the intake end, if it did."""
        if self._failure is not None:
            raise self._failure

    # -- the thread

    def _arrived(self, message: Message) -> None:
        """In the network's thread."""
        self._activity.set()  # before there is room, which the intake makes
        self._inbox.put(message)
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
            self._inbox.close()
            self._link.close(forget_session=self._forget)
            with self._news_lock:
                self._news_changed.set()

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
            self._accept_waiting()
            self._refusals.say_dropped(self._inbox.take_dropped())
            if time.monotonic() >= self._topics_at:
                self._subscribe()
            if time.monotonic() >= self._sweep_at:
                self._known.sweep(self._stop.is_set)
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
            refused = connection.subscribe(wanted, meanwhile=self._accept_waiting)
        except ConnectionFailed as failure:
            self._link.drop(str(failure))
            return
        self._subscribed.update(wanted)
        self._report(f"subscribed to {', '.join(wanted[:5])}" + (f" and {len(wanted) - 5} more" if wanted[5:] else ""))
        for name in refused:
            self._report(f"the broker refuses the subscription to {name}; its events come from the database alone")

    def _wanted(self) -> list[str]:
        if self._job_id is not None:
            return [topic for topic in self._filters if self._usable(topic)]
        with self._store.read() as tx:
            topics = [f"{row[0]}/events" for row in tx.all(SUBSCRIBER.live_topics)]
        return self._filters + [
            topic
            for topic in topics
            if self._usable(topic) and not any(topic_matches(name, topic) for name in self._filters)
        ]

    def _usable(self, topic: str) -> bool:
        """Tell whether a job's topic can be subscribed to; of one that cannot it is said once, of many how many."""
        if is_topic(topic):
            return True
        if topic not in self._unusable:
            self._unusable.add(topic)
            count = len(self._unusable)
            if count <= _UNUSABLE_SAID or count % 1000 == 0:
                self._report(
                    f"topic {topic!r:.200} of a job is not one that MQTT allows ({count} such so far); its events come "
                    "from the database alone"
                )
        return False

    # -- accepting

    def _accept_waiting(self) -> None:
        """Accepts what waits, for a bounded time: there is more to do, however much comes in."""
        until = time.monotonic() + TURN_SEC
        while self._inbox and not self._stop.is_set():
            if time.monotonic() > until:
                self._activity.set()
                return
            self._accept_batch()

    def _accept_batch(self) -> None:
        """All that has arrived, up to a bound, in one transaction; then its acknowledgements, in order."""
        batch = self._inbox.first(BATCH, BATCH_BYTES)
        examined = self._engine.examine([Arrival(message.payload, message.topic) for message in batch])
        run = _Run(self._known, Counter(each.wire.job_id for each in examined if each.wire is not None))
        kept = [each for message, each in zip(batch, examined, strict=True) if self._prepare(message, each, run)]
        answers = []
        if kept:
            answers = self._engine.accept_examined(
                kept, subscriber=self._subscriber, window=self._window, start="beginning"
            )
        self._inbox.remove(len(batch))
        for message in batch:
            message.acknowledge()
        accepted = []
        for answer in answers:
            self._note(answer)
            if answer.verdict is Verdict.ACCEPTED and answer.job_id is not None:
                accepted.append(answer.job_id)
        self._tell(accepted)

    def _prepare(self, message: Message, examined: Examined, run: _Run) -> bool:
        """Makes ready for one message; False when it can be passed over.

        A job that is seen for the first time gets its beginning, and what is recorded here between the last accepted
        event and this one is accepted first: the broker has lost it, or delivered it before we subscribed.
        """
        job_id, wire = examined.job_id, examined.wire
        if self._job_id is not None and job_id is not None and job_id != self._job_id:
            return not self._known.shares_topic(job_id, message.topic)
        if wire is None:
            return True
        numbers = self._known.numbers_of(wire.job_id)
        if numbers is not None and wire.seq <= numbers.last_seq:
            numbers = self._known.look_again(wire.job_id)
        last = max(numbers.last_seq if numbers else 0, run.last_of(wire.job_id))
        if numbers is None or message.retained or wire.seq > last + 1:
            if not examined.genuine and not self._known.is_authentic(wire, message.topic):
                return True
            numbers = self._known.begin(wire.job_id)
            if numbers is None:
                return True
            if message.retained and wire.seq <= numbers.start_seq and self._known.is_recorded(wire):
                return False  # the broker tells a newcomer of an end before its time: no news, and no alarm
            last = max(numbers.last_seq, last)
            if wire.seq > last + 1:
                self._known.close_gap(wire.job_id, last, wire.seq)
        run.goes_on(wire, last)
        return True

    def _note(self, answer: Acceptance) -> None:
        if answer.verdict.refused:
            self._refusals.say(answer)
            return
        if answer.verdict is not Verdict.ACCEPTED or answer.job_id is None or answer.seq is None:
            return
        self._known.accepted(answer.job_id, answer.seq)
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
        with self._news_lock:
            self._news.update(dict.fromkeys(job_ids))
            self._news_changed.set()


class _Run:
    """How far each job will be when what comes before a message in its batch is accepted.

    An event that differs from what is recorded under its seq brings its job no further: a forged one must not stand in
    for a genuine one that the broker has lost.

    Args:
        known: asked for what is recorded of a job of which the batch has several messages.
        times: how many it has of each.
    """

    def __init__(self, known: CatchingUp, times: Counter[str]) -> None:
        self._known = known
        self._times = times
        self._last: dict[str, int] = {}
        self._recorded: dict[str, dict[int, bytes]] = {}

    def last_of(self, job_id: str) -> int:
        """The highest seq that the messages so far bring; 0: none."""
        return self._last.get(job_id, 0)

    def goes_on(self, wire: WireEvent, last: int) -> None:
        """Notes a message that comes when the job is at ``last``."""
        job_id = wire.job_id
        if self._times[job_id] == 1:
            return
        if job_id not in self._recorded:
            self._recorded[job_id] = self._known.recorded_digests(job_id, after=last, limit=BATCH)
        genuine = self._recorded[job_id].get(wire.seq, wire.digest) == wire.digest
        self._last[job_id] = max(last, wire.seq) if genuine else last
