"""The relay: delivers an outbox to its brokers, each job's events in seq order, at least once (QoS 1).

Called by ``jobdb relay`` and ``publish --deliver``. One thread reads the outbox, sends messages, and marks those that
the brokers have acknowledged. All state is in the outbox, so the relay may be killed at any time. One relay at a time
delivers an outbox: it holds a lease, stops sending well before the lease can expire, and connects under a fixed client
id, so that the broker disconnects a suspended relay when its successor connects.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import Busy
from ..system.interrupt_safe_flag import Flag
from .broker_channel import BrokerChannel, ChannelQuota
from .relay_lease import RelayLease

if TYPE_CHECKING:
    from .outbox import Outbox
    from .reporting import ReportCallback
    from .settings import BrokerSettings

LEASE_SEC = 15.0
DRAIN_SEC = 10.0
_IDLE_CHANNEL_SEC = 600.0
_PROGRESS_SEC = 10.0
_READ_INTERVAL_SEC = 1.0
_FULL_READ_INTERVAL_SEC = 0.2


@dataclass(frozen=True, slots=True)
class RelayResult:
    """The result of a run.

    Attributes:
        delivered: the number of events that brokers acknowledged and that were marked as delivered.
        is_leader: True if this relay held the lease; otherwise another relay delivers the outbox.
    """

    delivered: int
    is_leader: bool


class Relay:
    """The relay of one outbox.

    Args:
        outbox: the outbox to deliver.
        report: called with sentences about progress.
        lease_sec: how long the lease lasts unless renewed, in seconds.
        drain_sec: how long to continue delivering waiting events after ``stop``, in seconds.
        clock: monotonic seconds.
        jitter: returns a random number from 0 to 1.

    Example:
        outbox = RegistryOutbox(registry.engine, report=print)
        Relay(outbox, report=print).run(until_empty=True, timeout_sec=60)
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
        self._report = report
        self._lease = RelayLease(outbox, lease_sec, clock)
        self._standby_sec = min(1.0, lease_sec / 4)
        self._drain_sec = drain_sec
        self._clock = clock
        self._jitter = jitter
        self._channels: dict[BrokerSettings, BrokerChannel] = {}
        self._activity = Flag()
        self._stop = Flag()
        self._read_version: int | None = None  # None: read the outbox again even if it has not changed
        self._read_at = 0.0
        self._has_backlog = False
        self._acknowledged: list[int] = []
        self._delivered = 0
        self._last_progress: tuple[float, int] = (0.0, 0)

    def stop(self) -> None:
        """Request the run to end; may be called from any thread or signal handler."""
        self._stop.set()
        self._activity.set()

    def run(self, *, until_empty: bool = False, one_try: bool = False, timeout_sec: float | None = None) -> RelayResult:
        """Deliver the outbox until stopped, or until a condition below ends the run.

        Args:
            until_empty: end when nothing waits any more, or when another relay holds the lease.
            one_try: also end when no broker can be reached or accepts the waiting events.
            timeout_sec: the maximum length of the run, in seconds; None: no limit.

        Returns:
            The number of events delivered, and whether this relay held the lease.
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
                    self._stop.wait(self._standby_sec)
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

    def _keep_lease(self) -> bool:
        """Return whether we may send now; if not, another relay may, so the messages in flight are abandoned."""
        if self._lease.keep():
            return True
        self._close_channels()
        self._request_read()
        return False

    def _close_channels(self) -> None:
        for channel in self._channels.values():
            channel.link.close()
        self._channels.clear()

    # -- a step

    def _step(self) -> bool:
        """Mark acknowledged messages, poll the connections, and send; return whether there was any progress."""
        marked = self._mark_acknowledged()
        for settings, channel in list(self._channels.items()):
            previous = channel.link.connection
            if channel.link.poll():
                self._request_read()
            if previous is not None and channel.link.connection is not previous:
                channel.collect_acknowledged(self._acknowledged)
                channel.handle_disconnect()
            channel.end_backoffs()
            if channel.is_idle(_IDLE_CHANNEL_SEC):
                channel.link.close()
                del self._channels[settings]
        sent = self._send()
        self._report_progress()
        return marked or sent

    def _mark_acknowledged(self) -> bool:
        """Mark acknowledged messages as delivered, in one transaction; return whether there were any."""
        for channel in self._channels.values():
            channel.collect_acknowledged(self._acknowledged)
        if not self._acknowledged:
            return False
        try:
            self._outbox.mark_delivered(self._acknowledged)
        except Busy as busy:
            self._report(f"{busy}; trying again")
            return False
        self._delivered += len(self._acknowledged)
        delivered = set(self._acknowledged)
        self._acknowledged.clear()
        for channel in self._channels.values():
            channel.forget_delivered(delivered)
        return True

    # -- sending

    def _open_channel(self, settings: BrokerSettings) -> BrokerChannel:
        return BrokerChannel(
            settings,
            self._outbox.client_id(settings),
            wake=self._activity.set,
            on_free_slots=self._request_read,
            report=self._report,
            clock=self._clock,
            jitter=self._jitter,
        )

    def _request_read(self) -> None:
        """Read the outbox again even if nothing was committed, because more events can now be sent."""
        self._read_version = None

    def _send(self) -> bool:
        """Read waiting messages if anything may have changed, and send them; return whether any were sent."""
        version, now = self._outbox.data_version(), self._clock()
        since_read = now - self._read_at
        if version == self._read_version and since_read < _READ_INTERVAL_SEC:
            return False
        is_full = bool(self._channels) and all(channel.free_slots() <= 0 for channel in self._channels.values())
        if is_full and since_read < _FULL_READ_INTERVAL_SEC:
            return False
        self._read_version, self._read_at = version, now
        quota = ChannelQuota(self._channels, self._open_channel, now)
        messages = self._outbox.read(quota)
        self._has_backlog = quota.has_backlog
        sent = False
        for message in messages:
            if not self._lease.may_send():
                break
            sent = self._channels[message.settings].send(message) or sent
        if sent:
            self._request_read()  # more events may be waiting than the quota allowed
        return sent

    # -- waiting and ending

    def _is_busy(self) -> bool:
        return any(channel.in_flight or channel.link.connecting for channel in self._channels.values())

    def _is_empty(self) -> bool:
        return not self._is_busy() and not self._has_backlog and self._outbox.count_pending() == 0

    def _is_stuck(self) -> bool:
        return bool(self._channels) and all(channel.is_stuck() for channel in self._channels.values())

    def _pause(self, deadline: float | None) -> None:
        remaining = 0.25 if deadline is None else max(0.0, min(0.25, deadline - self._clock()))
        if self._is_busy():
            self._activity.wait(min(remaining, 0.01))
            self._activity.clear()
        else:
            seen = self._outbox.data_version() if self._read_version is None else self._read_version
            self._outbox.wait_for_change(seen, min(remaining, 0.1) if self._has_backlog else remaining)

    def _drain(self) -> None:
        """Continue to deliver waiting events after ``stop`` while a broker accepts them, for a bounded time."""
        deadline = self._clock() + self._drain_sec
        while self._clock() < deadline and self._keep_lease():
            if self._step():
                continue
            if not any(channel.in_flight for channel in self._channels.values()):
                break
            self._activity.wait(0.01)
            self._activity.clear()

    def _shut_down(self, is_leader: bool) -> None:
        try:
            self._mark_acknowledged()
        finally:
            self._close_channels()
            if is_leader:
                self._lease.release()

    def _report_progress(self) -> None:
        """Report the number of delivered events periodically."""
        now = self._clock()
        reported_at, reported = self._last_progress
        if self._delivered != reported and now - reported_at >= _PROGRESS_SEC:
            self._last_progress = (now, self._delivered)
            self._report(f"delivered {self._delivered} events")
