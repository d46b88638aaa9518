"""The verbs for a job's own events: publish, and the list of events.

Called by the registry's ``events.py``, through the engine. Calls ``publish_batch`` to write; never sends to a broker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..verbs import verb
from .job_updates import event_from_wire
from .lookups import require_job_key
from .publish_batch import PublishBatch
from .rows import event_from_row
from .statements import EVENTS
from .verb_group import VerbGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...model import Event, NewEvent
    from .presign import JobVersion


class EventVerbs(VerbGroup):
    """The verbs for a job's own events."""

    @verb
    def publish(self, events: Sequence[NewEvent]) -> list[Event]:
        """Number, sign and record events, add them to the outbox and update their jobs; all or none."""
        if len(events) == 1 and self.store.traits.presigns:
            return [self._publish_one(events[0])]
        with self.store.write() as tx:
            tx.lock_jobs(event.job_id for event in events)
            recorded, now = PublishBatch(tx, self.vault).publish(events), tx.now_ms
        return [event_from_wire(wire, now) for wire in recorded]

    def _publish_one(self, new: NewEvent) -> Event:
        """Publish one event, signed in advance if no other process has changed its job."""
        self.store.check()  # before a lock that another thread may have held when this process was forked
        presigned = self.presign_cache.presign(new, self.vault, self.store.clock())
        with self.store.write() as tx:
            now = tx.now_ms
            job_version: JobVersion | None
            if presigned is not None and presigned.try_record(tx):
                wire, job_version = presigned.wire, presigned.resulting_version
            else:
                batch = PublishBatch(tx, self.vault)
                (wire,) = batch.publish([new])
                job_version = batch.job_version(new.job_id)
        if job_version is not None:
            self.presign_cache.remember(new.job_id, job_version)
        return event_from_wire(wire, now)

    @verb
    def events(self, job_id: str, *, after: int, limit: int) -> list[Event]:
        """Return a page of a job's events in order, starting after the seq ``after``."""
        with self.store.read() as tx:
            rows = tx.all(EVENTS.list_events, job_id=job_id, after=after, limit=limit)
            if not rows:
                require_job_key(tx, job_id)
            return [event_from_row(row) for row in rows]
