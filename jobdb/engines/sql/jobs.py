"""Verbs about jobs as records: register, get, list, cancel, prune."""

from __future__ import annotations

import heapq
import json
from itertools import islice
from typing import TYPE_CHECKING, Any

from ...errors import AlreadyExists, IllegalTransition, InvalidInput, UnknownJob
from ...model import JobStatus
from .job_updates import run_each
from .rows import broker_to_json, default_topic_prefix, password_binding, shorten, token_binding
from .sealer import Sealer
from .statements import JOBS, TOKENS
from .token_reuse import TokenReuseGuard, check_id_reuse, generate_job_id, is_generated_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...crypto.vault import Vault
    from ...model import Job, JobFilter, NewJob
    from ..store import Row, Store, Transaction

_MAX_JOB_NUMBER = 2**62
_ID_ATTEMPTS = 8


class JobVerbs:
    """Verbs about jobs as records."""

    store: Store
    vault: Vault
    reuse_guard: TokenReuseGuard

    def register(self, jobs: Sequence[NewJob]) -> list[Job]:
        """Records new jobs with their tokens; all or none. A known idempotency key answers with the job it made."""
        from .job_rows import jobs_from_rows

        with self.store.write() as tx:
            batch = _Registration(tx, self.vault, self.reuse_guard)
            for job in jobs:
                batch.add(job)
            batch.write()
        batch.reuse_guard.warn()
        return jobs_from_rows(batch.records)

    def get(self, job_id: str) -> Job:
        """One job; UnknownJob if there is none."""
        with self.store.read() as tx:
            return _read_job(tx, job_id)

    def list_jobs(self, job_filter: JobFilter, *, after: str | None, limit: int) -> list[Job]:
        """A page of jobs, newest first, that follows the job ``after``."""
        from .job_rows import jobs_from_rows

        with self.store.read() as tx:
            below = _MAX_JOB_NUMBER
            if after is not None:
                row = tx.one(JOBS.job_number, job_id=after)
                if row is None:
                    raise UnknownJob(after)
                below = row[0]
            rows = _page(tx, job_filter, below, limit)
        return jobs_from_rows(rows)

    def cancel(self, job_id: str, *, reason: str) -> Job:
        """Ends a pending or running job as cancelled. A cancelled job stays as it is and is no error."""
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            row = tx.one(JOBS.job_state, job_id=job_id)
            if row is None:
                raise UnknownJob(job_id)
            status = JobStatus(row[1])
            if status.terminal and status is not JobStatus.CANCELLED:
                raise IllegalTransition(
                    f"job {job_id} has ended as {status} and cannot be cancelled; register a new job to do it again"
                )
            if not status.terminal:
                tx.run(JOBS.cancel_job, job=row[0], now=tx.now_ms, detail=shorten(reason))
            return _read_job(tx, job_id)

    def prune(self, *, finished_before_ms: int, limit: int) -> list[str]:
        """Deletes up to ``limit`` jobs that ended before a moment and have nothing left to deliver."""
        with self.store.write() as tx:
            doomed = tx.all(JOBS.prune_candidates, before=finished_before_ms, limit=limit)
            tombstones = []
            for number, job_id, kid, unremembered in doomed:
                if unremembered or not kid or not is_generated_id(job_id):
                    tombstones.append({"job_id": job_id, "unremembered": int(unremembered), "now": tx.now_ms})
                tx.run(JOBS.delete_verdict_counts, job=number)
                tx.run(JOBS.delete_job, job=number)
            run_each(tx, TOKENS.upsert_tombstone, tombstones)
            return [row[1] for row in doomed]

    def count_by_status(self) -> dict[JobStatus, int]:
        """How many jobs there are of each status."""
        with self.store.read() as tx:
            counted = {JobStatus(status): count for status, count in tx.all(JOBS.count_by_status)}
        return {status: counted.get(status, 0) for status in JobStatus}

    def setting(self, name: str) -> str | None:
        """A fact about this database."""
        with self.store.read() as tx:
            row = tx.one(JOBS.get_setting, name=name)
            return None if row is None else row[0]

    def put_setting(self, name: str, value: str) -> None:
        """Notes a fact about this database."""
        if not name:
            raise InvalidInput("a setting needs a name")
        with self.store.write() as tx:
            tx.run(JOBS.put_setting, name=name, value=value)


