"""Moving a whole registry into another, empty one, whatever engine either has.

Called by ``jobdb copy``. One moment's state of the source is written in one transaction at the target and read back
there before it commits: the count and the digest of every table must be the same. Secrets stay sealed as they are, so
the target is used with the same master key. Memory is bounded by a batch of rows.

What belongs to the place and not to the jobs stays behind: its marks (``shared``, an override) and the named leases.
So does the registry's id: to brokers and tickets a copy is another registry, unless it is to go on as the same one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
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


COPY = CopyStatements(Path(__file__).with_name("copy.sql"))


_SESSIONS = ("identity", "broker_identity")
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
    "settings",
)
TABLES_NOT_COPIED = ("leases",)

_BATCH_ROWS = 1000
_BATCH_BYTES = 4 << 20


@dataclass(slots=True)
class CopyReport:
    """What was copied.

    Attributes:
        source: where from, without a password.
        target: where to, without a password.
        rows: how many rows of each table.
        digest: of everything that was copied, in hex; equal for two registries that hold the same.
    """

    source: str
    target: str
    rows: dict[str, int] = field(default_factory=dict)
    digest: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, under stable names."""
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
    """Of a table's rows in whatever order they come: the sum of their SHA-256, and their count."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0

    def add(self, rows: Iterable[Row]) -> None:
        """Takes rows in; a row's values are integers, text, bytes and None on every engine."""
        for row in rows:
            self.count += 1
            self._sum += int.from_bytes(hashlib.sha256(repr(row).encode("utf-8", "surrogatepass")).digest(), "big")

    def hex(self) -> str:
        """The digest in 64 hex digits."""
        return f"{self._sum % 2**256:064x}"


def copy_registry(source: Registry, target: Registry, *, same_registry: bool = False) -> CopyReport:
    """Copy everything; all or nothing.

    Args:
        source: stays as it is, and can be written to meanwhile: what is written after the beginning is not copied.
        target: holds no job.
        same_registry: give the copy the source's registry id, so that brokers' sessions and tickets go on. Only where
            the source is never used again: two that have one id take each other's messages.

    Raises:
        AlreadyExists: the target is not empty.
        StorageFailed: what was read back at the target is not what was read at the source; nothing was written.
    """
    report = CopyReport(str(source.url), str(target.url))
    whole = hashlib.sha256()
    with target.store.write() as target_tx, source.store.read() as source_tx:
        for side in (source_tx, target_tx):
            side.run(COPY.copy_set_timeouts)
        target_tx.run(COPY.copy_lock)
        _require_empty(target_tx, report.target)
        for table in TABLES:
            read, found = _copy_table(table, source_tx, target_tx), _digest(table, target_tx)
            if (read.count, read.hex()) != (found.count, found.hex()):
                raise StorageFailed(
                    f"table {table} holds {found.count} rows at {report.target} after {read.count} were read at "
                    f"{report.source}, or they differ; nothing was kept. Run 'jobdb doctor' on both"
                )
            report.rows[table] = read.count
            whole.update(f"{table} {read.count} {read.hex()}\n".encode())
        _assign_registry_id(source_tx if same_registry else None, target_tx)
        target_tx.run(COPY.copy_create_sequence)
        target_tx.run(COPY.copy_advance_sequence)
    report.digest = whole.hexdigest()
    return report


def _assign_registry_id(source_tx: Transaction | None, target_tx: Transaction) -> None:
    """Give the copy an id of its own, or that of the source with what brokers know it by."""
    target_tx.run(JOBS.put_setting, name=REGISTRY_ID, value=new_registry_id())
    if source_tx is not None:
        for name in (REGISTRY_ID, *_SESSIONS):
            found = source_tx.one(JOBS.get_setting, name=name)
            if found is not None:
                target_tx.run(JOBS.put_setting, name=name, value=found[0])


def registry_digest(registry: Registry) -> str:
    """The digest that a copy of this registry would report."""
    whole = hashlib.sha256()
    with registry.store.read() as source_tx:
        for table in TABLES:
            found = _digest(table, source_tx)
            whole.update(f"{table} {found.count} {found.hex()}\n".encode())
    return whole.hexdigest()


def _require_empty(target_tx: Transaction, target: str) -> None:
    for table in TABLES:
        for _ in target_tx.iterate(COPY[f"copy_read_{table}"]):
            raise AlreadyExists(
                f"{target} is not empty (table {table} has rows); copy into a new database, made by 'jobdb init'"
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


def _refuse_nul(table: str, columns: Sequence[str], batch: list[Row]) -> None:
    """Name the value that a server could not take: old records may hold a NUL, and a file keeps it."""
    for row in batch:
        for column, value in zip(columns, row, strict=True):
            if isinstance(value, str) and "\0" in value:
                raise InvalidInput(
                    f"{column} of the row in table {table} with {columns[0]} {row[0]} holds a NUL character, which "
                    "PostgreSQL cannot keep; nothing was copied. Correct the record that it came from and import it "
                    "again, or prune the job"
                ) from None


def _digest(table: str, tx: Transaction) -> TableDigest:
    digest = TableDigest()
    rows = tx.iterate(COPY[f"copy_read_{table}"])
    while batch := list(islice(rows, _BATCH_ROWS)):
        digest.add(batch)
    return digest


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Rows in batches that are bounded in number and, prompts being long, in size."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(value) for value in row if isinstance(value, (str, bytes)))
        if len(batch) >= _BATCH_ROWS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
