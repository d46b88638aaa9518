"""The writer of states (``jobdb_state``): merges what an export says of a job into the database.

Called by the batch writer. Merging only ever adds protection: an attempt rises, a key is revoked, a subscriber has
accepted more. What a state does not name stays as it is.
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
    """Add a state to a job. Its current key is written already.

    Args:
        tx: the import's transaction.
        sealer: seals what stands in for keys that nobody has here.
        row: the job as it is now.
        state: what is added.
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
    """Return a secret that is forgotten at once: it stands in for a key whose events must not verify."""
    return secrets.token_urlsafe(32)


def _write_subscriber(tx: Transaction, job: int, state: dict[str, Json], here: dict[str, Json] | None) -> None:
    """Add what a subscriber has accepted elsewhere.

    Args:
        tx: the import's transaction.
        job: the job's row id.
        state: the subscriber's part of the state.
        here: the subscriber's part of the database's state; None for one that the job is new to.
    """
    skipped: Sequence[Sequence[int]] = state.get("skipped", ())
    seqs = {name: state[name] for name in ("subscriber", "start_seq", "last_seq", "handled_seq")}
    if here is None:
        row = tx.one(LEGACY.legacy_insert_subscription, job=job, now=tx.now_ms, **seqs)
    elif state["last_seq"] <= here["last_seq"]:
        return
    else:
        # Neither side may accept again what the other has accepted: only what both have not stays open.
        open_here = [*here.get("skipped", ()), SeqRange(here["last_seq"] + 1, _NO_END)]
        skipped = intersect_ranges(skipped, open_here)
        row = tx.one(LEGACY.legacy_raise_subscription, job=job, **seqs)
    assert row is not None
    (subscription,) = row
    if here is not None:
        tx.run(LEGACY.legacy_delete_gaps, subscription=subscription)
    for first, last in skipped:
        tx.run(LEGACY.legacy_insert_gap, subscription=subscription, first_seq=first, last_seq=last)
