"""What waits for a broker, as the relay sees it: the interface, and the registry's own outbox.

Called by the relay. Reads through named statements in one transaction a pass, so that a pass over the jobs of a broker
that is down costs one step of an index each, however many events wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..engines.identity import require_place
from ..engines.sql.engine import Engine
from ..engines.sql.rows import broker_from_json
from ..engines.sql.sealer import password_binding
from ..engines.statements import Statement, StatementSet
from ..engines.store import Row, Transaction
from ..errors import KeyProblem
from ..model import EventKind
from .settings import BrokerSettings, Environment


class OutboxStatements(StatementSet):
    """The statements of ``outbox.sql``."""

    waiting_jobs: Statement
    waiting_job: Statement
    waiting_events: Statement
    count_waiting_of_job: Statement
    job_instance: Statement


RELAY = OutboxStatements(Path(__file__).with_name("outbox.sql"))


LEASE = "relay"
JOB_PAGE_SIZE = 500
MAX_EVENTS_PER_READ = 2000
_CACHE_SIZE = 4096


class SendQuota(Protocol):
    """What a pass over an outbox asks the relay."""

    def allowance(self, settings: BrokerSettings, job: int) -> tuple[int, int]:
        """After which of a job's deliveries to go on, and how many events may be taken."""
        ...

    def reserve(self, settings: BrokerSettings, events: int) -> None:
        """So many were taken."""
        ...

    def is_exhausted(self) -> bool:
        """Whether no broker can take more."""
        ...


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """An event that waits for the broker. ``number`` names it in its outbox; a job's numbers ascend with its seqs."""

    number: int
    job: int
    job_id: str
    seq: int
    topic: str
    payload: str = field(repr=False)
    retain: bool
    settings: BrokerSettings


class Outbox(Protocol):
    """Where a relay takes events from. What ``read`` gives is durable."""

    def read(self, quota: SendQuota) -> list[OutboxMessage]:
        """Waiting events, each job's in order, for which there is room."""
        ...

    def mark(self, numbers: Sequence[int]) -> None:
        """Notes that the broker has acknowledged them."""
        ...

    def left(self) -> int:
        """How many events wait."""
        ...

    def acquire_lease(self, holder: str, lease_ms: int) -> bool:
        """Takes or renews the right to deliver; False while another relay has it."""
        ...

    def release_lease(self, holder: str) -> None:
        """Gives it back."""
        ...

    def client_id(self, settings: BrokerSettings) -> str:
        """The one client id under which this outbox is delivered to a broker, by whichever relay."""
        ...

    def version(self) -> int:
        """A number that changes when something was committed."""
        ...

    def wait_for_change(self, seen: int, timeout_sec: float) -> None:
        """Waits until ``version()`` differs from ``seen`` or the time is over."""
        ...


class RegistryOutbox:
    """The outbox of a registry.

    Args:
        engine: the registry's engine.
        environment: what the environment says about brokers; read now when None.
        job_id: deliver only this job's events.
        report: takes a sentence about a job whose broker cannot be used.

    Raises:
        MovedOrCopied: the database may be a copy, which must not deliver in the original's name.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        environment: Environment | None = None,
        job_id: str | None = None,
        report: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._store = engine.store
        self._environment = environment or Environment.read()
        self._job_id = job_id
        self._report = report
        self._identity = require_place(self._store)
        self._settings: dict[tuple[str, bytes | None], BrokerSettings | None] = {}
        self._next_job = 0

    def read(self, quota: SendQuota) -> list[OutboxMessage]:
        messages: list[OutboxMessage] = []
        with self._store.read() as tx:
            if self._job_id is not None:
                row = tx.one(RELAY.waiting_job, job_id=self._job_id)
                if row is not None:
                    self._read_job(tx, row, quota, messages)
            else:
                self._read_jobs_round_robin(tx, quota, messages)
        if messages:
            self._store.sync()
        return messages

    def _read_jobs_round_robin(self, tx: Transaction, quota: SendQuota, messages: list[OutboxMessage]) -> None:
        """A round over the waiting jobs. It begins behind the job at which the last one stopped: each has its turn."""
        begun_at = after = self._next_job
        wrapped = begun_at == 0
        while True:
            rows = tx.all(RELAY.waiting_jobs, after=after, limit=JOB_PAGE_SIZE)
            for row in rows:
                if wrapped and begun_at and row[0] > begun_at:
                    return
                after = row[0]
                if self._read_job(tx, row, quota, messages):
                    self._next_job = after
                if quota.is_exhausted() or len(messages) >= MAX_EVENTS_PER_READ:
                    self._next_job = after
                    return
            if len(rows) < JOB_PAGE_SIZE:
                if wrapped:
                    return
                after, wrapped = 0, True

    def _read_job(self, tx: Transaction, row: Row, quota: SendQuota, messages: list[OutboxMessage]) -> bool:
        """Takes a job's events as far as there is room; True when there were any."""
        job, job_id, topic_prefix, broker, sealed = row
        settings = self._cached_settings(job_id, broker, sealed)
        if settings is None:
            return False
        after, limit = quota.allowance(settings, job)
        if limit <= 0:
            return False
        topic = topic_prefix + "/events"
        rows = tx.all(RELAY.waiting_events, job=job, after=after, limit=limit)
        for number, seq, kind, payload in rows:
            retain = EventKind(kind).terminal
            messages.append(OutboxMessage(number, job, job_id, seq, topic, payload, retain, settings))
        quota.reserve(settings, len(rows))
        return bool(rows)

    def _cached_settings(self, job_id: str, broker: str | None, sealed: bytes | None) -> BrokerSettings | None:
        """The way to a job's broker; None where its record cannot be used, which is said once."""
        if broker is None:
            return None
        key = (broker, sealed)
        if key not in self._settings:
            if len(self._settings) >= _CACHE_SIZE:
                self._settings.clear()
            self._settings[key] = self._load_settings(job_id, broker, sealed)
        return self._settings[key]

    def _load_settings(self, job_id: str, broker: str, sealed: bytes | None) -> BrokerSettings | None:
        try:
            password = None
            if sealed is not None:
                password = self._engine.vault.unseal(sealed, bound_to=password_binding(job_id))
        except KeyProblem as problem:
            self._report(f"job {job_id}: {problem}; its events wait")
            return None
        record = broker_from_json(broker, sealed is not None)
        assert record is not None
        return self._environment.settings(record, password)

    def mark(self, numbers: Sequence[int]) -> None:
        self._engine.mark_delivered(numbers)

    def left(self) -> int:
        if self._job_id is not None:
            with self._store.read() as tx:
                row = tx.one(RELAY.count_waiting_of_job, job_id=self._job_id)
                return int(row[0]) if row is not None else 0
        return self._engine.outbox_size()[0]

    def acquire_lease(self, holder: str, lease_ms: int) -> bool:
        return self._engine.acquire_lease(LEASE, holder=holder, lease_ms=lease_ms)

    def release_lease(self, holder: str) -> None:
        self._engine.release_lease(LEASE, holder=holder)

    def client_id(self, settings: BrokerSettings) -> str:
        # Two ways into one broker are two connections and need two ids. The identity, random and never published,
        # keeps anybody from trying passwords against the digest.
        parts = (settings.username, settings.password, settings.certfile)
        return settings.client_id("relay", self._identity, *(part or "" for part in parts))

    def version(self) -> int:
        return self._store.data_version()

    def wait_for_change(self, seen: int, timeout_sec: float) -> None:
        self._store.wait_for_change(seen, timeout_sec)
