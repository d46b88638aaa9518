"""Channels to brokers: the messages in flight, the acknowledged ones, and the jobs in backoff.

Used by the relay, in its thread; the network thread only appends to the queue of acknowledgements.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..core.protocol.topics import is_valid_topic
from .reconnecting import ReconnectingConnection

if TYPE_CHECKING:
    from .outbox import OutboxMessage
    from .reporting import ReportCallback
    from .settings import BrokerSettings

REFUSAL_BACKOFF_SEC = 60.0
MAX_EVENTS_PER_JOB = 100
SERIAL_SENDS = 20
_PACKET_OVERHEAD = 64


class BrokerChannel:
    """The relay's channel to one broker.

    Args:
        settings: the broker.
        client_id: our client id at the broker.
        wake: called from other threads when the relay should check the channel soon.
        on_free_slots: called when events that could not be sent before may be sent now.
        report: called with sentences about the connection and about events that the broker does not accept.
        clock: monotonic seconds.
        jitter: returns a random number from 0 to 1.

    Attributes:
        link: the connection.
        acknowledged: the broker's answers that are not yet collected: message id, and the reason of a refusal or None.
        in_flight: the unacknowledged messages, by message id.
        last_sent: the number of the last message sent, by job.
        backoff_until: when the backoff of a job ends, by job.
        last_active_at: when there was last something to deliver.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        client_id: str,
        *,
        wake: Callable[[], None],
        on_free_slots: Callable[[], None],
        report: ReportCallback,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.acknowledged: deque[tuple[int, str | None]] = deque()
        self.in_flight: dict[int, OutboxMessage] = {}
        self.last_sent: dict[int, int] = {}
        self.backoff_until: dict[int, float] = {}
        self.last_active_at = 0.0
        self._first_refused: dict[int, int] = {}  # by job: the first message that the broker did not accept
        self._serial_remaining = 0  # the number of messages that are still to be sent one at a time
        self._suspect = 0  # the message that was alone in flight when the connection was lost
        self._wake = wake
        self._on_free_slots = on_free_slots
        self._report = report
        self._clock = clock
        self.link = ReconnectingConnection(
            settings,
            client_id,
            wake=wake,
            report=report,
            on_acknowledged=self._note_answer,
            clock=clock,
            jitter=jitter,
        )

    # -- capacity

    def free_slots(self) -> int:
        """Return how many more messages may be in flight now."""
        connection = self.link.connection
        if connection is None or connection.ended.is_set():
            return 0
        limit = 1 if self._serial_remaining else connection.max_in_flight
        return limit - len(self.in_flight)

    def is_idle(self, idle_sec: float) -> bool:
        """Return whether nothing is in flight and nothing was to be delivered for ``idle_sec`` seconds."""
        return not self.in_flight and self._clock() - self.last_active_at > idle_sec and not self.link.connecting

    def is_stuck(self) -> bool:
        """Return whether the broker cannot be reached or accepts none of the waiting events."""
        connection = self.link.connection
        if self.link.last_attempt_failed:
            return True
        connected = connection is not None and not connection.ended.is_set()
        return connected and bool(self.backoff_until) and not self.in_flight

    # -- sending

    def send(self, message: OutboxMessage) -> bool:
        """Pass a message to the network if it can be sent now; return whether it was."""
        connection = self.link.connection
        if connection is None or self.free_slots() <= 0 or message.job in self.backoff_until:
            return False
        size = len(message.payload.encode()) + len(message.topic.encode()) + _PACKET_OVERHEAD
        if connection.max_packet_bytes is not None and size > connection.max_packet_bytes:
            self._back_off(message, f"{size} bytes are more than its limit of {connection.max_packet_bytes}")
            return False
        if not is_valid_topic(message.topic):
            self._back_off(message, "the topic is not a valid MQTT topic")
            return False
        mid = connection.publish(message.topic, message.payload, retain=message.retain)
        self.in_flight[mid] = message
        self.last_sent[message.job] = message.number
        return True

    # -- acknowledgements

    def _note_answer(self, mid: int, refusal: str | None) -> None:
        """Queue the broker's answer. Called in the network thread."""
        self.acknowledged.append((mid, refusal))
        self._wake()

    def collect_acknowledged(self, numbers: list[int]) -> None:
        """Process the queued answers; append the numbers of acknowledged messages to ``numbers``."""
        while self.acknowledged:
            mid, refusal = self.acknowledged.popleft()
            message = self.in_flight.pop(mid, None)
            if message is None:
                continue
            self._serial_remaining = max(0, self._serial_remaining - 1)
            if refusal is not None:
                self._back_off(message, refusal)
            elif message.number < self._first_refused.get(message.job, message.number + 1):
                numbers.append(message.number)
            # Otherwise an earlier event of the job was refused: this one is sent again after it, to keep the order.

    def forget_delivered(self, numbers: set[int]) -> None:
        """Forget the last sent messages that are now marked as delivered."""
        for job in [job for job, number in self.last_sent.items() if number in numbers]:
            del self.last_sent[job]

    # -- disconnects and refusals

    def handle_disconnect(self) -> None:
        """Forget the messages in flight, which are sent again from the outbox; call ``collect_acknowledged`` first."""
        self._fall_back_to_serial()
        self.acknowledged.clear()
        self.in_flight.clear()
        self.last_sent.clear()
        self._on_free_slots()

    def _fall_back_to_serial(self) -> None:
        """Send the next messages one at a time if the connection was lost with messages in flight.

        Some brokers disconnect on a message that they do not accept, with or without a reason: MQTT 3.1.1 has no other
        answer, Mosquitto 2.0.11 does it in MQTT 5 as well, and its reason is lost if other messages were in flight. For
        a message that is alone in flight, either the answer arrives or the cause is known, and only its job backs off.
        """
        if not self.in_flight:
            return
        if self._serial_remaining and len(self.in_flight) == 1:
            [message] = self.in_flight.values()
            if message.number == self._suspect:
                self._back_off(message, "it disconnects each time")
            self._suspect = message.number
        self._serial_remaining = SERIAL_SENDS

    def _back_off(self, message: OutboxMessage, refusal: str) -> None:
        """Back off from a job of which the broker accepts no event now; other jobs continue."""
        self._on_free_slots()
        self.last_sent.pop(message.job, None)
        self._first_refused[message.job] = min(message.number, self._first_refused.get(message.job, message.number))
        if message.job not in self.backoff_until:
            self.backoff_until[message.job] = self._clock() + REFUSAL_BACKOFF_SEC
            self._report(
                f"the broker {message.settings} does not accept event {message.seq} of job {message.job_id}: "
                f"{refusal}; the job's events wait, next attempt in {REFUSAL_BACKOFF_SEC:g} s"
            )

    def end_backoffs(self) -> None:
        """End the backoffs that have expired."""
        now = self._clock()
        for job in [job for job, until in self.backoff_until.items() if now >= until]:
            if any(message.job == job for message in self.in_flight.values()):
                continue  # the answer to an earlier event is still outstanding
            del self.backoff_until[job], self._first_refused[job]
            self._on_free_slots()


