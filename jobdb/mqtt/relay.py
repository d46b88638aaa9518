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
from ..system.flag import Flag
from .link import Link, Report
from .outbox import Outbox, Parcel
from .settings import BrokerSettings
from .topics import is_topic

LEASE_SEC = 15.0
DRAIN_SEC = 10.0
PARKED_SEC = 60.0
EVENTS_A_TURN = 100
ONE_BY_ONE = 20
_IDLE_LINK_SEC = 600.0
_PROGRESS_SEC = 10.0
_PACKET_OVERHEAD = 64


def holder_name() -> str:
    """Who holds a lease: host, process and a random part, so that no two are alike."""
    return f"{socket.gethostname()[:100]}:{os.getpid()}:{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class Relayed:
    """What a run did: events acknowledged by brokers and marked, and whether another relay was in charge."""

    delivered: int
    in_charge: bool


class _Lane:
    """What is on its way to one broker. Used by the relay's thread; ``acknowledged`` also by the network's.

    By job: ``newest`` is the last event that was sent, ``parked`` until when the job is left alone, and ``refused`` the
    first event of it that the broker did not take. ``one_by_one`` is how many more events travel alone, and ``suspect``
    the one that was alone on its way when the connection was lost.
    """

    def __init__(self, link: Link, acknowledged: deque[tuple[int, str | None]]) -> None:
        self.link = link
        self.acknowledged = acknowledged
        self.in_flight: dict[int, Parcel] = {}
        self.newest: dict[int, int] = {}
        self.parked: dict[int, float] = {}
        self.refused: dict[int, int] = {}
        self.one_by_one = 0
        self.suspect = 0
        self.used_at = 0.0
        self.planned = 0

    def room(self) -> int:
        connection = self.link.connection
        if connection is None or connection.ended.is_set():
            return 0
        most = 1 if self.one_by_one else connection.most_in_flight
        return most - len(self.in_flight) - self.planned

    def forget(self) -> None:
        """The connection is gone: what was on its way is sent again, from the outbox."""
        self.acknowledged.clear()
        self.in_flight.clear()
        self.newest.clear()


