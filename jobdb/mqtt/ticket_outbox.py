"""The worker's side of a ticket: an outbox in a separate, small, durable database.

``publish`` numbers, signs and records an event in one immediate transaction, durable when it returns; the processes of
one user on one host share the database. A :class:`.relay.Relay` on this outbox delivers the recorded events, now or
later. Delivered events are kept for a month after the ticket was last used, so that they can be sent again to a broker
that has lost them. Called by ``publish --ticket`` and ``relay --ticket``; calls :mod:`.ticket_store`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from ..core import arguments
from ..core.protocol import build
from ..engines.sql.job_updates import event_from_wire
from ..engines.sql.timestamps import wire_timestamp
from ..engines.statements import Statement, StatementSet
from ..errors import IllegalTransition
from ..model import Event
from ..model.times import now_ms
from .outbox import OutboxMessage, SendQuota
from .settings import BrokerSettings, Environment
from .ticket import Ticket
from .ticket_store import default_path, open_ticket_store

if TYPE_CHECKING:
    from ..engines.sqlite.store import SqliteStore
    from ..engines.store import Transaction


class TicketOutboxStatements(StatementSet):
    """The statements of ``ticket_outbox.sql``."""

    get_ticket: Statement
    insert_ticket: Statement
    advance_ticket: Statement
    insert_ticket_event: Statement
    undelivered_ticket_events: Statement
    mark_ticket_event_delivered: Statement
    count_undelivered_ticket_events: Statement
    resend_ticket: Statement
    delete_expired_tickets: Statement
    acquire_lease: Statement
    release_lease: Statement


TICKETS = TicketOutboxStatements(Path(__file__).with_name("ticket_outbox.sql"))
RETENTION_MS = 30 * 86_400_000
_JOB_NUMBER = 1  # a ticket's outbox has one job


class _TicketRow(NamedTuple):
    """A row of ``get_ticket``: the ticket's row, its next seq, and the seq of its terminal event or None."""

    id: int
    next_seq: int
    terminal_seq: int | None


