"""The comparison of a database with a backup: the changes that a restore would lose.

Called by ``jobdb restore`` before it asks for confirmation, and by ``locked_replace`` under the lock. Reads both files
and changes neither. May call the SQLite engine's helpers and ``backup_file``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import apsw

from ..engines.sqlite.stale_journals import nonempty_journals
from ..engines.sqlite.temporary_connection import immutable_uri, temporary_connection
from ..engines.statements import Statement, StatementSet
from ..urls import DatabaseUrl
from .backup_file import resolve_backup, sqlite_path


class SinceBackupStatements(StatementSet):
    """The statements of ``since_backup.sql``."""

    revoked_since: Statement
    common_jobs: Statement
    subscriptions_ahead: Statement


SINCE_BACKUP = SinceBackupStatements(Path(__file__).with_name("since_backup.sql"))

_BUSY_SEC = 1.0


@dataclass(frozen=True, slots=True)
class ChangesSinceBackup:
    """Counts of the changes in a database that a backup does not have.

    Attributes:
        tokens: the number of tokens that were revoked, or replaced by a rotation, since the backup.
        jobs: the number of jobs that these tokens belong to.
        jobs_gone: the number of jobs in the backup that the database no longer has; whether their tokens were revoked
            is unknown.
        subscriptions: the number of subscriptions to single jobs that have accepted events since.
    """

    tokens: int
    jobs: int
    jobs_gone: int
    subscriptions: int

    def as_dict(self) -> dict[str, int]:
        """Return the counts as JSON-ready values under stable names."""
        return {
            "tokens": self.tokens,
            "jobs": self.jobs,
            "jobs_gone": self.jobs_gone,
            "subscriptions": self.subscriptions,
        }


class RevokedToken(NamedTuple):
    """A token that is valid in the backup and was revoked or rotated away since.

    Attributes:
        job: the number of its job in the backup.
        kid: its version.
        revoked_ms: when it was revoked, Unix milliseconds; None if it was rotated away.
        job_id: the id of its job.
    """

    job: int
    kid: int
    revoked_ms: int | None
    job_id: str


class Comparison(NamedTuple):
    """The counts, None if unknown, and the tokens that ``counts.tokens`` counts."""

    counts: ChangesSinceBackup | None
    revoked: list[RevokedToken]


def changes_since(backup: Path, url: DatabaseUrl) -> ChangesSinceBackup | None:
    """Compare the current database with a backup that is to replace it.

    Args:
        backup: the backup file.
        url: the current database.

    Returns:
        The changes in the current database that the backup does not have; None if unknown: the database is missing,
        damaged, in use for longer than a second, or has no job in common with the backup.

    Raises:
        InvalidInput: the backup is not a file, or the registry is in PostgreSQL.

    Example:
        changes = changes_since(Path("/backups/jobs.db"), parse_url("jobs.db"))
        if changes is not None and changes.tokens:
            print(f"{changes.tokens} revoked tokens would be valid again")
    """
    source = resolve_backup(backup)
    target = Path(os.path.realpath(sqlite_path(url)))
    if nonempty_journals(source) or not target.is_file() or target.stat().st_size == 0:
        return None
    try:
        with temporary_connection(
            target, busy_sec=_BUSY_SEC, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        ) as connection:
            connection.execute("ATTACH ? AS restored", (immutable_uri(source),))
            return compare(connection).counts
    except apsw.Error:
        return None


def compare(connection: apsw.Connection) -> Comparison:
    """Compare the database ``main`` of a connection with ``restored``, which is attached to it.

    Raises:
        apsw.Error: one of them is damaged or has no tables yet.
    """
    ((in_common, gone),) = connection.execute(SINCE_BACKUP.common_jobs.text)
    if in_common == 0 and gone > 0:
        return Comparison(None, [])
    revoked = [RevokedToken._make(row) for row in connection.execute(SINCE_BACKUP.revoked_since.text)]
    ((ahead,),) = connection.execute(SINCE_BACKUP.subscriptions_ahead.text)
    counts = ChangesSinceBackup(len(revoked), len({token.job for token in revoked}), gone, ahead)
    return Comparison(counts, revoked)
