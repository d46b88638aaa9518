"""The writer of states (``jobdb_state``): merges the state from an export into the database.

Called by the batch writer. Merging only ever adds protection: an attempt rises, a key is revoked, a subscriber has
accepted more. Anything that a state does not mention is unchanged.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from ...engines.sql.sealer import Sealer, token_binding
from ...engines.store import Transaction
from ..database.job_row import JobRow
from ..database.job_state import read_keys, read_subscribers
from ..database.statements import LEGACY
from ..format.jobdb_state import State
from ..format.seq_ranges import SeqRange, intersect_ranges

Json = Any

_NO_END = 2**63 - 1


def write_state(tx: Transaction, sealer: Sealer, row: JobRow, state: State) -> None:
    """Merge a state into a job, whose current key is already written.

    Args:
        tx: the import's transaction.
        sealer: seals the placeholders for keys that nobody has here.
        row: the job's current row.
        state: the state to merge.
    """
    tx.run(LEGACY.legacy_raise_attempt, job=row.row_id, attempt=state.get("attempt", 0))
    known = {key["kid"] for key in read_keys(tx, row)}
    for key in state.get("keys", ()):
        times = {name: key.get(name) for name in ("created_ms", "expires_ms", "revoked_ms")}
        if key["kid"] in known:
            del times["created_ms"]
            tx.run(LEGACY.legacy_close_token, job=row.row_id, kid=key["kid"], **times)
        else:
            sealed = sealer.seal(placeholder_token(), bound_to=token_binding(row.job_id, key["kid"]))
            tx.run(LEGACY.legacy_upsert_token, job=row.row_id, kid=key["kid"], sealed=sealed, **times)
    here = read_subscribers(tx, row.row_id)
    for each in state.get("subscribers", ()):
        _write_subscriber(tx, row.row_id, each, here.get(each["subscriber"]))


def placeholder_token() -> str:
    """Return a random secret that is not stored elsewhere: the placeholder for a key whose events must not verify."""
    return secrets.token_urlsafe(32)


def _write_subscriber(tx: Transaction, job: int, state: dict[str, Json], here: dict[str, Json] | None) -> None:
    """Merge a subscriber's position from elsewhere.

    Args:
        tx: the import's transaction.
        job: the job's row id.
        state: the subscriber's part of the state.
        here: the subscriber's part of the database's state; None for one that is new to the job.
    """
    skipped: Sequence[Sequence[int]] = state.get("skipped", ())
    seqs = {name: state[name] for name in ("subscriber", "start_seq", "last_seq", "handled_seq")}
    if here is None:
        row = tx.one(LEGACY.legacy_insert_subscription, job=job, now=tx.now_ms, **seqs)
    elif state["last_seq"] <= here["last_seq"]:
        return
    else:
        # Neither side may accept an event again that the other has accepted: only the gaps of both stay open.
        open_here = [*here.get("skipped", ()), SeqRange(here["last_seq"] + 1, _NO_END)]
        skipped = intersect_ranges(skipped, open_here)
        row = tx.one(LEGACY.legacy_raise_subscription, job=job, **seqs)
    assert row is not None
    (subscription,) = row
    if here is not None:
        tx.run(LEGACY.legacy_delete_gaps, subscription=subscription)
    for first, last in skipped:
        tx.run(LEGACY.legacy_insert_gap, subscription=subscription, first_seq=first, last_seq=last)
