"""The pending writes of a worker: the events of its attempts, and how they ended, in the order in which it happened.

Used by the dispatcher alone, in its thread. Pure. Nothing leaves it before the database has it: a batch that failed is
simply made again. An attempt's end is never written before its events, and it frees the slot for the next claim in the
same transaction. Prior art: River's batch completer.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from ..model import GiveBack, NewEvent, WorkBatch

if TYPE_CHECKING:
    from ..model import WorkerInfo
    from .outcomes import Ending
    from .settings import WorkerSettings
    from .slots import Key

MOST_EVENTS = 500
"""The maximum number of events in one transaction: it must not delay a renewal."""


class Written(NamedTuple):
    """The writes of one transaction.

    Attributes:
        events: the events that do not end a job.
        endings: how attempts ended.
    """

    events: tuple[NewEvent, ...]
    endings: dict[Key, Ending]

    @property
    def publications(self) -> tuple[NewEvent, ...]:
        """All events, those that end a job last."""
        return (*self.events, *(each for each in self.endings.values() if isinstance(each, NewEvent)))

    @property
    def returns(self) -> tuple[GiveBack, ...]:
        """The jobs to give back."""
        return tuple(each for each in self.endings.values() if isinstance(each, GiveBack))


class Outbox:
    """The events and endings that are not recorded yet."""

    def __init__(self) -> None:
        self._events: deque[NewEvent] = deque()
        self._per_attempt: Counter[Key] = Counter()
        self._endings: dict[Key, Ending] = {}

    def add_event(self, event: NewEvent) -> None:
        """Add an event of an attempt that has not ended."""
        self._events.append(event)
        self._per_attempt[key_of(event)] += 1

    def add_ending(self, key: Key, ending: Ending) -> None:
        """Add the end of an attempt; it replaces one that was refused."""
        self._endings[key] = ending

    def next(self) -> Written:
        """Return what to write next, without removing it."""
        events = tuple(islice(self._events, MOST_EVENTS))
        if not self._endings:
            return Written(events, {})
        later: Collection[Key] = ()
        if len(events) < len(self._events):
            later = set(map(key_of, islice(self._events, MOST_EVENTS, None)))
        return Written(events, {key: end for key, end in self._endings.items() if key not in later})

    def remove(self, written: Written) -> None:
        """Remove what was written, or refused for good."""
        for event in written.events:
            first = self._events.popleft()
            assert first is event, "only the dispatcher's thread may change the outbox"
            self._count_down(key_of(event))
        for key, end in written.endings.items():
            if self._endings.get(key) is end:
                del self._endings[key]

    def discard(self, key: Key) -> None:
        """Remove everything of an attempt whose claim is gone."""
        self._endings.pop(key, None)
        if self._per_attempt.pop(key, 0):
            self._events = deque(event for event in self._events if key_of(event) != key)

    def has_ending(self, key: Key) -> bool:
        """Return whether the end of an attempt waits to be written."""
        return key in self._endings

    @property
    def ended(self) -> Collection[Key]:
        """The attempts whose end waits to be written."""
        return self._endings.keys()

    def __bool__(self) -> bool:
        return bool(self._events or self._endings)

    def __len__(self) -> int:
        return len(self._events) + len(self._endings)

    def _count_down(self, key: Key) -> None:
        self._per_attempt[key] -= 1
        if not self._per_attempt[key]:
            del self._per_attempt[key]


def make_batch(
    settings: WorkerSettings,
    info: WorkerInfo,
    *,
    written: Written,
    renew: tuple[Key, ...],
    claim: int,
    heartbeat: bool,
) -> WorkBatch:
    """Return the batch of one round.

    Args:
        settings: the worker's settings.
        info: the worker.
        written: what it writes.
        renew: the claims that it renews.
        claim: how many jobs it can take.
        heartbeat: record that it is alive.
    """
    return WorkBatch(
        worker_id=info.worker_id,
        events=written.publications,
        give_back=written.returns,
        renew=renew,
        claim=claim,
        worker=info.name,
        agent=settings.agent,
        agent_session=settings.agent_session,
        lease_sec=settings.lease_sec,
        announce=settings.announce,
        log_dir=info.log_dir,
        heartbeat=heartbeat,
    )


def key_of(record: NewEvent | GiveBack) -> Key:
    """Return the attempt that an event or a return belongs to."""
    assert record.attempt is not None, "a worker always names its attempt"
    return record.job_id, record.attempt
