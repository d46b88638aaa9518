"""Outboxes as the relay reads them: the protocol, and the outbox of a registry.

Called by the relay. Each pass is one read transaction; a pass over the jobs of a broker that is down costs one index
step per job, however many events wait for it. A ticket's outbox is in ``ticket_outbox``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..core.protocol.topics import events_topic
from ..engines.identity import require_place
from ..engines.sql.rows import open_broker
from ..errors import KeyProblem
from ..model import EventKind
from .settings import BrokerSettings, Environment
from .statements import OUTBOX

if TYPE_CHECKING:
    from ..engines.sql.engine import Engine
    from ..engines.store import Transaction
    from .reporting import ReportCallback

LEASE = "relay"
JOB_PAGE_SIZE = 500
MAX_EVENTS_PER_READ = 2000
_CACHE_SIZE = 4096


class SendQuota(Protocol):
    """The number of messages that one pass over an outbox may read."""

    def allowance(self, settings: BrokerSettings, job: int) -> tuple[int, int]:
        """Return after which of a job's messages to continue, and how many may be read."""
        ...

    def reserve(self, settings: BrokerSettings, events: int) -> None:
        """Subtract messages that were read from the quota."""
        ...

    def is_exhausted(self) -> bool:
        """Return whether no broker can take more."""
        ...


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """An event that waits for its broker.

    Attributes:
        number: its key in the outbox; a job's numbers ascend with its seqs.
        job: the job's row in the outbox's database.
        job_id: the job.
        seq: the event's number within the job.
        topic: the topic to publish it on.
        payload: the wire form.
        retain: True if the broker should retain it.
        settings: the broker.
    """

    number: int
    job: int
    job_id: str
    seq: int
    topic: str
    payload: str = field(repr=False)
    retain: bool
    settings: BrokerSettings


class Outbox(Protocol):
    """The source of a relay's messages. Every message that ``read`` returns is durable."""

    def read(self, quota: SendQuota) -> list[OutboxMessage]:
        """Return waiting messages, each job's in order, within the quota."""
        ...

    def mark_delivered(self, numbers: Sequence[int]) -> None:
        """Mark messages that the broker has acknowledged as delivered."""
        ...

    def count_pending(self) -> int:
        """Return the number of waiting messages."""
        ...

    def acquire_lease(self, holder: str, lease_ms: int) -> bool:
        """Acquire or renew the lease for ``lease_ms`` milliseconds; return False while another relay holds it."""
        ...

    def release_lease(self, holder: str) -> None:
        """Release the lease."""
        ...

    def client_id(self, settings: BrokerSettings) -> str:
        """Return the client id under which every relay delivers this outbox to a broker."""
        ...

    def data_version(self) -> int:
        """Return a number that changes with every commit."""
        ...

    def wait_for_change(self, seen: int, timeout_sec: float) -> None:
        """Wait until ``data_version()`` differs from ``seen``, for at most ``timeout_sec`` seconds."""
        ...


class _UndeliveredJob(NamedTuple):
    """A row of ``undelivered_jobs``: a job with waiting events, and its broker as stored."""

    job: int
    job_id: str
    topic_prefix: str
    broker: str | None
    sealed_password: bytes | None


