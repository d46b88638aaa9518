"""Copy: transfer a whole registry into another, empty one, on any combination of engines.

Called by ``jobdb copy``; calls two open registries. A consistent state of the source is written in one transaction to
the target and read back there before the commit: the count and the digest of every table must be equal. Secrets stay
sealed as they are, so the target is used with the same master key. Memory is bounded by a batch of rows.

Data about the place rather than the jobs is not copied: its marks (``shared``, an override), the named leases and the
workers. Nor is the registry's id: to brokers and tickets a copy is another registry, unless it replaces the original.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engines.identity import REGISTRY_ID, new_registry_id
from ..engines.sql.statements import JOBS
from ..engines.statements import Statement, StatementSet, parameters
from ..engines.store import Row, Transaction
from ..errors import AlreadyExists, InvalidInput, StorageFailed
from ..registry import Registry


class CopyStatements(StatementSet):
    """The statements of ``copy.sql``."""

    copy_set_timeouts: Statement
    copy_lock: Statement
    copy_create_sequence: Statement
    copy_advance_sequence: Statement
    copy_read_settings: Statement
    copy_write_settings: Statement
    copy_read_jobs: Statement
    copy_write_jobs: Statement
    copy_read_specs: Statement
    copy_write_specs: Statement
    copy_read_tokens: Statement
    copy_write_tokens: Statement
    copy_read_events: Statement
    copy_write_events: Statement
    copy_read_outbox: Statement
    copy_write_outbox: Statement
    copy_read_subscriptions: Statement
    copy_write_subscriptions: Statement
    copy_read_gaps: Statement
    copy_write_gaps: Statement
    copy_read_feeds: Statement
    copy_write_feeds: Statement
    copy_read_verdict_counts: Statement
    copy_write_verdict_counts: Statement
    copy_read_refusals: Statement
    copy_write_refusals: Statement
    copy_read_imports: Statement
    copy_write_imports: Statement
    copy_read_import_lines: Statement
    copy_write_import_lines: Statement
    copy_read_token_fingerprints: Statement
    copy_write_token_fingerprints: Statement
    copy_read_tombstones: Statement
    copy_write_tombstones: Statement
    copy_read_questions: Statement
    copy_write_questions: Statement
    copy_read_attempts: Statement
    copy_write_attempts: Statement


COPY = CopyStatements(Path(__file__).with_name("copy.sql"))


_BROKER_SESSIONS = ("identity", "broker_identity")
"""The settings by which brokers know a registry."""

TABLES = (
    "jobs",
    "specs",
    "tokens",
    "events",
    "outbox",
    "subscriptions",
    "gaps",
    "feeds",
    "verdict_counts",
    "refusals",
    "imports",
    "import_lines",
    "token_fingerprints",
    "tombstones",
    "questions",
    "attempts",
    "settings",
)
"""The tables to copy, in an order that satisfies the references."""

TABLES_NOT_COPIED = ("leases", "workers")

_MAX_BATCH_ROWS = 1000
_MAX_BATCH_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class CopyReport:
    """The result of a copy.

    Attributes:
        source: the URL of the source, without a password.
        target: the URL of the target, without a password.
        rows: the number of rows per table.
        digest: the digest of everything copied, in hex; equal for two registries with equal content.
    """

    source: str
    target: str
    rows: dict[str, int]
    digest: str

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values under stable names."""
        return {
            "source": self.source,
            "target": self.target,
            "jobs": self.rows.get("jobs", 0),
            "events": self.rows.get("events", 0),
            "subscriptions": self.rows.get("subscriptions", 0),
            "rows": dict(self.rows),
            "digest": self.digest,
        }


class TableDigest:
    """The order-independent digest of a table's rows: the sum of their SHA-256, and their count."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows, whose values are integers, text, bytes or None on every engine."""
        for row in rows:
            self.count += 1
            self._sum += int.from_bytes(hashlib.sha256(repr(row).encode("utf-8", "surrogatepass")).digest(), "big")

    def hex(self) -> str:
        """Return the digest as 64 hex digits."""
        return f"{self._sum % 2**256:064x}"


