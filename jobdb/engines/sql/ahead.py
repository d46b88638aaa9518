"""Signing an event before its turn has come.

Who published a job's last event knows how the job stands, unless somebody has changed it since. So the next event is
numbered and signed before the lock is asked for, and under the lock the statement that moves the job says whether it
stood so. If not, nothing was written and the event is signed anew from what the database holds.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from ...core.lifecycle import next_status
from ...core.protocol import WireEvent, build
from ...errors import InvalidInput, KeyProblem
from ...model import JobStatus
from .moving import event_row
from .rows import shorten, token_binding, wire_timestamp
from .statements import EVENTS

if TYPE_CHECKING:
    from ...crypto.vault import Vault
    from ...model import NewEvent
    from .transaction import Transaction

_MOST = 256
"""So many jobs are remembered; those published to longest ago go first."""


class Standing(NamedTuple):
    """How a running job was left by an event of this process.

    Attributes:
        job: jobs.id.
        last_seq: the event's seq.
        attempt: the claim that it belongs to; 0 before the first.
        has_broker: 1 if its events go to a broker.
        kid: the present token's version; 0: the job has none.
        sealed: that token, sealed.
    """

    job: int
    last_seq: int
    attempt: int
    has_broker: int
    kid: int
    sealed: bytes | None


class SignedAhead(NamedTuple):
    """An event as it will be recorded if its job still stands as it was left.

    Attributes:
        wire: the event.
        before: how its job must stand.
        row: its row, but for the moment.
        detail: what its job will show of it.
    """

    wire: WireEvent
    before: Standing
    row: dict[str, Any]
    detail: str | None

    def recorded(self, tx: Transaction) -> bool:
        """Records it and moves its job; False, and nothing written, if the job stands otherwise."""
        wire, (job, last_seq, attempt, has_broker, kid, sealed), row, detail = self
        now = row["now"] = tx.now_ms
        moved = tx.run(
            EVENTS.advance_job_from,
            job=job,
            job_id=wire.job_id,
            last_seq=last_seq,
            attempt=attempt,
            has_broker=has_broker,
            kid=kid,
            sealed=sealed,
            seq=wire.seq,
            event=row["event"],
            now=now,
            detail=detail,
        )
        if not moved:
            return False
        tx.run(EVENTS.insert_event, **row)
        if has_broker:
            tx.run(EVENTS.insert_delivery, job=job, seq=wire.seq)
        return True

    @property
    def after(self) -> Standing:
        """How it leaves its job."""
        return self.before._replace(last_seq=self.wire.seq)


class Standings:
    """What this process knows of the jobs it publishes to. It may be shared by threads: it holds guesses."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Standing] = OrderedDict()

    def sign(self, new: NewEvent, vault: Vault, now_ms: int) -> SignedAhead | None:
        """The event signed ahead; None where its job is not known, or where it takes more than to move on."""
        standing = self._known.pop(new.job_id, None)  # kept again when the event is recorded
        if standing is None or next_status(JobStatus.RUNNING, new.event) is not JobStatus.RUNNING:
            return None
        if new.attempt is not None and new.attempt != standing.attempt:
            return None
        try:
            token = None
            if standing.sealed is not None:
                token = vault.unseal(standing.sealed, bound_to=token_binding(new.job_id, standing.kid))
            wire = build(
                job_id=new.job_id,
                seq=standing.last_seq + 1,
                event=new.event,
                timestamp=wire_timestamp(now_ms),
                detail=new.detail,
                data=new.data,
                attempt=standing.attempt or None,
                kid=standing.kid or None,
                token=token,
            )
        except (InvalidInput, KeyProblem):
            return None  # it is said, if it is so, from what the database holds
        detail = shorten(wire.detail) if wire.detail else None
        return SignedAhead(wire, standing, event_row(standing.job, wire, now_ms), detail)

    def keep(self, job_id: str, standing: Standing) -> None:
        """Remembers how a job was left. Called when that is committed."""
        self._known[job_id] = standing
        if len(self._known) > _MOST:
            with suppress(KeyError):
                self._known.popitem(last=False)
