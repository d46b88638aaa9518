"""A slot of a worker: one attempt that runs, its deadline, its time limits, and whether it is being stopped.

Used by the dispatcher alone, in its thread. Pure: the dispatcher reads the clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core import lease_times
from ..model import EventKind
from .outcomes import Stop, StopCause

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..model import Claim

SIGN_SLACK_SEC = 1.0
"""The delay of reported signs of life: a keeper reports one a second."""

Key = tuple[str, int]
"""A job id and an attempt."""


class Slot:
    """One attempt that runs.

    Args:
        claim: its claim.
        asked_at: when the claim was sent, in seconds by a clock that runs during a suspension.
        lease_sec: the length of the lease, in seconds.

    Attributes:
        key: the job's id and the attempt.
        deadline: until when it may run unless the lease is renewed.
        renew_at: when the lease is to be renewed.
        started_at: when it began; its ``timeout_sec`` counts from then.
        stop: why it is being stopped; None if it is not.
        stopped_at: when that was decided.
        ended_at: when nothing of it ran any more; None before.
    """

    def __init__(self, claim: Claim, *, asked_at: float, lease_sec: float) -> None:
        self.claim = claim
        self.key: Key = (claim.job_id, claim.attempt)
        self.started_at = asked_at
        self.stop: Stop | None = None
        self.stopped_at = 0.0
        self.ended_at: float | None = None
        self._sign_at = asked_at
        self._question_is_open = False
        self.renewed(asked_at, lease_sec)

    def renewed(self, asked_at: float, lease_sec: float) -> None:
        """Note that the lease was claimed or renewed by a call that was sent at ``asked_at``."""
        self.deadline = lease_times.deadline(asked_at, lease_sec)
        self.renew_at = lease_times.renewal_due(asked_at, lease_sec)

    @property
    def holds_claim(self) -> bool:
        """True if the claim is to be renewed: it is not known to be gone."""
        return self.stop is None or not self.stop.cause.ends_renewal

    def note_sign(self, now: float) -> None:
        """Note a sign of life: output, or a line on the channel."""
        self._sign_at = max(self._sign_at, now)

    def note_event(self, kind: EventKind, now: float) -> None:
        """Note an event: a sign of life; while the last one is a question, the idle time stands still."""
        self._sign_at = now
        self._question_is_open = kind is EventKind.PERMISSION_REQUIRED

    def overdue(self, now: float) -> Stop | None:
        """Return why the attempt must be stopped now, if a time is up that was not up before.

        The idle limit is not among these times: whether it counts, only the database knows.
        """
        if now >= self.deadline and self.holds_claim:
            reason = "the lease ran out before it could be renewed"
            return Stop(StopCause.DEADLINE, reason, at_once=True)
        if self.stop is not None:
            return None
        job = self.claim.job
        if 0 < job.timeout_sec <= now - self.started_at:
            return Stop(StopCause.TIMEOUT, f"timed out: running for more than {job.timeout_sec} s")
        return None

    def idle_at(self) -> float:
        """Return when the attempt has been silent for too long, as far as its worker has heard."""
        job = self.claim.job
        if job.idle_timeout_sec <= 0 or self.stop is not None or self._question_is_open:
            return float("inf")
        return self._sign_at + job.idle_timeout_sec + SIGN_SLACK_SEC

    def next_check(self) -> float:
        """Return when `overdue` may next return something, or the lease is to be renewed."""
        times = [self.deadline, self.renew_at] if self.holds_claim else []
        job = self.claim.job
        if self.stop is None and job.timeout_sec > 0:
            times.append(self.started_at + job.timeout_sec)
        return min(times, default=float("inf"))


def due_renewals(slots: Iterable[Slot], now: float, lease_sec: float) -> tuple[Key, ...]:
    """Return the claims to renew: if one is due, also those that soon will be.

    Args:
        slots: the slots.
        now: the time.
        lease_sec: the length of the leases, in seconds.
    """
    held = [slot for slot in slots if slot.holds_claim]
    if all(now < slot.renew_at for slot in held):
        return ()
    return tuple(slot.key for slot in held if slot.renew_at <= now + lease_sec / 12)
