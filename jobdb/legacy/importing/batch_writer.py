"""Writes portions of planned jobs: the new ones statement by statement for all of them, the others one by one.

Called by the importer inside its transaction; has the verification read back what it wrote.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator, Sequence
from typing import Any

from ...crypto.vault import Vault
from ...engines.sql.rows import password_binding, token_binding
from ...engines.sql.sealer import Sealer
from ...engines.store import Transaction
from ..database.job_row import JobRow
from ..database.job_state import placeholder_token, write_state
from ..database.statements import LEGACY
from .normalization import JOB_COLUMNS, ORIGIN_COLUMNS, SPEC_COLUMNS, TOKEN_COLUMNS, NormalizedJob
from .plan import NEW_JOB, Plan
from .verification import Verification, WrittenJob

Json = Any
Planned = tuple[NormalizedJob, Plan]


_SPEC_BEGINS = len(JOB_COLUMNS)
_ORIGIN_BEGINS = _SPEC_BEGINS + len(SPEC_COLUMNS)
_TOKEN_BEGINS = _ORIGIN_BEGINS + len(ORIGIN_COLUMNS)
_TOKEN_ENDS = _TOKEN_BEGINS + len(TOKEN_COLUMNS)
_SPEC_PARAMETERS = ("job", "prompt", "broker", "broker_password", "expected_artifacts", "extra")
_TOKEN_PARAMETERS = ("job", "sealed", "kid", "created_ms", "expires_ms", "revoked_ms")
_ORIGIN_PARAMETERS = ("job", *ORIGIN_COLUMNS)
_LINE = ("job", "log", "number", "raw")
_EVENT = ("job", "seq", "event", "attempt", "recorded_ms", "digest", "payload")
"""The parameters of the statements that insert, in their order there: SQLite binds them as they are."""


class BatchWriter:
    """Writes what the plans say.

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
        """Writes the jobs of a portion whose plans write at all, and has them read back.

        Raises:
            StorageFailed: they are not there as they should be.
        """
        new = [source for source, plan in batch if plan is NEW_JOB]
        if new:
            self._verification.check_new(self._insert(new))
        for source, plan in batch:
            if plan.writes and plan.number is not None:
                self._update(plan.number, source, plan)
                self._verification.check_updated(plan.number, source)

    def _insert(self, new: Sequence[NormalizedJob]) -> list[WrittenJob]:
        tx = self._tx
        row = tx.one(LEGACY.legacy_last_number)
        stored = [marshal.loads(source.stored) for source in new]
        self._tx.run_rows(LEGACY.legacy_insert_job, JOB_COLUMNS, [values[:_SPEC_BEGINS] for values, _, _ in stored])
        numbers: dict[str, int] = dict(tx.all(LEGACY.legacy_new_numbers, after=row[0] if row else 0))
        passwords = self._sealed_passwords(new)
        tokens = self._sealed_tokens(new, [values[_TOKEN_BEGINS] for values, _, _ in stored])
        specs, keys, origins, lines, events = [], [], [], [], []
        written: list[WrittenJob] = []
        for source, (values, its_events, its_lines) in zip(new, stored, strict=True):
            job = numbers[source.job_id]
            written.append((job, source, len(its_lines)))
            specs.append(_spec(job, values, None if source.password is None else next(passwords)))
            kid, _imported, *times = values[_TOKEN_BEGINS:_TOKEN_ENDS]
            if kid is not None:
                keys.append((job, next(tokens), kid, *times))
            origins.append((job, *values[_ORIGIN_BEGINS:_TOKEN_BEGINS]))
            events += [(job, *event) for event in its_events]
            if its_lines:
                lines += [(job, *line) for line in its_lines]
        self._tx.run_rows(LEGACY.legacy_insert_spec, _SPEC_PARAMETERS, specs)
        self._tx.run_rows(LEGACY.legacy_upsert_token, _TOKEN_PARAMETERS, keys)
        self._tx.run_rows(LEGACY.legacy_upsert_import, _ORIGIN_PARAMETERS, origins)
        self._tx.run_rows(LEGACY.legacy_insert_line, _LINE, lines)
        self._tx.run_rows(LEGACY.legacy_insert_event, _EVENT, events)
        for source in new:
            if source.state:
                self._write_state(source)
        return written

    def _update(self, job: int, source: NormalizedJob, plan: Plan) -> None:
        tx, stored = self._tx, source.unpack_values()
        if plan.only_logs:
            tx.run(LEGACY.legacy_raise_seq, job=job, last_seq=stored.last_seq)
        else:
            columns = dict(zip(JOB_COLUMNS, stored.job, strict=True))
            del columns["job_id"]
            tx.run(LEGACY.legacy_update_job, job=job, **columns)
            spec = _spec(job, stored.values, next(self._sealed_passwords([source]), None))
            tx.run(LEGACY.legacy_update_spec, **dict(zip(_SPEC_PARAMETERS, spec, strict=True)))
        kid, _imported, *times = stored.key
        new_key = kid is not None and kid > plan.stored_kid
        if new_key or (source.token and not plan.keeps_token and not plan.only_logs):
            (sealed,) = self._sealed_tokens([source], [kid])
            tx.run(LEGACY.legacy_upsert_token, **dict(zip(_TOKEN_PARAMETERS, (job, sealed, kid, *times), strict=True)))
            tx.run(LEGACY.legacy_raise_kid, job=job, kid=kid)
        tx.run(LEGACY.legacy_upsert_import, job=job, **dict(zip(ORIGIN_COLUMNS, stored.origin, strict=True)))
        tx.run(LEGACY.legacy_delete_lines, job=job)
        self._tx.run_rows(LEGACY.legacy_insert_line, _LINE, [(job, *line) for line in stored.lines])
        self._tx.run_rows(LEGACY.legacy_insert_event, _EVENT, [(job, *event) for event in plan.new_events])
        if source.state:
            self._write_state(source)

    def _write_state(self, source: NormalizedJob) -> None:
        row = self._tx.one(LEGACY.legacy_job, job_id=source.job_id)
        assert row is not None and source.state is not None
        write_state(self._tx, self._sealer, JobRow(*row), source.state)

    def _sealed_tokens(self, jobs: Sequence[NormalizedJob], kids: Sequence[int | None]) -> Iterator[bytes]:
        """Of the jobs that have a key, in order; where nobody has it, a secret that is forgotten at once."""
        secrets = [
            (job.token or placeholder_token(), token_binding(job.job_id, kid))
            for job, kid in zip(jobs, kids, strict=True)
            if kid is not None
        ]
        return iter(self._sealer.seal_many(secrets))

    def _sealed_passwords(self, jobs: Sequence[NormalizedJob]) -> Iterator[bytes]:
        """Of the jobs that have one, in order."""
        return iter(
            self._sealer.seal_many(
                [(job.password, password_binding(job.job_id)) for job in jobs if job.password is not None]
            )
        )


def _spec(job: int, values: tuple[Json, ...], sealed_password: bytes | None) -> tuple[Json, ...]:
    prompt, broker, artifacts, extra = values[_SPEC_BEGINS:_ORIGIN_BEGINS]
    return job, prompt, broker, sealed_password, artifacts, extra
