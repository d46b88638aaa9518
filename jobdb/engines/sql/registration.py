"""The transaction of the verb register: the jobs that were added, and the rows to write at its end.

A batch is written in few statements: inserting a job's row yields its key, and everything else is collected. Called by
the verb register, which imports it on the first call: publishing does not need it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ...errors import AlreadyExists
from .job_rows import JobRecord, jobs_from_rows
from .job_updates import run_each
from .rows import broker_to_json, default_topic_prefix
from .sealer import Sealer, password_binding, token_binding
from .statements import JOBS
from .token_reuse import check_id_reuse, generate_job_id

if TYPE_CHECKING:
    from ...crypto.vault import Vault
    from ...model import Job, NewJob
    from ..store import Transaction
    from .token_reuse import TokenReuseGuard

_ID_ATTEMPTS = 8
_ID_ADVICE = "Omit the id to have one generated, or give an idempotency key to make registering repeatable"


class Registration:
    """The jobs that one transaction registers.

    Args:
        tx: the transaction.
        vault: seals the tokens and broker passwords.
        reuse_guard: recognizes tokens that were used before.

    Attributes:
        tokens: the tokens of this transaction.
    """

    def __init__(self, tx: Transaction, vault: Vault, reuse_guard: TokenReuseGuard) -> None:
        self._records: list[JobRecord] = []
        self._tx = tx
        self._now = tx.now_ms
        self._sealer = Sealer(tx, vault)
        self.tokens = reuse_guard.for_transaction(tx, self._sealer)
        self._specs: list[dict[str, Any]] = []
        self._signed_jobs: list[int] = []
        self._secrets: list[tuple[str, str]] = []  # their tokens, each with its binding

    def add(self, new: NewJob) -> None:
        """Insert a job's row; :meth:`flush` writes the rest of the job."""
        if new.idempotency_key is not None:
            known = self._tx.one(JOBS.job_by_idempotency_key, idempotency_key=new.idempotency_key)
            if known is not None:
                self.flush()  # it may be a job in this batch
                self._records.append(self._known_job(known[0], new))
                return
        signed = new.auth != "never"
        if new.job_id is not None and (new.auth_token is not None or not signed):
            check_id_reuse(self._tx, new.job_id, signed=signed)
        job_id, job, prefix = self._insert(new, kid=int(signed))
        password = None
        if new.broker_password is not None:
            password = self._sealer.seal(new.broker_password, bound_to=password_binding(job_id))
        broker = broker_to_json(new.broker)
        artifacts = json.dumps(list(new.expected_artifacts), ensure_ascii=False) if new.expected_artifacts else "[]"
        extra = json.dumps(dict(new.extra), ensure_ascii=False) if new.extra else "{}"
        self._specs.append(
            {
                "job": job,
                "prompt": new.prompt,
                "broker": broker,
                "broker_password": password,
                "expected_artifacts": artifacts,
                "extra": extra,
            }
        )
        if signed:
            token = self.tokens.issue_token(job_id, new.auth_token)
            self._signed_jobs.append(job)
            self._secrets.append((token, token_binding(job_id, 1)))
        self._records.append(
            JobRecord(  # by position: by name it takes a twentieth of a registration's time
                job_id,
                "pending",
                new.agent,
                new.agent_session,
                new.prompt,
                new.priority,
                prefix,
                broker,
                int(password is not None),
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
                job,
                new.max_attempts,
                None,  # not_before_ms
            )
        )

    def flush(self) -> None:
        """Write the collected rows, with one statement per table, and their secrets sealed together."""
        run_each(self._tx, JOBS.insert_spec, self._specs)
        tokens = [
            {"job": job, "kid": 1, "sealed": sealed, "imported": 0, "now": self._now}
            for job, sealed in zip(self._signed_jobs, self._sealer.seal_many(self._secrets), strict=True)
        ]
        run_each(self._tx, JOBS.insert_token, tokens)
        self._specs, self._signed_jobs, self._secrets = [], [], []

    def jobs(self) -> list[Job]:
        """Return the registered jobs, in the order in which they were added."""
        return jobs_from_rows(self._records)

    def _insert(self, new: NewJob, *, kid: int) -> tuple[str, int, str]:
        """Insert a job's row; return its id, its primary key and its topic prefix."""
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
                max_attempts=new.max_attempts,
            )
            if row is not None:
                return job_id, row[0], prefix
            if new.job_id is not None:
                raise AlreadyExists(
                    f"job {new.job_id!r} already exists",
                    advice=f"registry.get({new.job_id!r}) returns it. {_ID_ADVICE}",
                    command=f"'jobdb show {new.job_id}' shows it. {_ID_ADVICE}",
                )
        raise AlreadyExists("no free job id was found", advice="register again")

    def _known_job(self, job_id: str, new: NewJob) -> JobRecord:
        """Return the job that was registered with an idempotency key, if it matches the requested one."""
        row = self._tx.one(JOBS.get_job, job_id=job_id)
        assert row is not None
        record = JobRecord._make(row)
        if (record.agent, record.prompt) != (new.agent, new.prompt):
            raise AlreadyExists(
                f"idempotency key {new.idempotency_key!r} was used for job {job_id} with another agent or prompt",
                advice="use a new key for a new job",
            )
        return record
