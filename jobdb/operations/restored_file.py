"""The copy of a backup before it takes the database's name: changes to it, and the note of a restore.

Called by ``restore`` and ``locked_replace``; the doctor reads the note. The file has a scratch name that no other
process uses, so it is written without a lock and synced once, by its creator. May call the SQLite engine's helpers.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import NamedTuple

import apsw

from ..engines.sqlite.error_translation import translate
from ..engines.statements import Statement, StatementSet
from .backup_file import open_scratch


class RestoredFileStatements(StatementSet):
    """The statements of ``restored_file.sql``."""

    revoke_restored_token: Statement
    put_restored_setting: Statement
    delete_restored_place: Statement
    delete_restored_leases: Statement
    delete_broker_identities: Statement
    is_marked_shared: Statement
    restored_key_id: Statement


RESTORED_FILE = RestoredFileStatements(Path(__file__).with_name("restored_file.sql"))

RESTORE_NOTE = "restored"
"""The setting that contains the note of the last restore."""

_MAX_NOTED_TOKENS = 100


class StatementCall(NamedTuple):
    """A statement with the values of its parameters."""

    statement: Statement
    values: tuple[int | str, ...] = ()


class RestoreNote(NamedTuple):
    """A note about the last restore, for the doctor.

    Attributes:
        at_ms: when it was, Unix milliseconds.
        known: True if it is known which tokens had been revoked since the backup.
        valid_again: the job id and version of tokens that had been revoked and are valid again; the first hundred.
    """

    at_ms: int
    known: bool
    valid_again: list[tuple[str, int]]


def note_restore(valid_again: list[tuple[str, int]] | None) -> StatementCall:
    """Return the call that records a restore.

    Args:
        valid_again: the job id and version of the revoked tokens that are valid again; None if unknown.
    """
    note = {
        "at_ms": time.time_ns() // 1_000_000,
        "known": valid_again is not None,
        "valid_again": (valid_again or [])[:_MAX_NOTED_TOKENS],
    }
    return StatementCall(RESTORED_FILE.put_restored_setting, (RESTORE_NOTE, json.dumps(note)))


def parse_restore_note(text: str | None) -> RestoreNote | None:
    """Parse the setting `RESTORE_NOTE`; return None if it is missing or invalid."""
    try:
        note = json.loads(text or "null")
        return RestoreNote(
            at_ms=int(note["at_ms"]),
            known=bool(note["known"]),
            valid_again=[(str(job_id), int(kid)) for job_id, kid in note["valid_again"]],
        )
    except (KeyError, TypeError, ValueError):
        return None


def write_changes(scratch: Path, changes: list[StatementCall]) -> None:
    """Execute statements on the file in one transaction.

    Raises:
        StorageFailed: the disk is full or failed.
    """
    if not changes:
        return
    try:
        connection = open_scratch(scratch)
        try:
            # Not apsw's context manager: its rollback fails if SQLite has rolled back on a full disk, hiding the cause.
            connection.execute("BEGIN IMMEDIATE")
            for statement, values in changes:
                connection.execute(statement.text, values)
            connection.execute("COMMIT")
        finally:
            connection.close()
    except apsw.Error as error:
        raise translate(error, scratch, 0.0) from error


def read_key_id(scratch: Path) -> str | None:
    """Return the id of the master key that the file's secrets are sealed under; None if it contains no secret.

    Raises:
        StorageFailed: the file cannot be read.
    """
    try:
        connection = open_scratch(scratch)
        try:
            row = connection.execute(RESTORED_FILE.restored_key_id.text).fetchone()
        finally:
            connection.close()
    except apsw.Error as error:
        raise translate(error, scratch, 0.0) from error
    return None if row is None else str(row[0])
