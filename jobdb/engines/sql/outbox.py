"""The verbs for the outbox: the events that wait for the broker, and their destination.

Called by the relay, through ``mqtt/outbox.py`` and the engine, and by those who count waiting events. Calls the store
and the vault; the relay itself talks to the broker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import model
from ...errors import UnknownJob
from ...model import EventKind
from ..verbs import verb
from .rows import open_broker
from .statements import OUTBOX
from .verb_group import VerbGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...model import Broker, Delivery


class OutboxVerbs(VerbGroup):
    """The verbs for the events that wait for the broker."""

    @verb
    def outbox(self, *, after: int, limit: int, job_id: str | None = None) -> list[Delivery]:
        """Return a page of the events that wait for the broker, oldest first, starting after the delivery ``after``.

        They are durable: a broker must not receive an event that a power failure can undo.
        """
        from ...core.protocol.topics import events_topic

        self.store.sync()
        with self.store.read() as tx:
            if job_id is None:
                rows = tx.all(OUTBOX.outbox_page, after=after, limit=limit)
            else:
                rows = tx.all(OUTBOX.outbox_page_of_job, job_id=job_id, after=after, limit=limit)
        self.store.sync()
        return [
            model.Delivery(event_id, job, seq, EventKind(kind), events_topic(prefix), payload)
            for event_id, job, seq, kind, payload, prefix in rows
        ]

    @verb
    def mark_delivered(self, numbers: Sequence[int]) -> None:
        """Remove events that the broker has acknowledged from the outbox."""
        with self.store.write() as tx:
            for number in numbers:
                tx.run(OUTBOX.mark_delivered, event=number)

    @verb
    def outbox_size(self) -> tuple[int, int | None]:
        """Return the number of waiting events, and the time of the oldest, Unix milliseconds."""
        with self.store.read() as tx:
            row = tx.one(OUTBOX.count_outbox)
        assert row is not None
        waiting, oldest_ms = row
        return waiting, oldest_ms

    @verb
    def broker(self, job_id: str) -> tuple[Broker | None, str | None]:
        """Return the broker of a job's events, and its password."""
        with self.store.read() as tx:
            row = tx.one(OUTBOX.broker_of_job, job_id=job_id)
        if row is None:
            raise UnknownJob(job_id)
        return open_broker(self.vault, job_id, *row)
