"""The batch writer: writes planned jobs, the new ones of a batch statement by statement, the others job by job.

Called by the importer inside its transaction; calls the verification to read back the written rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...crypto.vault import Vault
from ...engines.sql.sealer import Sealer, password_binding, token_binding
from ...engines.store import Transaction
from ..database.job_queries import find_job
from ..database.job_values import EventValues, JobValues, KeyValues, LineValues, OriginValues
from ..database.statements import LEGACY
from .normalized_job import NormalizedJob
from .plan import Plan
from .state_writer import placeholder_token, write_state
from .verification import Verification, WrittenJob

Json = Any
Planned = tuple[NormalizedJob, Plan]

JOB_PARAMETERS = JobValues._fields
SPEC_PARAMETERS = ("job", "prompt", "broker", "broker_password", "expected_artifacts", "extra")
KEY_PARAMETERS = ("job", "sealed", "kid", "created_ms", "expires_ms", "revoked_ms")
ORIGIN_PARAMETERS = ("job", *OriginValues._fields)
LINE_PARAMETERS = ("job", *LineValues._fields)
EVENT_PARAMETERS = ("job", *EventValues._fields)
"""The parameters of the insert statements, in their order: SQLite binds them as they are."""


class BatchWriter:
    """The writer of planned jobs.

    Args:
        tx: the import's transaction.
        vault: seals tokens and passwords.
        verification: reads back.
    """

    def __init__(self, tx: Transaction, vault: Vault, verification: Verification) -> None:
        self._tx = tx
        self._sealer = Sealer(tx, vault)
        self._verification = verification

    def write(self, batch: Sequence[Planned]) -> None:
        """Write the jobs of a batch whose plans require it, and verify them.

        Raises:
            StorageFailed: the rows read back differ from those to be written.
        """
        new = [source for source, plan in batch if plan.is_new]
        if new:
            self._verification.check_new(self._insert(new))
        for source, plan in batch:
            if plan.writes and plan.row_id is not None:
                self._update(plan.row_id, source, plan)
                self._verification.check_updated(plan.row_id, source)

    def _insert(self, new: Sequence[NormalizedJob]) -> list[WrittenJob]:
        tx = self._tx
        last = tx.one(LEGACY.legacy_last_row_id)
        stored = [source.unpack_rows() for source in new]
        tx.run_rows(LEGACY.legacy_insert_job, JOB_PARAMETERS, [rows.job for rows in stored])
        row_ids: dict[str, int] = dict(tx.all(LEGACY.legacy_new_row_ids, after=last[0] if last else 0))
        passwords = self._sealed_passwords(new)
        stored_keys = [KeyValues._make(rows.key) for rows in stored]
        tokens = self._sealed_tokens(new, [key.kid for key in stored_keys])
        specs, keys, origins, lines, events = [], [], [], [], []
        written: list[WrittenJob] = []
        for source, rows, key in zip(new, stored, stored_keys, strict=True):
            job = row_ids[source.job_id]
            written.append(WrittenJob(job, source, len(rows.lines)))
            password = None if source.password is None else next(passwords)
            specs.append(_spec_parameters(job, rows.spec, password))
            if key.kid is not None:
                keys.append(_key_parameters(job, key, next(tokens)))
            origins.append((job, *rows.origin))
            events += [(job, *event) for event in rows.events]
            lines += [(job, *line) for line in rows.lines]
        tx.run_rows(LEGACY.legacy_insert_spec, SPEC_PARAMETERS, specs)
        tx.run_rows(LEGACY.legacy_upsert_token, KEY_PARAMETERS, keys)
        tx.run_rows(LEGACY.legacy_upsert_import, ORIGIN_PARAMETERS, origins)
        tx.run_rows(LEGACY.legacy_insert_line, LINE_PARAMETERS, lines)
        tx.run_rows(LEGACY.legacy_insert_event, EVENT_PARAMETERS, events)
        for source in new:
            if source.state:
                self._write_state(source)
        return written

    def _update(self, job: int, source: NormalizedJob, plan: Plan) -> None:
        tx, stored = self._tx, source.unpack_values()
        if plan.only_logs:
            tx.run(LEGACY.legacy_raise_seq, job=job, last_seq=stored.origin.job_seq)
        else:
            columns = stored.job._asdict()
            del columns["job_id"]
            tx.run(LEGACY.legacy_update_job, job=job, **columns)
            spec = _spec_parameters(job, stored.spec, next(self._sealed_passwords([source]), None))
            tx.run(LEGACY.legacy_update_spec, **dict(zip(SPEC_PARAMETERS, spec, strict=True)))
        kid = stored.key.kid
        new_key = kid is not None and kid > plan.stored_kid
        if new_key or (source.token and not plan.keeps_token and not plan.only_logs):
            (sealed,) = self._sealed_tokens([source], [kid])
            key = _key_parameters(job, stored.key, sealed)
            tx.run(LEGACY.legacy_upsert_token, **dict(zip(KEY_PARAMETERS, key, strict=True)))
            tx.run(LEGACY.legacy_raise_kid, job=job, kid=kid)
        tx.run(LEGACY.legacy_upsert_import, job=job, **stored.origin._asdict())
        tx.run(LEGACY.legacy_delete_lines, job=job)
        tx.run_rows(LEGACY.legacy_insert_line, LINE_PARAMETERS, [(job, *line) for line in stored.lines])
        tx.run_rows(LEGACY.legacy_insert_event, EVENT_PARAMETERS, [(job, *event) for event in plan.new_events])
        if source.state:
            self._write_state(source)

    def _write_state(self, source: NormalizedJob) -> None:
        row = find_job(self._tx, source.job_id)
        assert row is not None and source.state is not None
        write_state(self._tx, self._sealer, row, source.state)

    def _sealed_tokens(self, jobs: Sequence[NormalizedJob], kids: Sequence[int | None]) -> Iterator[bytes]:
        """Yield the sealed tokens of the jobs that have a key, in order; a placeholder if nobody has it."""
        secrets = [
            (job.token or placeholder_token(), token_binding(job.job_id, kid))
            for job, kid in zip(jobs, kids, strict=True)
            if kid is not None
        ]
        return iter(self._sealer.seal_many(secrets))

    def _sealed_passwords(self, jobs: Sequence[NormalizedJob]) -> Iterator[bytes]:
        """Yield the sealed passwords of the jobs that have one, in order."""
        return iter(
            self._sealer.seal_many(
                [(job.password, password_binding(job.job_id)) for job in jobs if job.password is not None]
            )
        )


def _spec_parameters(job: int, spec: tuple[Json, ...], sealed_password: bytes | None) -> tuple[Json, ...]:
    prompt, broker, expected_artifacts, extra = spec
    return job, prompt, broker, sealed_password, expected_artifacts, extra


def _key_parameters(job: int, key: KeyValues, sealed: bytes) -> tuple[Json, ...]:
    return job, sealed, key.kid, key.created_ms, key.expires_ms, key.revoked_ms
