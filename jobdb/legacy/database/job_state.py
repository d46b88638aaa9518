"""The state of a job (``jobdb_state``), read from the database.

Called by the exporter, by the importer with its verification, and by ``importing/state_writer.py``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...engines.store import Transaction
from ..format.jobdb_state import State, make_state
from ..format.record import LegacyRecord
from .job_row import JobRow
from .key_markers import NoTokenReason
from .statements import LEGACY

Json = Any


class _KeyRow(NamedTuple):
    """A row of ``legacy_keys``."""

    kid: int
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None


class _SubscriptionRow(NamedTuple):
    """A row of ``legacy_subscriptions``: a subscriber with one of its skipped ranges, if any."""

    subscriber: str
    start_seq: int
    last_seq: int
    handled_seq: int
    skipped_first: int | None
    skipped_last: int | None


def export_state(tx: Transaction, row: JobRow, record: LegacyRecord) -> State | None:
    """Return the state of a job that its record cannot express.

    Args:
        tx: a transaction.
        row: the job.
        record: its record to be written, with or without secrets.
    """
    no_token_reason = row.no_token_reason
    # Nobody revoked such a key: it exists because the record had none, and the exported record has none again.
    made_up = no_token_reason in (NoTokenReason.OMITTED, NoTokenReason.REQUIRED)
    keys = [key for key in read_keys(tx, row) if not (made_up and key["kid"] == row.kid)]
    highest = tx.one(LEGACY.legacy_highest_attempt, job=row.row_id)
    return make_state(
        auth_required=row.kid > 0 and not record.auth_token and no_token_reason is not NoTokenReason.REQUIRED,
        kid=row.kid,
        keys=[key for key in keys if key["kid"] != row.kid or "revoked_ms" in key],
        attempt=row.attempt if highest is None or row.attempt != highest[0] else 0,
        subscribers=read_subscribers(tx, row.row_id).values(),
    )


def database_state(tx: Transaction, row: JobRow) -> State:
    """Return a job's full state for comparison, including the parts that its record expresses."""
    return {
        "signed": row.kid > 0,
        "kid": max(row.kid, 1),
        "attempt": row.attempt,
        "keys": read_keys(tx, row),
        "subscribers": list(read_subscribers(tx, row.row_id).values()),
    }


def read_keys(tx: Transaction, row: JobRow) -> list[dict[str, Json]]:
    """Return the versions of a job's token in the form of a state, without times that are not set."""
    if not row.kid:
        return []
    keys = (_KeyRow(*values)._asdict() for values in tx.all(LEGACY.legacy_keys, job=row.row_id))
    return [{name: value for name, value in key.items() if value is not None} for key in keys]


def read_subscribers(tx: Transaction, row_id: int) -> dict[str, dict[str, Json]]:
    """Return each subscriber's position in a job in the form of a state, keyed by subscriber."""
    found: dict[str, dict[str, Json]] = {}
    for row in map(_SubscriptionRow._make, tx.all(LEGACY.legacy_subscriptions, job=row_id)):
        subscriber = found.setdefault(
            row.subscriber,
            {
                "subscriber": row.subscriber,
                "start_seq": row.start_seq,
                "last_seq": row.last_seq,
                "handled_seq": max(0, row.handled_seq),
            },
        )
        if row.skipped_first is not None:
            subscriber.setdefault("skipped", []).append([row.skipped_first, row.skipped_last])
    return found
