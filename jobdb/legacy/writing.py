"""Writes portions of planned jobs: the new ones statement by statement for all of them, the others one by one.

Called by the importer inside its transaction; has the verification read back what it wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..engines.sql.sealing import seal
from ..engines.sql.transaction import Transaction
from ..vault import Vault
from .log_lines import LogEvent
from .logs import mask
from .plan import Plan
from .rows import import_columns, job_columns, spec_columns, token_columns
from .source import SourceJob
from .stored import secrets_of
from .verify import Verification, Written

Json = Any
Planned = tuple[SourceJob, Plan]


class PortionWriter:
    """Writes what the plans say."""

    def __init__(self, tx: Transaction, vault: Vault, verification: Verification) -> None:
        self._tx = tx
        self._vault = vault
        self._verification = verification
        self._key_is_known = False

    def write(self, portion: Sequence[Planned]) -> None:
        """Writes the jobs of a portion whose plans write at all, and has them read back.

        Raises:
            StorageFailed: they are not there as they should be.
        """
        new = [source for source, plan in portion if plan.writes and plan.number is None]
        written = self._insert(new) if new else []
        for source, plan in portion:
            if plan.writes and plan.number is not None:
                self._update(plan.number, source, plan)
                written.append((plan.number, source, None))
        self._verification.check(written)

    def _insert(self, new: Sequence[SourceJob]) -> list[Written]:
        tx = self._tx
        row = tx.one("legacy_last_number")
        columns = [job_columns(source) for source in new]
        tx.run_many("legacy_insert_job", columns)
        numbers: dict[str, int] = dict(tx.all("legacy_new_numbers", after=row[0] if row else 0))
        jobs = [(numbers[source.record.job_id], source) for source in new]
        specs = [{"job": job, **spec_columns(source.record, self._seal)} for job, source in jobs]
        tx.run_many("legacy_insert_spec", specs)
        tokens = [
            {"job": job, **token_columns(source.record, self._seal)} for job, source in jobs if source.record.auth_token
        ]
        tx.run_many("legacy_put_token", tokens)
        tx.run_many("legacy_put_import", [{"job": job, **import_columns(source)} for job, source in jobs])
        tx.run_many("legacy_insert_line", [line for job, source in jobs for line in _lines(job, source)])
        tx.run_many("legacy_insert_event", [_event(job, event) for job, source in jobs for event in source.logs.events])
        return [(job, source, found) for (job, source), found in zip(jobs, columns, strict=True)]

    def _update(self, job: int, source: SourceJob, plan: Plan) -> None:
        tx, record = self._tx, source.record
        if plan.only_logs:
            tx.run("legacy_raise_seq", job=job, last_seq=source.last_seq)
        else:
            columns = job_columns(source)
            del columns["job_id"]
            tx.run("legacy_update_job", job=job, **columns)
            tx.run("legacy_update_spec", job=job, **spec_columns(record, self._seal))
            if record.auth_token:
                tx.run("legacy_put_token", job=job, **token_columns(record, self._seal))
            else:
                tx.run("legacy_delete_tokens", job=job)
        tx.run("legacy_put_import", job=job, **import_columns(source))
        tx.run("legacy_delete_lines", job=job)
        tx.run_many("legacy_insert_line", _lines(job, source))
        tx.run_many("legacy_insert_event", [_event(job, event) for event in plan.new_events])

    def _seal(self, secret: str, bound_to: str) -> bytes:
        """Seals under the database's one master key; which it is, is looked up once in the transaction."""
        if self._key_is_known:
            return self._vault.seal(secret, bound_to=bound_to)
        self._key_is_known = True
        return seal(self._tx, self._vault, secret, bound_to=bound_to)


def _lines(job: int, source: SourceJob) -> list[dict[str, Json]]:
    if not source.logs.kept:
        return []
    secrets = secrets_of(source.record)
    return [
        {"job": job, "log": line.log.value, "number": line.number, "raw": mask(line.raw, secrets)}
        for line in source.logs.kept
    ]


def _event(job: int, event: LogEvent) -> dict[str, Json]:
    return {
        "job": job,
        "seq": event.seq,
        "event": event.event,
        "attempt": event.attempt,
        "recorded_ms": event.recorded_ms,
        "digest": event.digest,
        "payload": event.text,
    }
