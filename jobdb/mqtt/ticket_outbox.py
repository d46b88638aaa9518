"""The worker's side of a ticket: a small durable database of its own, with the guarantees of the registry's.

``publish`` numbers, signs and records an event in one immediate transaction, durable when it returns; processes of one
user on one host share it. What is recorded is delivered by a :class:`.relay.Relay` over this outbox, now or later.
Delivered events are kept for a month after the ticket was used last, so that they can be sent again to a broker that
has lost them. Called by ``publish --ticket`` and ``relay --ticket``; calls the SQLite store.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..core import arguments
from ..core.protocol import build
from ..engines.sql.job_updates import event_from_wire
from ..engines.sql.timestamps import wire_timestamp
from ..engines.statements import Statement, StatementSet
from ..errors import IllegalTransition, NotAJobdbDatabase, SchemaMismatch, UnsafeFileSystem
from ..filesystem.permissions import create_private_file, make_private_folder
from ..filesystem.unsafe_files import refuse_unsafe_companions
from ..model import Event
from .outbox import OutboxMessage, SendQuota
from .settings import BrokerSettings, Environment
from .ticket import Ticket

if TYPE_CHECKING:
    from ..engines.sqlite.store import SqliteStore


class TicketStatements(StatementSet):
    """The statements of ``ticket_outbox.sql``."""

    schema_version: Statement
    any_table: Statement
    create_tickets: Statement
    create_ticket_events: Statement
    create_waiting_index: Statement
    create_leases: Statement
    set_application: Statement
    set_schema_version: Statement
    get_ticket: Statement
    insert_ticket: Statement
    advance_ticket: Statement
    insert_ticket_event: Statement
    waiting_ticket_events: Statement
    mark_ticket_event: Statement
    count_waiting_ticket_events: Statement
    resend_ticket: Statement
    forget_old_tickets: Statement
    acquire_lease: Statement
    release_lease: Statement


TICKETS = TicketStatements(Path(__file__).with_name("ticket_outbox.sql"))


SCHEMA_VERSION = 1
APPLICATION_ID = 1785684596
"""As in ``ticket_outbox.sql``: "jobt" in ASCII."""
BUSY_SEC = 30.0
RETENTION_MS = 30 * 86_400_000
_JOB_NUMBER = 1


def default_path(environ: Mapping[str, str] | None = None) -> Path:
    """``${XDG_STATE_HOME:-~/.local/state}/jobdb/tickets.db``.

    A relative XDG_STATE_HOME is ignored, as the XDG Base Directory Specification demands.
    """
    environ = os.environ if environ is None else environ
    base = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local", "state")
    return Path(base, "jobdb", "tickets.db")


class TicketOutbox:
    """One ticket's numbers and events on this host. Open it with :meth:`open`."""

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
        """Opens the user's ticket database, made when there is none.

        Args:
            ticket: the ticket.
            path: the database; :func:`default_path` when None.
            environment: adds certificates for the broker; read now when None.
            clock: Unix time in milliseconds, for tests.

        Raises:
            UnsafeFileSystem: the folder's file system cannot hold it safely.
            NotAJobdbDatabase, SchemaMismatch, StorageFailed: the file is something else, newer, or cannot be used.
        """
        from ..registry import now_ms

        path = default_path() if path is None else path
        store = _open_store(path, clock or now_ms)
        try:
            _create_schema(store, path)
        except BaseException:
            store.close()
            raise
        return cls(store, ticket, ticket.settings(environment or Environment.read()))

    def close(self) -> None:
        """Closes the database."""
        self._store.close(checkpoint=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def publish(self, event: str, *, detail: str = "", data: Mapping[str, Any] | None = None) -> Event:
        """Numbers, signs and records an event; it waits for the broker then.

        Args:
            event: "started", "progress", "permission_required", "completed" or "error".
            detail: a sentence for people.
            data: further facts, as JSON can hold them.

        Returns:
            The event; its ``payload`` is what travels. It is durable.

        Raises:
            InvalidInput: an argument is not what it should be.
            IllegalTransition: a terminal event was published with this ticket before.
        """
        kind = arguments.event_kind(event)
        arguments.text("detail", detail, most=65_536, least=0)
        ticket = self._ticket
        with self._store.write() as tx:
            now = tx.now_ms
            row = tx.one(TICKETS.get_ticket, name=self._ticket_digest)
            if row is None:
                tx.run(TICKETS.forget_old_tickets, before=now - RETENTION_MS)
                row = tx.one(
                    TICKETS.insert_ticket,
                    name=self._ticket_digest,
                    job_id=ticket.job_id,
                    topic=ticket.topic,
                    attempt=ticket.attempt,
                    next_seq=ticket.next_seq,
                    now=now,
                )
                assert row is not None
                row = (row[0], ticket.next_seq, None)
            number, next_seq, terminal_seq = row
            if terminal_seq is not None:
                raise IllegalTransition(
                    f"job {ticket.job_id} was ended with this ticket at seq {terminal_seq}; {kind} cannot follow"
                )
            seq = max(next_seq, ticket.next_seq)
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
                ticket=number,
                seq=seq,
                terminal=int(kind.terminal),
                now=now,
                payload=wire.text,
            )
            tx.run(
                TICKETS.advance_ticket,
                ticket=number,
                next_seq=seq + 1,
                terminal_seq=seq if kind.terminal else None,
                now=now,
            )
        return event_from_wire(wire, now)

    def next_seq(self) -> int:
        """The number that the next event will have, unless another process publishes before."""
        with self._store.read() as tx:
            row = tx.one(TICKETS.get_ticket, name=self._ticket_digest)
        return max(self._ticket.next_seq, row[1] if row is not None else 0)

    def resend(self) -> int:
        """Puts all events of this ticket that are still kept into the outbox again; returns how many wait then.

        For a broker that has lost what it had acknowledged. Accept answers ``duplicate`` to what it knows; what it
        has missed is taken by a subscriber with a window.
        """
        with self._store.write() as tx:
            row = tx.one(TICKETS.get_ticket, name=self._ticket_digest)
            if row is not None:
                tx.run(TICKETS.resend_ticket, ticket=row[0])
        return self.left()

    # -- what the relay asks

    def read(self, quota: SendQuota) -> list[OutboxMessage]:
        with self._store.read() as tx:
            row = tx.one(TICKETS.get_ticket, name=self._ticket_digest)
            if row is None or not tx.all(TICKETS.waiting_ticket_events, ticket=row[0], after=0, limit=1):
                return []
            after, limit = quota.allowance(self._settings, _JOB_NUMBER)
            if limit <= 0:
                return []
            rows = tx.all(TICKETS.waiting_ticket_events, ticket=row[0], after=after, limit=limit)
        quota.reserve(self._settings, len(rows))
        self._store.sync()
        ticket = self._ticket
        return [
            OutboxMessage(
                number, _JOB_NUMBER, ticket.job_id, seq, ticket.topic, payload, bool(terminal), self._settings
            )
            for number, seq, terminal, payload in rows
        ]

    def mark(self, numbers: Sequence[int]) -> None:
        with self._store.write() as tx:
            for number in numbers:
                tx.run(TICKETS.mark_ticket_event, id=number, now=tx.now_ms)

    def left(self) -> int:
        with self._store.read() as tx:
            row = tx.one(TICKETS.get_ticket, name=self._ticket_digest)
            count = None if row is None else tx.one(TICKETS.count_waiting_ticket_events, ticket=row[0])
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

    def version(self) -> int:
        return self._store.data_version()

    def wait_for_change(self, seen: int, timeout_sec: float) -> None:
        self._store.wait_for_change(seen, timeout_sec)


