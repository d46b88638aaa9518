"""Verbs about what comes in over the wire (FW-N7): accept, and what was refused.

What accept does in its transaction is in accepting.py, imported when it is called: who publishes needs none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import model
from ...model import Verdict, from_ms
from ...protocol import MalformedPayload, UnsupportedVersion, WireEvent, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...model import Acceptance, Arrival, Refusal
    from ...vault import Vault
    from .transaction import Row, Store


class AcceptVerbs:
    """Verbs about events that come in over the wire."""

    store: Store
    vault: Vault

    def accept(self, arrivals: Sequence[Arrival], *, subscriber: str, window: int, start: str) -> list[Acceptance]:
        """Gives each arrival its verdict and acts on it; the whole batch is one transaction."""
        from .accepting import Batch

        parsed = [_parse(arrival) for arrival in arrivals]
        with self.store.write() as tx:
            tx.lock_jobs(wire.job_id for wire in parsed if isinstance(wire, WireEvent))
            batch = Batch(tx, self.vault, subscriber, window, start)
            answers = []
            for wire, arrival in zip(parsed, arrivals, strict=True):
                if isinstance(wire, WireEvent):
                    answers.append(batch.accept(wire, arrival.topic))
                else:
                    answers.append(batch.counted(0, wire))
            batch.write()
        return answers

    def refusals(self, *, job_id: str | None, below: int, limit: int) -> list[Refusal]:
        """Recorded refusals, newest first."""
        with self.store.read() as tx:
            rows = tx.all("list_refusals", job_id=job_id, below=below, limit=limit)
        return [_refusal(row) for row in rows]

    def verdict_counts(self, job_id: str | None = None) -> dict[Verdict, int]:
        """How often each refusal was given, for one job or in all."""
        with self.store.read() as tx:
            rows = tx.all("verdict_totals") if job_id is None else tx.all("verdict_counts_of_job", job_id=job_id)
        return {Verdict(verdict): int(count) for verdict, count, _last_ms in rows}


def _parse(arrival: Arrival) -> WireEvent | Acceptance:
    try:
        return parse(arrival.payload)
    except MalformedPayload as error:
        return model.Acceptance(Verdict.MALFORMED, reason=error.reason)
    except UnsupportedVersion as error:
        return model.Acceptance(
            Verdict.UNSUPPORTED_VERSION, job_id=error.job_id, reason="another schema_version than 1"
        )


def _refusal(row: Row) -> Refusal:
    number, job_id, subscriber, verdict, seq, recorded_ms, reason = row
    recorded_at = from_ms(recorded_ms)
    assert recorded_at is not None
    return model.Refusal(number, job_id, subscriber, Verdict(verdict), seq, recorded_at, reason)