class _Room:
    """What one pass over the outbox may take, lane by lane."""

    def __init__(self, relay: Relay, lanes: dict[BrokerSettings, _Lane], now: float) -> None:
        self._relay = relay
        self._lanes = lanes
        self._now = now
        self.somebody_waits = False

    def ask(self, settings: BrokerSettings, job: int) -> tuple[int, int]:
        self.somebody_waits = True
        lane = self._lanes.get(settings)
        if lane is None:
            lane = self._lanes[settings] = self._relay.open_lane(settings)
        lane.used_at = self._now
        if job in lane.parked:
            return 0, 0
        return lane.newest.get(job, 0), min(EVENTS_A_TURN, lane.room())

    def took(self, settings: BrokerSettings, events: int) -> None:
        self._lanes[settings].planned += events

    def full(self) -> bool:
        # A broker that is not connected does not count: behind its jobs there may be those of another one.
        connected = [lane for lane in self._lanes.values() if lane.link.connection is not None]
        return bool(connected) and all(lane.room() <= 0 for lane in connected)


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
        report: Report,
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
        self._lanes: dict[BrokerSettings, _Lane] = {}
        self._activity = Flag()
        self._stop = Flag()
        self._may_send_until = 0.0
        self._renew_at = 0.0
        self._seen: int | None = None
        self._read_at = 0.0
        self._waits = False
        self._done: list[int] = []
        self._delivered = 0
        self._told: tuple[float, int] = (0.0, 0)

    def stop(self) -> None:
        """Asks the run to end, from any thread or signal handler."""
        self._stop.set()
        self._activity.set()

    def run(self, *, until_empty: bool = False, one_try: bool = False, timeout_sec: float | None = None) -> Relayed:
        """Delivers.

        Args:
            until_empty: end when nothing waits any more, or when another relay is in charge.
            one_try: end as well when no broker can be reached or takes what waits.
            timeout_sec: end after so many seconds at the latest.

        Returns:
            How many events were delivered.
        """
        deadline = None if timeout_sec is None else self._clock() + timeout_sec
        told_to_wait = in_charge = False
        try:
            while not self._stop.is_set() and (deadline is None or self._clock() < deadline):
                if not self._keep_lease():
                    if until_empty:
                        break
                    if not told_to_wait:
                        self._report("another relay delivers this outbox; waiting to take over")
                        told_to_wait = True
                    self._stop.wait(min(1.0, self._lease_sec / 4))
                    continue
                told_to_wait, in_charge = False, True
                moved = self._step()
                if until_empty and not moved and self._is_empty():
                    break
                if one_try and not moved and self._is_hopeless():
                    break
                if not moved:
                    self._pause(deadline)
            if self._stop.is_set() and in_charge:
                self._drain()
        finally:
            self._end(in_charge)
        return Relayed(self._delivered, in_charge)

    # -- the lease

    def _keep_lease(self) -> bool:
        """Whether we may send now; renews the lease at a third of its time."""
        now = self._clock()
        if now >= self._renew_at:
            try:
                taken = self._outbox.take_lease(self._holder, round(self._lease_sec * 1000))
            except Busy:
                taken = now < self._may_send_until
            else:
                # Counted from before the call, and short of the end: what is handed to the network now must be out
                # before anybody else may begin.
                self._may_send_until = now + self._lease_sec * 0.8 if taken else 0.0
            if not taken:
                self._let_go()
                return False
            self._renew_at = now + self._lease_sec / 3
        if self._clock() < self._may_send_until:
            return True
        self._renew_at = 0.0  # this process slept through its lease
        self._let_go()
        return False

    def _let_go(self) -> None:
        """Somebody else may be sending: nothing of ours may stay on its way."""
        for lane in self._lanes.values():
            lane.link.close()
        self._lanes.clear()
        self._seen = None

    # -- one turn

    def _step(self) -> bool:
        """Marks, tends the connections, sends; True when something moved."""
        marked = self._mark()
        for settings, lane in list(self._lanes.items()):
            had = lane.link.connection
            if lane.link.tend():
                self._seen = None
            if had is not None and lane.link.connection is not had:
                self._take_answers(lane)
                self._be_careful(lane)
                lane.forget()
                self._seen = None
            self._unpark(lane)
            self._retire(settings, lane)
        sent = self._send()
        self._tell()
        return marked or sent

    def _mark(self) -> bool:
        """Notes in one transaction what the brokers have acknowledged."""
        for lane in self._lanes.values():
            self._take_answers(lane)
        if not self._done:
            return False
        try:
            self._outbox.mark(self._done)
        except Busy as busy:
            self._report(f"{busy}; trying again")
            return False
        self._delivered += len(self._done)
        done = set(self._done)
        self._done.clear()
        for lane in self._lanes.values():
            for job in [job for job, number in lane.newest.items() if number in done]:
                del lane.newest[job]
        return True

    def _take_answers(self, lane: _Lane) -> None:
        """What a broker has said of what it was sent."""
        while lane.acknowledged:
            mid, refusal = lane.acknowledged.popleft()
            parcel = lane.in_flight.pop(mid, None)
            if parcel is None:
                continue
            lane.one_by_one = max(0, lane.one_by_one - 1)
            if refusal is not None:
                self._refused(lane, parcel, refusal)
            elif parcel.number < lane.refused.get(parcel.job, parcel.number + 1):
                self._done.append(parcel.number)
            # Else an earlier event of the job was refused: this one is sent again behind that, to be in order.

    def _be_careful(self, lane: _Lane) -> None:
        """The connection was lost with events on their way: the next ones travel alone for a while.

        Some brokers hang up on an event that they do not take, with or without saying so: MQTT 3.1.1 knows no other
        answer, Mosquitto 2.0.11 does it in MQTT 5 too, and what it said is lost when more was on its way. Alone the
        answer arrives, or it is known which event it was, and that job alone is parked.
        """
        if not lane.in_flight:
            return
        if lane.one_by_one and len(lane.in_flight) == 1:
            [parcel] = lane.in_flight.values()
            if parcel.number == lane.suspect:
                self._refused(lane, parcel, "it hangs up each time")
            lane.suspect = parcel.number
        lane.one_by_one = ONE_BY_ONE

    def _refused(self, lane: _Lane, parcel: Parcel, refusal: str) -> None:
        """The broker takes none of a job's events now: leave that job alone for a while, others go on."""
        self._seen = None  # there is room for others
        lane.newest.pop(parcel.job, None)
        lane.refused[parcel.job] = min(parcel.number, lane.refused.get(parcel.job, parcel.number))
        if parcel.job not in lane.parked:
            lane.parked[parcel.job] = self._clock() + PARKED_SEC
            self._report(
                f"the broker {parcel.settings} does not take event {parcel.seq} of job {parcel.job_id}: {refusal}; "
                f"its events wait, trying again in {PARKED_SEC:g} s"
            )

    def _unpark(self, lane: _Lane) -> None:
        now = self._clock()
        for job in [job for job, until in lane.parked.items() if now >= until]:
            if any(parcel.job == job for parcel in lane.in_flight.values()):
                continue  # the broker still owes an answer about an event of before
            del lane.parked[job], lane.refused[job]
            self._seen = None

    def _retire(self, settings: BrokerSettings, lane: _Lane) -> None:
        """A broker for which nothing came for a long time is left; its lane comes back with the next event."""
        if not lane.in_flight and self._clock() - lane.used_at > _IDLE_LINK_SEC and not lane.link.connecting:
            lane.link.close()
            del self._lanes[settings]

    def open_lane(self, settings: BrokerSettings) -> _Lane:
        """A lane to a broker for which something waits."""
        acknowledged: deque[tuple[int, str | None]] = deque()

        def note(mid: int, refusal: str | None) -> None:
            acknowledged.append((mid, refusal))
            self._activity.set()

        link = Link(
            settings,
            self._outbox.client_id(settings),
            wake=self._activity.set,
            report=self._report,
            on_acknowledged=note,
            clock=self._clock,
            jitter=self._jitter,
        )
        return _Lane(link, acknowledged)

    def _send(self) -> bool:
        """Reads what waits, where something can have changed, and hands it to the network."""
        version, now = self._outbox.version(), self._clock()
        if version == self._seen and now - self._read_at < 1.0:
            return False
        room = _Room(self, self._lanes, now)
        if self._lanes and now - self._read_at < 0.2 and all(lane.room() <= 0 for lane in self._lanes.values()):
            return False
        self._seen, self._read_at = version, now
        parcels = self._outbox.read(room)
        self._waits = room.somebody_waits
        for lane in self._lanes.values():
            lane.planned = 0
        sent = False
        for parcel in parcels:
            if self._clock() >= self._may_send_until:
                break
            sent = self._send_one(self._lanes[parcel.settings], parcel) or sent
        if sent:
            self._seen = None  # there may be more than fitted
        return sent

    def _send_one(self, lane: _Lane, parcel: Parcel) -> bool:
        connection = lane.link.connection
        if connection is None or lane.room() <= 0 or parcel.job in lane.parked:
            return False
        size = len(parcel.payload.encode()) + len(parcel.topic.encode()) + _PACKET_OVERHEAD
        if connection.largest_packet is not None and size > connection.largest_packet:
            self._refused(lane, parcel, f"{size} bytes are more than its limit of {connection.largest_packet}")
            return False
        if not is_topic(parcel.topic):
            self._refused(lane, parcel, "the topic is not one that MQTT allows")
            return False
        mid = connection.publish(parcel.topic, parcel.payload, retain=parcel.retain)
        lane.in_flight[mid] = parcel
        lane.newest[parcel.job] = parcel.number
        return True

    # -- waiting and ending

    def _busy(self) -> bool:
        return any(lane.in_flight or lane.link.connecting for lane in self._lanes.values())

    def _is_empty(self) -> bool:
        return not self._busy() and not self._waits and self._outbox.left() == 0

    def _is_hopeless(self) -> bool:
        def failed(lane: _Lane) -> bool:
            connected = lane.link.connection is not None and not lane.link.connection.ended.is_set()
            return lane.link.unreached or (connected and bool(lane.parked) and not lane.in_flight)

        return bool(self._lanes) and all(failed(lane) for lane in self._lanes.values())

    def _pause(self, deadline: float | None) -> None:
        left = 0.25 if deadline is None else max(0.0, min(0.25, deadline - self._clock()))
        if self._busy():
            self._activity.wait(min(left, 0.01))
            self._activity.clear()
        else:
            seen = self._outbox.version() if self._seen is None else self._seen
            self._outbox.wait_for_change(seen, min(left, 0.1) if self._waits else left)

    def _drain(self) -> None:
        """After ``stop``: goes on with what waits, as long as a broker takes it, for a bounded time."""
        deadline = self._clock() + self._drain_sec
        while self._clock() < deadline and self._keep_lease():
            moved = self._step()
            if moved:
                continue
            if not any(lane.in_flight for lane in self._lanes.values()):
                break
            self._activity.wait(0.01)
            self._activity.clear()

    def _end(self, in_charge: bool) -> None:
        try:
            self._mark()
        finally:
            for lane in self._lanes.values():
                lane.link.close()
            self._lanes.clear()
            if in_charge:
                self._outbox.drop_lease(self._holder)

    def _tell(self) -> None:
        """A line of progress from time to time."""
        now = self._clock()
        told_at, told = self._told
        if self._delivered != told and now - told_at >= _PROGRESS_SEC:
            self._told = (now, self._delivered)
            self._report(f"delivered {self._delivered} events")