def _ticket_digest(ticket: Ticket) -> str:
    """Digest what makes a ticket unique: its registry, job and attempt.

    The job is named by its instance: a job that was pruned and registered again under its id numbers its events anew.
    In a ticket of an older version broker, topic and job id have to do. The token is no part: after a rotation a new
    ticket goes on where the old one was.
    """
    parts = [ticket.host.lower(), str(ticket.port), ticket.topic, ticket.job_id, str(ticket.attempt)]
    if ticket.registry_id is not None and ticket.job_instance is not None:
        parts += [ticket.registry_id, ticket.job_instance]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _open_store(path: Path, clock: Callable[[], int]) -> SqliteStore:
    from ..engines.sqlite.placement_check import check_placement
    from ..engines.sqlite.stale_journals import set_aside_stale
    from ..engines.sqlite.store import SqliteStore

    path = path.absolute()
    make_private_folder(path.parent)
    try:
        placement = check_placement(path)
    except UnsafeFileSystem as problem:
        raise UnsafeFileSystem(f"{problem} Or set XDG_STATE_HOME to a folder on a local disk.") from None
    if placement.needs_probe:
        from ..filesystem.probe.safe_folder import require_safe_folder

        require_safe_folder(placement)
    refuse_unsafe_companions(path)
    set_aside_stale(path.resolve(), BUSY_SEC)
    create_private_file(path)
    _refuse_foreign(path)
    return SqliteStore(
        path,
        journal=placement.journal or "delete",
        durability="full",
        busy_sec=BUSY_SEC,
        clock=clock,
    )


def _refuse_foreign(path: Path) -> None:
    """Refuse another program's file before the store would put it into WAL."""
    from ..engines.sqlite import open_files
    from ..engines.sqlite.file_kind import read_schema_info
    from ..engines.sqlite.header import read_header
    from ..filesystem.unsafe_files import refuse_hard_links

    refuse_hard_links(path)
    with open_files.raw_read(path) as free:
        header = read_header(path) if free else None
        if header is None or header.empty or header.application_id == APPLICATION_ID:
            return
        seen = read_schema_info(path)
        if not seen.application_id and not seen.names and seen.version > SCHEMA_VERSION:
            raise _newer_schema_error(path, seen.version)
        if seen.application_id != APPLICATION_ID and (seen.application_id or seen.names or seen.version):
            raise NotAJobdbDatabase(f"{path} is a database of another program; set XDG_STATE_HOME to another folder")


def _create_schema(store: SqliteStore, path: Path) -> None:
    """Makes the tables in a new file; of several processes the first one does."""
    with store.read() as tx:
        version = _version(tx, path)
    if version == SCHEMA_VERSION:
        return
    with store.write() as tx:
        if _version(tx, path) == 0:
            for table in (
                TICKETS.create_tickets,
                TICKETS.create_ticket_events,
                TICKETS.create_waiting_index,
                TICKETS.create_leases,
            ):
                tx.run(table)
            tx.run(TICKETS.set_application)
            tx.run(TICKETS.set_schema_version)


def _version(tx: Any, path: Path) -> int:
    row = tx.one(TICKETS.schema_version)
    version = int(row[0])
    if version > SCHEMA_VERSION:
        raise _newer_schema_error(path, version)
    if version == 0 and tx.one(TICKETS.any_table) is not None:
        raise NotAJobdbDatabase(f"{path} is a database of another program; set XDG_STATE_HOME to another folder")
    return version


def _newer_schema_error(path: Path, version: int) -> SchemaMismatch:
    return SchemaMismatch(
        f"{path} has schema version {version} and this jobdb knows {SCHEMA_VERSION}; "
        "a newer jobdb has made it: pip install --upgrade 'jobdb[mqtt]'"
    )