class ChannelQuota:
    """The number of messages that one pass over the outbox may read, per channel.

    Args:
        channels: the open channels, by broker.
        open_channel: opens a channel to a broker that has none.
        now: the current time, monotonic seconds.

    Attributes:
        has_backlog: True if there was anything to deliver.
    """

    def __init__(
        self,
        channels: dict[BrokerSettings, BrokerChannel],
        open_channel: Callable[[BrokerSettings], BrokerChannel],
        now: float,
    ) -> None:
        self._channels = channels
        self._open_channel = open_channel
        self._now = now
        self._reserved: dict[BrokerSettings, int] = {}
        self.has_backlog = False

    def allowance(self, settings: BrokerSettings, job: int) -> tuple[int, int]:
        """Return after which message to continue and how many may be read, opening the channel if needed."""
        self.has_backlog = True
        channel = self._channels.get(settings)
        if channel is None:
            channel = self._channels[settings] = self._open_channel(settings)
        channel.last_active_at = self._now
        if job in channel.backoff_until:
            return 0, 0
        return channel.last_sent.get(job, 0), min(MAX_EVENTS_PER_JOB, self._free_slots(settings, channel))

    def reserve(self, settings: BrokerSettings, events: int) -> None:
        """Subtract messages that were read from the quota."""
        self._reserved[settings] = self._reserved.get(settings, 0) + events

    def is_exhausted(self) -> bool:
        """Return whether no connected broker can take more.

        A broker that is not connected does not count: its jobs may be followed by those of another broker.
        """
        connected = [item for item in self._channels.items() if item[1].link.connection is not None]
        return bool(connected) and all(self._free_slots(*item) <= 0 for item in connected)

    def _free_slots(self, settings: BrokerSettings, channel: BrokerChannel) -> int:
        return channel.free_slots() - self._reserved.get(settings, 0)