class _Registration:
    """One transaction of register: the jobs that were added, and what is left to write at its end.

    Attributes:
        records: the jobs as rows of the view ``job_records``.
        reuse_guard: what tells their tokens from those of jobs before.
    """

    def __init__(self, tx: Transaction, vault: Vault, reuse_guard: TokenReuseGuard) -> None:
        self.records: list[Row] = []
        self._tx = tx
        self._now = tx.now_ms
        self._sealer = Sealer(tx, vault)
        self.reuse_guard = reuse_guard.for_transaction(tx, self._sealer)
        self._specs: list[dict[str, Any]] = []
        self._tokens: list[tuple[int, str, str]] = []

    def add(self, new: NewJob) -> None:
        """Gives a job its number; the rest of it is written by :meth:`write`."""
        if new.idempotency_key is not None:
            known = self._tx.one(JOBS.job_by_idempotency_key, idempotency_key=new.idempotency_key)
            if known is not None:
                self.write()  # it may be a job of this batch
                self.records.append(_check_same_registration(_job_record(self._tx, known[0]), new))
                return
        signed = new.auth != "never"
        if new.job_id is not None and (new.auth_token is not None or not signed):
            check_id_reuse(self._tx, new.job_id, signed=signed)
        job_id, number, prefix = self._insert(new, kid=int(signed))
        password = None
        if new.broker_password is not None:
            password = self._sealer.seal(new.broker_password, bound_to=password_binding(job_id))
        broker = broker_to_json(new.broker)
        artifacts = json.dumps(list(new.expected_artifacts), ensure_ascii=False) if new.expected_artifacts else "[]"
        extra = json.dumps(dict(new.extra), ensure_ascii=False) if new.extra else "{}"
        self._specs.append(
            {
                "job": number,
                "prompt": new.prompt,
                "broker": broker,
                "broker_password": password,
                "expected_artifacts": artifacts,
                "extra": extra,
            }
        )
        if signed:
            token = self.reuse_guard.issue_token(job_id, new.auth_token)
            self._tokens.append((number, token, token_binding(job_id, 1)))
        self.records.append(
            (
                job_id,
                "pending",
                new.agent,
                new.agent_session,
                new.prompt,
                new.priority,
                prefix,
                broker,
                password is not None,
                new.timeout_sec,
                new.idle_timeout_sec,
                artifacts,
                0,  # last_seq
                0,  # attempt
                0,  # strikes
                None,  # worker
                None,  # lease_until_ms
                self._now,  # created_ms
                self._now,  # updated_ms
                None,  # started_ms
                None,  # finished_ms
                None,  # last_event
                None,  # last_event_ms
                None,  # detail
                int(signed),
                extra,
                number,
            )
        )

    def write(self) -> None:
        """What was gathered: a statement for all, and their secrets sealed together."""
        run_each(self._tx, JOBS.insert_spec, self._specs)
        sealed = self._sealer.seal_many([(token, binding) for _number, token, binding in self._tokens])
        tokens = [
            {"job": number, "kid": 1, "sealed": each, "imported": 0, "now": self._now}
            for (number, _token, _binding), each in zip(self._tokens, sealed, strict=True)
        ]
        run_each(self._tx, JOBS.insert_token, tokens)
        self._specs, self._tokens = [], []

    def _insert(self, new: NewJob, *, kid: int) -> tuple[str, int, str]:
        """The job's id, its number and its topic prefix."""
        for _ in range(_ID_ATTEMPTS):
            job_id = new.job_id or generate_job_id()
            prefix = new.topic_prefix or default_topic_prefix(job_id)
            row = self._tx.one(
                JOBS.insert_job,
                job_id=job_id,
                agent=new.agent,
                agent_session=new.agent_session,
                priority=new.priority,
                topic_prefix=prefix,
                timeout_sec=new.timeout_sec,
                idle_timeout_sec=new.idle_timeout_sec,
                has_broker=int(new.broker is not None),
                kid=kid,
                now=self._now,
                idempotency_key=new.idempotency_key,
            )
            if row is not None:
                return job_id, row[0], prefix
            if new.job_id is not None:
                raise AlreadyExists(
                    f"there is a job {new.job_id!r} already; 'jobdb show {new.job_id}' shows it. Leave the id out to "
                    "have one made, or give an idempotency key to register once however often you ask"
                )
        raise AlreadyExists("no free job id was found; register again")


def _page(tx: Transaction, job_filter: JobFilter, below: int, limit: int) -> Iterable[Row]:
    common = {"below": below, "limit": limit, "agent_session": job_filter.agent_session}
    if not job_filter.statuses and job_filter.agent is None:
        return tx.all(JOBS.list_jobs, **common)
    # Each status is its own stretch of an index in the order of the page: merging them needs no sort.
    pages = []
    for status in job_filter.statuses or tuple(JobStatus):
        if job_filter.agent is None:
            pages.append(tx.all(JOBS.list_jobs_by_status, status=status.value, **common))
        else:
            pages.append(tx.all(JOBS.list_jobs_by_agent, status=status.value, agent=job_filter.agent, **common))
    merged = heapq.merge(*pages, key=lambda row: -row[-1])
    return islice(merged, limit)


def _check_same_registration(record: Row, new: NewJob) -> Row:
    job_id, _status, agent, _session, prompt = record[:5]
    if (agent, prompt) != (new.agent, new.prompt):
        raise AlreadyExists(
            f"idempotency key {new.idempotency_key!r} was used for job {job_id} with another agent or prompt; "
            "use a new key for a new job"
        )
    return record


def _read_job(tx: Transaction, job_id: str) -> Job:
    from .job_rows import job_from_row

    return job_from_row(_job_record(tx, job_id))


def _job_record(tx: Transaction, job_id: str) -> Row:
    row = tx.one(JOBS.get_job, job_id=job_id)
    if row is None:
        raise UnknownJob(job_id)
    return row
