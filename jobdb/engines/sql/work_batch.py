"""The transaction of a worker's batch: what it reports about its jobs, and the jobs that it claims next.

Called by the verb ``work_batch``. One transaction for all slots of a worker: while one commit is on its way to the
disk, the next batch collects. Prior art: River completes jobs in batches too (``jobcompleter``); here the next claims
are part of them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from ... import model
from ...core.log_paths import log_path
from ...core.protocol import MAX_DETAIL_CHARS
from ...errors import JobdbError
from ...model import EventKind
from .claims import Queue, require_claim, return_expired
from .giving_back import end_job, give_back
from .job_rows import JobRecord
from .job_updates import run_each
from .publish_batch import PublishBatch
from .statements import CLAIMS, JOBS, WORKERS

if TYPE_CHECKING:
    from ...crypto.vault import Vault
    from ...model import AttemptKey, GiveBack, NewEvent, ReapAction, WorkBatch
    from ..store import Transaction


class Recorded(NamedTuple):
    """The result of a batch.

    Attributes:
        claimed: the records of the claimed jobs, highest priority first, then the oldest.
        refused: the first error per claim.
        returned: what became of each claim that was given back.
        again: nothing was claimed, but expired leases were given back: ask again.
    """

    claimed: list[JobRecord]
    refused: dict[AttemptKey, JobdbError]
    returned: dict[AttemptKey, ReapAction]
    again: bool


def record_batch(tx: Transaction, vault: Vault, batch: WorkBatch) -> Recorded:
    """Record events and returns, renew leases, and claim jobs.

    Args:
        tx: the transaction.
        vault: unseals the jobs' tokens.
        batch: the checked batch.
    """
    keys = {(event.job_id, event.attempt or 0) for event in batch.events}
    keys |= {(back.job_id, back.attempt) for back in batch.give_back} | set(batch.renew)
    tx.lock_jobs(sorted({job_id for job_id, _attempt in keys}))
    refused: dict[AttemptKey, JobdbError] = {}
    returned: dict[AttemptKey, ReapAction] = {}
    if batch.events:
        PublishBatch(tx, vault).publish(batch.events, refused=refused)
    for back in batch.give_back:  # after the events: one of them may have ended the job
        try:
            returned[back.job_id, back.attempt] = _return_or_end(tx, vault, back)
        except JobdbError as error:
            refused.setdefault((back.job_id, back.attempt), error)
    _renew(tx, batch, refused)
    if batch.heartbeat:
        tx.run(WORKERS.heartbeat, worker_id=batch.worker_id, now=tx.now_ms)
    again, claimed = _claim(tx, vault, batch) if batch.claim else (False, [])
    return Recorded(claimed, refused, returned, again and not claimed)


def _return_or_end(tx: Transaction, vault: Vault, back: GiveBack) -> ReapAction:
    """Return a job to pending, or end it if this was its last try; return which."""
    state = require_claim(tx, back.job_id, back.attempt, "give back")
    limit = state.max_attempts or back.limit
    if not back.counts or state.strikes + 1 < limit:
        give_back(tx, state.job, reason=back.reason, delay_ms=round(back.delay_sec * 1000), strike=back.counts)
        return "returned"
    tries = f", try {state.strikes + 1} of {limit}" if limit > 1 else ""
    reason = back.reason[: MAX_DETAIL_CHARS - len(tries)] + tries
    end_job(tx, vault, back.job_id, state.job, back.attempt, reason, back.data)
    return "ended"


def _renew(tx: Transaction, batch: WorkBatch, refused: dict[AttemptKey, JobdbError]) -> None:
    until = tx.now_ms + round(batch.lease_sec * 1000)
    for job_id, attempt in batch.renew:
        try:
            job = require_claim(tx, job_id, attempt, "renew").job
        except JobdbError as error:
            refused.setdefault((job_id, attempt), error)
        else:
            tx.run(CLAIMS.renew_lease, job=job, lease_until=until, now=tx.now_ms)


def _claim(tx: Transaction, vault: Vault, batch: WorkBatch) -> tuple[bool, list[JobRecord]]:
    """Claim jobs; return whether expired leases may remain, and the records of the claimed jobs."""
    again = return_expired(tx, vault)
    lease_until = tx.now_ms + round(batch.lease_sec * 1000)
    numbers = Queue(batch.worker, lease_until, batch.agent, batch.agent_session).claim(tx, batch.claim)
    if not numbers:
        return again, []
    records = _read_records(tx, numbers)
    host = tx.one(WORKERS.worker_host, worker_id=batch.worker_id)
    if host is not None:
        rows = [
            {
                "job": record.id,
                "attempt": record.attempt,
                "worker": batch.worker,
                "worker_id": batch.worker_id,
                "host": host[0],
                "log": log_path(batch.log_dir, record.job_id, record.attempt) if batch.log_dir else None,
                "now": tx.now_ms,
            }
            for record in records
        ]
        run_each(tx, WORKERS.insert_attempt, rows)
    if batch.announce:
        started = [_started(record, batch.worker) for record in records]
        # A job whose token is revoked is claimed all the same, and ends without an event.
        PublishBatch(tx, vault).publish(started, refused={})
        records = _read_records(tx, numbers)
    return again, records


def _started(record: JobRecord, worker: str) -> NewEvent:
    """Return the event that announces a claim; of a later attempt it says why the job is tried again.

    That is the job's detail so far, which the event replaces.
    """
    data, detail = {"worker": worker}, ""
    if record.attempt > 1 and record.detail:
        data["after"] = record.detail
        detail = f"attempt {record.attempt}, after: {record.detail}"
    return model.NewEvent(
        job_id=record.job_id, event=EventKind.STARTED, detail=detail, data=data, attempt=record.attempt
    )


def _read_records(tx: Transaction, numbers: list[int]) -> list[JobRecord]:
    return [JobRecord._make(row) for row in tx.all(JOBS.get_jobs_by_number, jobs=json.dumps(numbers))]
