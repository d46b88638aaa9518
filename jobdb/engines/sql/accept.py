"""The verbs for events that arrive over the wire (FW-N7): accept, and the list and counts of refusals.

Called by the registry's ``subscribers.py`` and by subscribers at a broker, through the engine. Calls the store, never a
broker.

The transaction of accept is in accept_batch.py, which is imported on the first call: publishing does not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import model
from ...model import Verdict, from_ms
from ..verbs import verb
from .statements import ACCEPT
from .verb_group import VerbGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...model import Acceptance, Arrival, Refusal
    from ..store import Row
    from .precheck import PrecheckedArrival


class AcceptVerbs(VerbGroup):
    """The verbs for events that arrive over the wire."""

    @verb
    def accept(self, arrivals: Sequence[Arrival], *, subscriber: str, window: int, start: str) -> list[Acceptance]:
        """Decide on each arrival and apply it; the whole batch is one transaction."""
        from .precheck import precheck

        return self._accept(precheck(self.store, self.vault, arrivals), subscriber, window, start)

    @verb
    def precheck(self, arrivals: Sequence[Arrival]) -> list[PrecheckedArrival]:
        """Parse a batch and, unless it is small, verify it without the write lock; change nothing."""
        from .precheck import precheck

        return precheck(self.store, self.vault, arrivals)

    @verb
    def verify_prechecked(self, prechecked: Sequence[PrecheckedArrival]) -> list[PrecheckedArrival]:
        """Verify what ``precheck`` has left to be verified under the write lock; change nothing."""
        from .precheck import verify_prechecked

        return verify_prechecked(self.store, self.vault, prechecked)

    @verb
    def accept_prechecked(
        self, prechecked: Sequence[PrecheckedArrival], *, subscriber: str, window: int, start: str
    ) -> list[Acceptance]:
        """Decide on each prechecked arrival and apply it; the whole batch is one transaction."""
        return self._accept(prechecked, subscriber, window, start)

    def _accept(
        self, prechecked: Sequence[PrecheckedArrival], subscriber: str, window: int, start: str
    ) -> list[Acceptance]:
        from .accept_batch import AcceptBatch

        with self.store.write() as tx:
            tx.lock_jobs(each.wire.job_id for each in prechecked if each.wire is not None)
            batch = AcceptBatch(tx, self.vault, subscriber, window, start)
            answers = [batch.accept(each) for each in prechecked]
            batch.write()
        return answers

    @verb
    def refusals(self, *, job_id: str | None, below: int, limit: int) -> list[Refusal]:
        """Return a page of recorded refusals, newest first, with ids less than ``below``."""
        with self.store.read() as tx:
            rows = tx.all(ACCEPT.list_refusals, job_id=job_id, below=below, limit=limit)
        return [_refusal(row) for row in rows]

    @verb
    def verdict_counts(self, job_id: str | None = None) -> dict[Verdict, int]:
        """Count the refusals per verdict, for one job or for all."""
        with self.store.read() as tx:
            rows = (
                tx.all(ACCEPT.verdict_totals) if job_id is None else tx.all(ACCEPT.verdict_counts_of_job, job_id=job_id)
            )
        return {Verdict(verdict): int(count) for verdict, count, _last_ms in rows}


def _refusal(row: Row) -> Refusal:
    number, job_id, subscriber, verdict, seq, recorded_ms, reason = row
    recorded_at = from_ms(recorded_ms)
    assert recorded_at is not None
    return model.Refusal(number, job_id, subscriber, Verdict(verdict), seq, recorded_at, reason)
