"""Batches of messages from the broker: parsed once, and kept until accepted.

Used by the consumer, in its thread. A batch outlives a failed attempt to accept it: if the database is busy, the next
attempt does not parse or verify again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..model import Arrival

if TYPE_CHECKING:
    from ..core.protocol import WireEvent
    from ..engines.sql.engine import Engine
    from ..engines.sql.precheck import PrecheckedArrival
    from .backfill import Backfill
    from .connection import Message

MAX_BATCH_MESSAGES = 500
MAX_BATCH_BYTES = 1_048_576


class PendingBatch:
    """Messages that wait to be accepted together, with the results of parsing and verifying them.

    Args:
        engine: parses and verifies.
        messages: the messages, in the order of arrival.

    Attributes:
        messages: the messages.
        arrivals: the parsed events, or their refusals, in the same order.
    """

    def __init__(self, engine: Engine, messages: Sequence[Message]) -> None:
        self._engine = engine
        self.messages = messages
        self.arrivals: list[PrecheckedArrival] = engine.precheck(
            [Arrival(message.payload, message.topic) for message in messages]
        )

    def verify_from(self, index: int) -> PrecheckedArrival:
        """Return an arrival, verified. The arrivals after it are verified with it, in one read transaction."""
        if not self.arrivals[index].authentic:
            self.arrivals[index:] = self._engine.verify_prechecked(self.arrivals[index:])
        return self.arrivals[index]


class BatchProgress:
    """The seq that each job will have reached once the messages before the current one are accepted.

    An event that differs from the one recorded under its seq does not advance its job: a forged event must not replace
    a genuine one that the broker has lost.

    Args:
        backfill: returns the recorded events of a job of which the batch has several messages.
        arrivals: the batch.
    """

    def __init__(self, backfill: Backfill, arrivals: Sequence[PrecheckedArrival]) -> None:
        self._backfill = backfill
        self._messages_per_job = Counter(each.wire.job_id for each in arrivals if each.wire is not None)
        self._last: dict[str, int] = {}
        self._recorded: dict[str, dict[int, bytes]] = {}

    def last_seq_of(self, job_id: str) -> int:
        """Return the highest seq of a job among the messages so far; 0: none."""
        return self._last.get(job_id, 0)

    def advance(self, wire: WireEvent, last: int) -> None:
        """Add a message that arrives when the job is at seq ``last``."""
        job_id = wire.job_id
        if self._messages_per_job[job_id] == 1:
            return
        if job_id not in self._recorded:
            self._recorded[job_id] = self._backfill.recorded_digests(job_id, after=last, limit=MAX_BATCH_MESSAGES)
        matches = self._recorded[job_id].get(wire.seq, wire.digest) == wire.digest
        self._last[job_id] = max(last, wire.seq) if matches else last
