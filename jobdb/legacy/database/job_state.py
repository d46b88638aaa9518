"""The state of a job (``jobdb_state``) between the database and a record: read, written, merged.

Called by the exporter and by the importer with its verification. Merging only ever adds protection: an attempt rises,
a key is revoked, a subscriber has accepted more. What a state does not name stays as it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

from ...engines.sql.rows import token_binding
from ...engines.sql.sealer import Sealer
from ...engines.store import Transaction
from ..format.jobdb_state import State, intersect_ranges, make_state
from ..format.record import LegacyRecord
from .job_row import TOKEN_OMITTED, TOKEN_REQUIRED, JobRow
from .statements import LEGACY

Json = Any

_NO_END = 2**63 - 1


def export_state(tx: Transaction, row: JobRow, record: LegacyRecord) -> State | None:
    """Return what the record of a job cannot say of it.

    Args:
        tx: a transaction.
        row: the job.
        record: its record as it is to be written, with or without secrets.
    """
    no_token_reason = row.no_token_reason
    # Nobody revoked such a key: it is here because there was none. And a record that never had a token says so again.
    made_up = no_token_reason in (TOKEN_OMITTED, TOKEN_REQUIRED)
    key_rows = [key for key in _read_keys(tx, row) if not (made_up and key["kid"] == row.kid)]
    said = tx.one(LEGACY.legacy_highest_attempt, job=row.number)
    attempt = row.attempt if said is None or row.attempt != said[0] else 0
    return make_state(
        auth_required=row.kid > 0 and not record.auth_token and no_token_reason != TOKEN_REQUIRED,
        kid=row.kid,
        keys=[key for key in key_rows if key["kid"] != row.kid or "revoked_ms" in key],
        attempt=attempt,
        subscribers=_read_subscribers(tx, row.number).values(),
    )


def database_state(tx: Transaction, row: JobRow) -> State:
    """All that is known of a job, for comparing: also what a record would say without it."""
    return {
        "signed": row.kid > 0,
        "kid": max(row.kid, 1),
        "attempt": row.attempt,
        "keys": list(_read_keys(tx, row)),
        "subscribers": list(_read_subscribers(tx, row.number).values()),
    }


def write_state(tx: Transaction, sealer: Sealer, row: JobRow, state: State) -> None:
    """Add a state to a job. Its current key is written already.

    Args:
        tx: the import's transaction.
        sealer: seals what stands in for keys that nobody has here.
        row: the job as it is now.
        state: what is added.
    """
    tx.run(LEGACY.legacy_raise_attempt, job=row.number, attempt=state.get("attempt", 0))
    known = {key["kid"] for key in _read_keys(tx, row)}
    for key in state.get("keys", ()):
        times = {name: key.get(name) for name in ("created_ms", "expires_ms", "revoked_ms")}
        if key["kid"] in known:
            del times["created_ms"]
            tx.run(LEGACY.legacy_close_token, job=row.number, kid=key["kid"], **times)
        else:
            sealed = sealer.seal(placeholder_token(), bound_to=token_binding(row.job_id, key["kid"]))
            tx.run(LEGACY.legacy_upsert_token, job=row.number, kid=key["kid"], sealed=sealed, **times)
    here = _read_subscribers(tx, row.number)
    for each in state.get("subscribers", ()):
        _write_subscriber(tx, row.number, each, here.get(each["subscriber"]))


def placeholder_token() -> str:
    """Return a secret that is forgotten at once: it stands in for a key whose events must not verify."""
    return secrets.token_urlsafe(32)


def _write_subscriber(tx: Transaction, job: int, state: dict[str, Json], here: dict[str, Json] | None) -> None:
    skipped: Iterable[tuple[int, int]] = [(first, last) for first, last in state.get("skipped", ())]
    if here is None:
        made = tx.one(LEGACY.legacy_insert_subscription, job=job, now=tx.now_ms, **_numbers(state))
        assert made is not None
        number = made[0]
    elif state["last_seq"] <= here["last_seq"]:
        return
    else:
        # Neither side may accept again what the other has accepted: only what both have not stays open.
        open_here = [*here.get("skipped", ()), (here["last_seq"] + 1, _NO_END)]
        skipped = intersect_ranges(state.get("skipped", ()), open_here)
        made = tx.one(LEGACY.legacy_raise_subscription, job=job, **_numbers(state))
        assert made is not None
        number = made[0]
        tx.run(LEGACY.legacy_delete_gaps, subscription=number)
    for first, last in skipped:
        tx.run(LEGACY.legacy_insert_gap, subscription=number, first_seq=first, last_seq=last)


def _numbers(state: dict[str, Json]) -> dict[str, Json]:
    return {name: state[name] for name in ("subscriber", "start_seq", "last_seq", "handled_seq")}


def _read_keys(tx: Transaction, row: JobRow) -> Iterable[dict[str, Json]]:
    if not row.kid:
        return []
    found = []
    for kid, created_ms, expires_ms, revoked_ms in tx.all(LEGACY.legacy_keys, job=row.number):
        key = {"kid": kid, "created_ms": created_ms, "expires_ms": expires_ms, "revoked_ms": revoked_ms}
        found.append({name: value for name, value in key.items() if value is not None})
    return found


def _read_subscribers(tx: Transaction, job: int) -> dict[str, dict[str, Json]]:
    found: dict[str, dict[str, Json]] = {}
    for name, start_seq, last_seq, handled_seq, gap_first, gap_last in tx.all(LEGACY.legacy_subscriptions, job=job):
        each = found.get(name)
        if each is None:
            numbers = {"subscriber": name, "start_seq": start_seq, "last_seq": last_seq}
            each = found[name] = numbers | {"handled_seq": max(0, handled_seq)}
        if gap_first is not None:
            each.setdefault("skipped", []).append([gap_first, gap_last])
    return found