class RegistryDigest:
    """The digest of a registry: of the names, counts and digests of its tables, in their order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, table: str, digest: TableDigest) -> None:
        """Add the next table."""
        self._hash.update(f"{table} {digest.count} {digest.hex()}\n".encode())

    def hex(self) -> str:
        """Return the digest as 64 hex digits."""
        return self._hash.hexdigest()


def copy_registry(source: Registry, target: Registry, *, same_registry: bool = False) -> CopyReport:
    """Copy everything in one transaction of the target: all or nothing.

    Args:
        source: the registry to copy; others may write to it meanwhile, and what they write is not copied.
        target: a registry without jobs.
        same_registry: True to give the copy the source's registry id, so that brokers' sessions and tickets continue.
            Only if the source is never used again: two registries with the same id take each other's messages.

    Returns:
        The number of rows per table, and the digest of all.

    Raises:
        AlreadyExists: the target is not empty.
        InvalidInput: a value of the source cannot be stored in the target's database.
        StorageFailed: the rows read back from the target differ from those of the source; nothing was written.

    Example:
        with Registry.open("jobs.db") as source, Registry.open("postgresql://db/jobs", create=True) as target:
            report = copy_registry(source, target)
        assert report.digest == registry_digest(source)
    """
    source_url, target_url = str(source.url), str(target.url)
    rows: dict[str, int] = {}
    whole = RegistryDigest()
    with target.store.write() as target_tx, source.store.read() as source_tx:
        for side in (source_tx, target_tx):
            side.run(COPY.copy_set_timeouts)
        target_tx.run(COPY.copy_lock)
        _require_empty(target_tx, target_url)
        for table in TABLES:
            sent = _copy_table(table, source_tx, target_tx)
            stored = _digest_table(table, target_tx)
            if (sent.count, sent.hex()) != (stored.count, stored.hex()):
                raise StorageFailed(
                    f"table {table} has {stored.count} rows at {target_url} after {sent.count} were read at "
                    f"{source_url}, or they differ; nothing was kept",
                    advice="check both with jobdb.doctor",
                    command="run 'jobdb doctor' on both",
                )
            rows[table] = sent.count
            whole.add(table, sent)
        _assign_registry_id(source_tx if same_registry else None, target_tx)
        target_tx.run(COPY.copy_create_sequence)
        target_tx.run(COPY.copy_advance_sequence)
    return CopyReport(source_url, target_url, rows, whole.hex())


def registry_digest(registry: Registry) -> str:
    """Return the digest that a copy of this registry would report.

    Example:
        assert registry_digest(source) == registry_digest(target)
    """
    whole = RegistryDigest()
    with registry.store.read() as tx:
        for table in TABLES:
            whole.add(table, _digest_table(table, tx))
    return whole.hex()


def _assign_registry_id(source_tx: Transaction | None, target_tx: Transaction) -> None:
    """Give the copy a new id, or the source's id together with the settings by which brokers know it."""
    target_tx.run(JOBS.put_setting, name=REGISTRY_ID, value=new_registry_id())
    if source_tx is not None:
        for name in (REGISTRY_ID, *_BROKER_SESSIONS):
            row = source_tx.one(JOBS.get_setting, name=name)
            if row is not None:
                target_tx.run(JOBS.put_setting, name=name, value=row[0])


def _require_empty(target_tx: Transaction, target_url: str) -> None:
    for table in TABLES:
        for _ in target_tx.iterate(COPY[f"copy_read_{table}"]):
            raise AlreadyExists(
                f"{target_url} is not empty (table {table} has rows)",
                advice="copy into a new database, opened with create=True",
                command="copy into a new database, created with 'jobdb init'",
            )


def _copy_table(table: str, source_tx: Transaction, target_tx: Transaction) -> TableDigest:
    insert = COPY[f"copy_write_{table}"]
    columns = tuple(parameters(insert.text))
    digest = TableDigest()
    for batch in _batches(source_tx.iterate(COPY[f"copy_read_{table}"])):
        digest.add(batch)
        try:
            target_tx.run_many(insert, (dict(zip(columns, row, strict=True)) for row in batch))
        except Exception:
            _refuse_nul(table, columns, batch)
            raise
    return digest


def _digest_table(table: str, tx: Transaction) -> TableDigest:
    digest = TableDigest()
    for batch in _batches(tx.iterate(COPY[f"copy_read_{table}"])):
        digest.add(batch)
    return digest


def _refuse_nul(table: str, columns: Sequence[str], batch: list[Row]) -> None:
    """Refuse a value that PostgreSQL cannot store: old records may contain a NUL, which SQLite stores."""
    for row in batch:
        for column, value in zip(columns, row, strict=True):
            if isinstance(value, str) and "\0" in value:
                raise InvalidInput(
                    f"{column} of the row in table {table} with {columns[0]} {row[0]} contains a NUL character, which "
                    "PostgreSQL cannot store; nothing was copied. Correct the record that it came from and import it "
                    "again, or prune the job"
                ) from None


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Yield the rows in batches of bounded number and, because prompts can be long, bounded size."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(value) for value in row if isinstance(value, (str, bytes)))
        if len(batch) >= _MAX_BATCH_ROWS or size >= _MAX_BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