class TicketOutbox:
    """One ticket's events on this host. Open it with :meth:`open`; close it, or use it in a ``with`` block.

    Example:
        with TicketOutbox.open(read_ticket(Path("job.ticket"))) as outbox:
            outbox.publish("progress", detail="step 1", data={"pct": 10})
            Relay(outbox, report=print).run(until_empty=True, timeout_sec=60)
    """

    def __init__(self, store: SqliteStore, ticket: Ticket, settings: BrokerSettings) -> None:
        self._store = store
        self._ticket = ticket
        self._settings = settings
        self._ticket_digest = _ticket_digest(ticket)

    @classmethod
    def open(
        cls,
        ticket: Ticket,
        *,
        path: Path | None = None,
        environment: Environment | None = None,
        clock: Callable[[], int] | None = None,
    ) -> Self:
        """Open the user's ticket database, creating it if there is none.

        Args:
            ticket: the ticket.
            path: the database; :func:`.ticket_store.default_path` if None.
            environment: adds the certificates for the broker; read now if None.
            clock: Unix time in milliseconds, for tests.

        Raises:
            UnsafeFileSystem: the folder's file system cannot hold it safely.
            NotAJobdbDatabase, SchemaMismatch, StorageFailed: the file is another program's, newer, or cannot be used.
        """
        store = open_ticket_store(default_path() if path is None else path, clock or now_ms)
        return cls(store, ticket, ticket.settings(environment or Environment.read()))

    def close(self) -> None:
        """Close the database."""
        self._store.close(checkpoint=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def publish(self, event: str, *, detail: str = "", data: Mapping[str, Any] | None = None) -> Event:
        """Number, sign and record an event, which then waits for the broker.

        Args:
            event: "started", "progress", "permission_required", "completed" or "error".
            detail: a sentence for people.
            data: further facts, JSON-serializable.

        Returns:
            The event, which is durable; its ``payload`` is its wire form.

        Raises:
            InvalidInput: an argument is invalid.
            IllegalTransition: a terminal event was published with this ticket before.
        """
        kind = arguments.event_kind(event)
        arguments.text("detail", detail, most=65_536, least=0)
        ticket = self._ticket
        with self._store.write() as tx:
            now = tx.now_ms
            used = self._find_ticket(tx) or self._insert_ticket(tx)
            if used.terminal_seq is not None:
                raise IllegalTransition(
                    f"job {ticket.job_id} was ended with this ticket at seq {used.terminal_seq}; {kind} cannot follow"
                )
            seq = max(used.next_seq, ticket.next_seq)
            wire = build(
                job_id=ticket.job_id,
                seq=seq,
                event=kind,
                timestamp=wire_timestamp(now),
                detail=detail,
                data=data or {},
                attempt=ticket.attempt or None,
                kid=ticket.kid or None,
                token=ticket.token,
            )
            tx.run(
                TICKETS.insert_ticket_event,
                ticket=used.id,
                seq=seq,
                terminal=int(kind.terminal),
                now=now,
                payload=wire.text,
            )
            tx.run(
                TICKETS.advance_ticket,
                ticket=used.id,
                next_seq=seq + 1,
                terminal_seq=seq if kind.terminal else None,
                now=now,
            )
        return event_from_wire(wire, now)

    def _find_ticket(self, tx: Transaction) -> _TicketRow | None:
        row = tx.one(TICKETS.get_ticket, name=self._ticket_digest)
        return None if row is None else _TicketRow(*row)

    def _insert_ticket(self, tx: Transaction) -> _TicketRow:
        """Record the ticket's first use on this host; delete tickets that have expired."""
        ticket = self._ticket
        tx.run(TICKETS.delete_expired_tickets, before=tx.now_ms - RETENTION_MS)
        row = tx.one(
            TICKETS.insert_ticket,
            name=self._ticket_digest,
            job_id=ticket.job_id,
            topic=ticket.topic,
            attempt=ticket.attempt,
            next_seq=ticket.next_seq,
            now=tx.now_ms,
        )
        assert row is not None
        return _TicketRow(row[0], ticket.next_seq, None)

    def next_seq(self) -> int:
        """Return the seq that the next event will have unless another process publishes first."""
        with self._store.read() as tx:
            used = self._find_ticket(tx)
        return max(self._ticket.next_seq, used.next_seq if used is not None else 0)

    def resend(self) -> int:
        """Mark all events of this ticket that are still kept as undelivered; return how many then wait.

        For a broker that has lost acknowledged events. Accept answers ``duplicate`` for events that it knows; events
        that it missed are accepted by a subscriber with a window.
        """
        with self._store.write() as tx:
            used = self._find_ticket(tx)
            if used is not None:
                tx.run(TICKETS.resend_ticket, ticket=used.id)
        return self.count_pending()

    # -- called by the relay

    def read(self, quota: SendQuota) -> list[OutboxMessage]:
        with self._store.read() as tx:
            used = self._find_ticket(tx)
            if used is None or not tx.all(TICKETS.undelivered_ticket_events, ticket=used.id, after=0, limit=1):
                return []
            after, limit = quota.allowance(self._settings, _JOB_NUMBER)
            if limit <= 0:
                return []
            rows = tx.all(TICKETS.undelivered_ticket_events, ticket=used.id, after=after, limit=limit)
        quota.reserve(self._settings, len(rows))
        self._store.sync()
        ticket = self._ticket
        return [
            OutboxMessage(
                number, _JOB_NUMBER, ticket.job_id, seq, ticket.topic, payload, bool(terminal), self._settings
            )
            for number, seq, terminal, payload in rows
        ]

    def mark_delivered(self, numbers: Sequence[int]) -> None:
        with self._store.write() as tx:
            for number in numbers:
                tx.run(TICKETS.mark_ticket_event_delivered, id=number, now=tx.now_ms)

    def count_pending(self) -> int:
        with self._store.read() as tx:
            used = self._find_ticket(tx)
            count = None if used is None else tx.one(TICKETS.count_undelivered_ticket_events, ticket=used.id)
        return 0 if count is None else int(count[0])

    def acquire_lease(self, holder: str, lease_ms: int) -> bool:
        with self._store.write() as tx:
            until = tx.now_ms + lease_ms
            return (
                tx.run(TICKETS.acquire_lease, name=self._ticket_digest, holder=holder, until_ms=until, now=tx.now_ms)
                > 0
            )

    def release_lease(self, holder: str) -> None:
        with self._store.write() as tx:
            tx.run(TICKETS.release_lease, name=self._ticket_digest, holder=holder)

    def client_id(self, settings: BrokerSettings) -> str:
        return settings.client_id("ticket", self._ticket_digest)

    def data_version(self) -> int:
        return self._store.data_version()

    def wait_for_change(self, seen: int, timeout_sec: float) -> None:
        self._store.wait_for_change(seen, timeout_sec)


def _ticket_digest(ticket: Ticket) -> str:
    """Return a digest of what makes a ticket unique: its registry, job and attempt.

    The job is identified by its instance, because a job that was pruned and registered again under the same id numbers
    its events from 1 again. A ticket of an older version is identified by broker, topic and job id. The token is not
    part of it: after a rotation a new ticket continues where the old one stopped.
    """
    parts = [ticket.host.lower(), str(ticket.port), ticket.topic, ticket.job_id, str(ticket.attempt)]
    if ticket.registry_id is not None and ticket.job_instance is not None:
        parts += [ticket.registry_id, ticket.job_instance]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