class RegistryOutbox:
    """The outbox of a registry.

    Args:
        engine: the registry's engine.
        environment: the environment's broker settings; read now if None.
        job_id: deliver only this job's events.
        report: called with a sentence about each job whose broker cannot be used.

    Raises:
        MovedOrCopied: the database may be a copy, which must not deliver in the original's name.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        environment: Environment | None = None,
        job_id: str | None = None,
        report: ReportCallback,
    ) -> None:
        self._engine = engine
        self._store = engine.store
        self._environment = environment or Environment.read()
        self._job_id = job_id
        self._report = report
        self._identity = require_place(self._store)
        self._settings: dict[tuple[str, bytes | None], BrokerSettings | None] = {}
        self._continue_after = 0  # the last job of the previous round

    def read(self, quota: SendQuota) -> list[OutboxMessage]:
        messages: list[OutboxMessage] = []
        with self._store.read() as tx:
            if self._job_id is not None:
                row = tx.one(OUTBOX.undelivered_job, job_id=self._job_id)
                if row is not None:
                    self._read_job(tx, _UndeliveredJob(*row), quota, messages)
            else:
                self._read_jobs_round_robin(tx, quota, messages)
        if messages:
            self._store.sync()
        return messages

    def _read_jobs_round_robin(self, tx: Transaction, quota: SendQuota, messages: list[OutboxMessage]) -> None:
        """Read the waiting jobs in turn, beginning after the last job of the previous round."""
        begun_at = after = self._continue_after
        wrapped = begun_at == 0
        while True:
            rows = tx.all(OUTBOX.undelivered_jobs, after=after, limit=JOB_PAGE_SIZE)
            for row in rows:
                job = _UndeliveredJob(*row)
                if wrapped and begun_at and job.job > begun_at:
                    return
                after = job.job
                if self._read_job(tx, job, quota, messages):
                    self._continue_after = after
                if quota.is_exhausted() or len(messages) >= MAX_EVENTS_PER_READ:
                    self._continue_after = after
                    return
            if len(rows) < JOB_PAGE_SIZE:
                if wrapped:
                    return
                after, wrapped = 0, True

    def _read_job(self, tx: Transaction, job: _UndeliveredJob, quota: SendQuota, messages: list[OutboxMessage]) -> bool:
        """Append a job's messages within the quota; return whether there were any."""
        settings = self._settings_of(job)
        if settings is None:
            return False
        after, limit = quota.allowance(settings, job.job)
        if limit <= 0:
            return False
        topic = events_topic(job.topic_prefix)
        rows = tx.all(OUTBOX.undelivered_events, job=job.job, after=after, limit=limit)
        for number, seq, kind, payload in rows:
            retain = EventKind(kind).terminal
            messages.append(OutboxMessage(number, job.job, job.job_id, seq, topic, payload, retain, settings))
        quota.reserve(settings, len(rows))
        return bool(rows)

    def _settings_of(self, job: _UndeliveredJob) -> BrokerSettings | None:
        """Return the settings of a job's broker; None if its record cannot be used, which is reported once."""
        if job.broker is None:
            return None
        key = (job.broker, job.sealed_password)
        if key not in self._settings:
            if len(self._settings) >= _CACHE_SIZE:
                self._settings.clear()
            self._settings[key] = self._load_settings(job)
        return self._settings[key]

    def _load_settings(self, job: _UndeliveredJob) -> BrokerSettings | None:
        try:
            broker, password = open_broker(self._engine.vault, job.job_id, job.broker, job.sealed_password)
        except KeyProblem as problem:
            self._report(f"job {job.job_id}: {problem}; its events wait")
            return None
        assert broker is not None
        return self._environment.settings(broker, password)

    def mark_delivered(self, numbers: Sequence[int]) -> None:
        self._engine.mark_delivered(numbers)

    def count_pending(self) -> int:
        if self._job_id is not None:
            with self._store.read() as tx:
                row = tx.one(OUTBOX.count_undelivered_of_job, job_id=self._job_id)
                return int(row[0]) if row is not None else 0
        waiting, _oldest_ms = self._engine.outbox_size()
        return waiting

    def acquire_lease(self, holder: str, lease_ms: int) -> bool:
        return self._engine.acquire_lease(LEASE, holder=holder, lease_ms=lease_ms)

    def release_lease(self, holder: str) -> None:
        self._engine.release_lease(LEASE, holder=holder)

    def client_id(self, settings: BrokerSettings) -> str:
        # Two sets of credentials for one broker are two connections and need two ids. The registry's identity, random
        # and never published, prevents guessing passwords from the digest.
        parts = (settings.username, settings.password, settings.certfile)
        return settings.client_id("relay", self._identity, *(part or "" for part in parts))

    def data_version(self) -> int:
        return self._store.data_version()

    def wait_for_change(self, seen: int, timeout_sec: float) -> None:
        self._store.wait_for_change(seen, timeout_sec)
