"""The relay: carries an outbox to the broker, each job's events in seq order, at least once (QoS 1).

Called by ``jobdb relay`` and ``publish --deliver``. One thread reads the outbox, sends, and marks what the brokers have
acknowledged; nothing but the outbox remembers what was sent, so it may be killed at any moment. One relay at a time
delivers an outbox: it holds a lease, stops sending well before the lease can have run out, and connects under a client
id that is always the same, so that a broker drops a relay that was asleep when its successor connects.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import Busy
from ..system.interrupt_safe_flag import Flag
from .outbox import Outbox, OutboxMessage
from .reconnecting import ReconnectingConnection, ReportCallback
from .settings import BrokerSettings
from .topic_filters import is_valid_topic

LEASE_SEC = 15.0
DRAIN_SEC = 10.0
REFUSAL_BACKOFF_SEC = 60.0
MAX_EVENTS_PER_JOB = 100
SERIAL_SENDS = 20
_IDLE_CHANNEL_SEC = 600.0
_PROGRESS_SEC = 10.0
_PACKET_OVERHEAD = 64


def holder_name() -> str:
    """Who holds a lease: host, process and a random part, so that no two are alike."""
    return f"{socket.gethostname()[:100]}:{os.getpid()}:{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class RelayResult:
    """What a run did: events acknowledged by brokers and marked, and whether another relay was in charge."""

    delivered: int
    is_leader: bool


class _BrokerChannel:
    """What is on its way to one broker. Used by the relay's thread; ``acknowledged`` also by the network's.

    By job: ``last_sent`` is the last event that was sent, ``backoff_until`` until when the job is left alone, and
    ``first_refused`` the
    first event of it that the broker did not take. ``serial_remaining`` is how many more events travel alone, and
    ``suspect`` the one that was alone on its way when the connection was lost.
    """

    def __init__(self, link: ReconnectingConnection, acknowledged: deque[tuple[int, str | None]]) -> None:
        self.link = link
        self.acknowledged = acknowledged
        self.in_flight: dict[int, OutboxMessage] = {}
        self.last_sent: dict[int, int] = {}
        self.backoff_until: dict[int, float] = {}
        self.first_refused: dict[int, int] = {}
        self.serial_remaining = 0
        self.suspect = 0
        self.used_at = 0.0
        self.reserved = 0

    def quota(self) -> int:
        connection = self.link.connection
        if connection is None or connection.ended.is_set():
            return 0
        most = 1 if self.serial_remaining else connection.max_in_flight
        return most - len(self.in_flight) - self.reserved

    def forget(self) -> None:
        """The connection is gone: what was on its way is sent again, from the outbox."""
        self.acknowledged.clear()
        self.in_flight.clear()
        self.last_sent.clear()


class _ChannelQuota:
    """What one pass over the outbox may take, lane by lane."""

    def __init__(self, relay: Relay, channels: dict[BrokerSettings, _BrokerChannel], now: float) -> None:
        self._relay = relay
        self._channels = channels
        self._now = now
        self.has_backlog = False

    def allowance(self, settings: BrokerSettings, job: int) -> tuple[int, int]:
        self.has_backlog = True
        channel = self._channels.get(settings)
        if channel is None:
            channel = self._channels[settings] = self._relay.open_channel(settings)
        channel.used_at = self._now
        if job in channel.backoff_until:
            return 0, 0
        return channel.last_sent.get(job, 0), min(MAX_EVENTS_PER_JOB, channel.quota())

    def reserve(self, settings: BrokerSettings, events: int) -> None:
        self._channels[settings].reserved += events

    def is_exhausted(self) -> bool:
        # A broker that is not connected does not count: behind its jobs there may be those of another one.
        connected = [channel for channel in self._channels.values() if channel.link.connection is not None]
        return bool(connected) and all(channel.quota() <= 0 for channel in connected)


class Relay:
    """Delivers one outbox until it is stopped.

    Args:
        outbox: what to deliver.
        report: takes sentences about the progress.
        lease_sec: how long the right to deliver lasts unless renewed, in seconds.
        drain_sec: how long to go on delivering what waits after ``stop``, in seconds.
        clock: seconds that never go back.
        jitter: a number from 0 to 1, anew each time.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        report: ReportCallback,
        lease_sec: float = LEASE_SEC,
        drain_sec: float = DRAIN_SEC,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._outbox = outbox
        self._holder = holder_name()
        self._report = report
        self._lease_sec = lease_sec
        self._drain_sec = drain_sec
        self._clock = clock
        self._jitter = jitter
        self._channels: dict[BrokerSettings, _BrokerChannel] = {}
        self._activity = Flag()
        self._stop = Flag()
        self._may_send_until = 0.0
        self._renew_at = 0.0
        self._seen_version: int | None = None
        self._read_at = 0.0
        self._has_backlog = False
        self._acknowledged: list[int] = []
        self._delivered = 0
        self._last_progress: tuple[float, int] = (0.0, 0)

    def stop(self) -> None:
        """Asks the run to end, from any thread or signal handler."""
        self._stop.set()
        self._activity.set()

    def run(self, *, until_empty: bool = False, one_try: bool = False, timeout_sec: float | None = None) -> RelayResult:
        """Delivers.

        Args:
            until_empty: end when nothing waits any more, or when another relay is in charge.
            one_try: end as well when no broker can be reached or takes what waits.
            timeout_sec: end after so many seconds at the latest.

        Returns:
            How many events were delivered.
        """
        deadline = None if timeout_sec is None else self._clock() + timeout_sec
        standby_reported = is_leader = False
        try:
            while not self._stop.is_set() and (deadline is None or self._clock() < deadline):
                if not self._keep_lease():
                    if until_empty:
                        break
                    if not standby_reported:
                        self._report("another relay delivers this outbox; waiting to take over")
                        standby_reported = True
                    self._stop.wait(min(1.0, self._lease_sec / 4))
                    continue
                standby_reported, is_leader = False, True
                progressed = self._step()
                if until_empty and not progressed and self._is_empty():
                    break
                if one_try and not progressed and self._is_stuck():
                    break
                if not progressed:
                    self._pause(deadline)
            if self._stop.is_set() and is_leader:
                self._drain()
        finally:
            self._shut_down(is_leader)
        return RelayResult(self._delivered, is_leader)

    # -- the lease

    def _keep_lease(self) -> bool:
        """Whether we may send now; renews the lease at a third of its time."""
        now = self._clock()
        if now >= self._renew_at:
            try:
                taken = self._outbox.acquire_lease(self._holder, round(self._lease_sec * 1000))
            except Busy:
                taken = now < self._may_send_until
            else:
                # Counted from before the call, and short of the end: what is handed to the network now must be out
                # before anybody else may begin.
                self._may_send_until = now + self._lease_sec * 0.8 if taken else 0.0
            if not taken:
                self._close_channels()
                return False
            self._renew_at = now + self._lease_sec / 3
        if self._clock() < self._may_send_until:
            return True
        self._renew_at = 0.0  # this process slept through its lease
        self._close_channels()
        return False

    def _close_channels(self) -> None:
        """Somebody else may be sending: nothing of ours may stay on its way."""
        for channel in self._channels.values():
            channel.link.close()
        self._channels.clear()
        self._seen_version = None

    # -- one turn

    def _step(self) -> bool:
        """Marks, tends the connections, sends; True when something moved."""
        marked = self._mark()
        for settings, channel in list(self._channels.items()):
            had = channel.link.connection
            if channel.link.poll():
                self._seen_version = None
            if had is not None and channel.link.connection is not had:
                self._collect_acks(channel)
                self._fall_back_to_serial(channel)
                channel.forget()
                self._seen_version = None
            self._end_backoffs(channel)
            self._close_if_idle(settings, channel)
        sent = self._send()
        self._report_progress()
        return marked or sent

    def _mark(self) -> bool:
        """Notes in one transaction what the brokers have acknowledged."""
        for channel in self._channels.values():
            self._collect_acks(channel)
        if not self._acknowledged:
            return False
        try:
            self._outbox.mark(self._acknowledged)
        except Busy as busy:
            self._report(f"{busy}; trying again")
            return False
        self._delivered += len(self._acknowledged)
        done = set(self._acknowledged)
        self._acknowledged.clear()
        for channel in self._channels.values():
            for job in [job for job, number in channel.last_sent.items() if number in done]:
                del channel.last_sent[job]
        return True

    def _collect_acks(self, channel: _BrokerChannel) -> None:
        """What a broker has said of what it was sent."""
        while channel.acknowledged:
            mid, refusal = channel.acknowledged.popleft()
            message = channel.in_flight.pop(mid, None)
            if message is None:
                continue
            channel.serial_remaining = max(0, channel.serial_remaining - 1)
            if refusal is not None:
                self._back_off(channel, message, refusal)
            elif message.number < channel.first_refused.get(message.job, message.number + 1):
                self._acknowledged.append(message.number)
            # Else an earlier event of the job was refused: this one is sent again behind that, to be in order.

    def _fall_back_to_serial(self, channel: _BrokerChannel) -> None:
        """The connection was lost with events on their way: the next ones travel alone for a while.

        Some brokers hang up on an event that they do not take, with or without saying so: MQTT 3.1.1 knows no other
        answer, Mosquitto 2.0.11 does it in MQTT 5 too, and what it said is lost when more was on its way. Alone the
        answer arrives, or it is known which event it was, and that job alone is parked.
        """
        if not channel.in_flight:
            return
        if channel.serial_remaining and len(channel.in_flight) == 1:
            [message] = channel.in_flight.values()
            if message.number == channel.suspect:
                self._back_off(channel, message, "it hangs up each time")
            channel.suspect = message.number
        channel.serial_remaining = SERIAL_SENDS

    def _back_off(self, channel: _BrokerChannel, message: OutboxMessage, refusal: str) -> None:
        """The broker takes none of a job's events now: leave that job alone for a while, others go on."""
        self._seen_version = None  # there is room for others
        channel.last_sent.pop(message.job, None)
        channel.first_refused[message.job] = min(message.number, channel.first_refused.get(message.job, message.number))
        if message.job not in channel.backoff_until:
            channel.backoff_until[message.job] = self._clock() + REFUSAL_BACKOFF_SEC
            self._report(
                f"the broker {message.settings} does not take event {message.seq} of job {message.job_id}: {refusal}; "
                f"its events wait, trying again in {REFUSAL_BACKOFF_SEC:g} s"
            )

    def _end_backoffs(self, channel: _BrokerChannel) -> None:
        now = self._clock()
        for job in [job for job, until in channel.backoff_until.items() if now >= until]:
            if any(message.job == job for message in channel.in_flight.values()):
                continue  # the broker still owes an answer about an event of before
            del channel.backoff_until[job], channel.first_refused[job]
            self._seen_version = None

    def _close_if_idle(self, settings: BrokerSettings, channel: _BrokerChannel) -> None:
        """A broker for which nothing came for a long time is left; its lane comes back with the next event."""
        if (
            not channel.in_flight
            and self._clock() - channel.used_at > _IDLE_CHANNEL_SEC
            and not channel.link.connecting
        ):
            channel.link.close()
            del self._channels[settings]

    def open_channel(self, settings: BrokerSettings) -> _BrokerChannel:
        """A lane to a broker for which something waits."""
        acknowledged: deque[tuple[int, str | None]] = deque()

        def note(mid: int, refusal: str | None) -> None:
            acknowledged.append((mid, refusal))
            self._activity.set()

        link = ReconnectingConnection(
            settings,
            self._outbox.client_id(settings),
            wake=self._activity.set,
            report=self._report,
            on_acknowledged=note,
            clock=self._clock,
            jitter=self._jitter,
        )
        return _BrokerChannel(link, acknowledged)

    def _send(self) -> bool:
        """Reads what waits, where something can have changed, and hands it to the network."""
        version, now = self._outbox.version(), self._clock()
        if version == self._seen_version and now - self._read_at < 1.0:
            return False
        quota = _ChannelQuota(self, self._channels, now)
        if (
            self._channels
            and now - self._read_at < 0.2
            and all(channel.quota() <= 0 for channel in self._channels.values())
        ):
            return False
        self._seen_version, self._read_at = version, now
        messages = self._outbox.read(quota)
        self._has_backlog = quota.has_backlog
        for channel in self._channels.values():
            channel.reserved = 0
        sent = False
        for message in messages:
            if self._clock() >= self._may_send_until:
                break
            sent = self._send_one(self._channels[message.settings], message) or sent
        if sent:
            self._seen_version = None  # there may be more than fitted
        return sent

    def _send_one(self, channel: _BrokerChannel, message: OutboxMessage) -> bool:
        connection = channel.link.connection
        if connection is None or channel.quota() <= 0 or message.job in channel.backoff_until:
            return False
        size = len(message.payload.encode()) + len(message.topic.encode()) + _PACKET_OVERHEAD
        if connection.max_packet_bytes is not None and size > connection.max_packet_bytes:
            self._back_off(channel, message, f"{size} bytes are more than its limit of {connection.max_packet_bytes}")
            return False
        if not is_valid_topic(message.topic):
            self._back_off(channel, message, "the topic is not one that MQTT allows")
            return False
        mid = connection.publish(message.topic, message.payload, retain=message.retain)
        channel.in_flight[mid] = message
        channel.last_sent[message.job] = message.number
        return True

    # -- waiting and ending

    def _busy(self) -> bool:
        return any(channel.in_flight or channel.link.connecting for channel in self._channels.values())

    def _is_empty(self) -> bool:
        return not self._busy() and not self._has_backlog and self._outbox.left() == 0

    def _is_stuck(self) -> bool:
        def failed(channel: _BrokerChannel) -> bool:
            connected = channel.link.connection is not None and not channel.link.connection.ended.is_set()
            return channel.link.last_attempt_failed or (
                connected and bool(channel.backoff_until) and not channel.in_flight
            )

        return bool(self._channels) and all(failed(channel) for channel in self._channels.values())

    def _pause(self, deadline: float | None) -> None:
        left = 0.25 if deadline is None else max(0.0, min(0.25, deadline - self._clock()))
        if self._busy():
            self._activity.wait(min(left, 0.01))
            self._activity.clear()
        else:
            seen = self._outbox.version() if self._seen_version is None else self._seen_version
            self._outbox.wait_for_change(seen, min(left, 0.1) if self._has_backlog else left)

    def _drain(self) -> None:
        """After ``stop``: goes on with what waits, as long as a broker takes it, for a bounded time."""
        deadline = self._clock() + self._drain_sec
        while self._clock() < deadline and self._keep_lease():
            progressed = self._step()
            if progressed:
                continue
            if not any(channel.in_flight for channel in self._channels.values()):
                break
            self._activity.wait(0.01)
            self._activity.clear()

    def _shut_down(self, is_leader: bool) -> None:
        try:
            self._mark()
        finally:
            for channel in self._channels.values():
                channel.link.close()
            self._channels.clear()
            if is_leader:
                self._outbox.release_lease(self._holder)

    def _report_progress(self) -> None:
        """A line of progress from time to time."""
        now = self._clock()
        told_at, last_delivered = self._last_progress
        if self._delivered != last_delivered and now - told_at >= _PROGRESS_SEC:
            self._last_progress = (now, self._delivered)
            self._report(f"delivered {self._delivered} events")
