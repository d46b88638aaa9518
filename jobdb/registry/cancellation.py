"""The token by which the code that does a job learns that it must stop, and the exception that it stops with.

Used by ``Registry.working`` and the worker's runners: the one who keeps the claim cancels the token, the one who works
asks it. Calls nothing but the clock. Prior art: trio's cancel scopes, .NET's CancellationToken.
"""

from __future__ import annotations

from collections.abc import Callable

from ..system.boot_clock import boottime
from ..system.interrupt_safe_flag import Flag

_LONGEST_WAIT_SEC = 1.0
"""After a suspension, a wait has as long to go as before, and the deadline must not wait for that."""
DEADLINE_REASON = "the lease of the claim ran out before it was renewed"


class WorkCancelled(BaseException):
    """Raised in the code that does a job when the job is to be stopped.

    It is a BaseException, so that an ``except Exception`` around a step of the work does not swallow it.

    Attributes:
        reason: why, in a sentence.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CancellationToken:
    """The state of work: to go on, or to stop, and why. Cancelled once at most; the first reason counts.

    It counts as cancelled as soon as its deadline has passed, even if nobody could say so: the process may have been
    stopped, or the database out of reach.

    Args:
        deadline: until when the claim is held, by ``clock``.
        clock: seconds, by a clock that runs during a suspension.

    Attributes:
        reason: why it was cancelled, in a sentence; None if it was not.
        lost: True if the claim is gone, so that nothing can be recorded for it any more.
        told: True once the one who works has learned of it.
    """

    __slots__ = ("_clock", "_deadline", "_wake", "lost", "reason", "told")

    def __init__(self, deadline: float, *, clock: Callable[[], float] = boottime) -> None:
        self._deadline = deadline
        self._clock = clock
        self._wake = Flag()
        self.reason: str | None = None
        self.lost = False
        self.told = False

    def cancel(self, reason: str, *, lost: bool) -> None:
        """Cancel it; only the first call has a reason, and any may add that the claim is lost.

        Args:
            reason: why, in a sentence.
            lost: the claim is gone.
        """
        if self.reason is None:
            self.reason = reason
        self.lost = self.lost or lost
        self._wake.set()

    def extend(self, deadline: float) -> None:
        """Set a later deadline: the claim was renewed."""
        self._deadline = deadline

    def check(self) -> bool:
        """Return whether it is cancelled; for the one who keeps the claim."""
        if self.reason is None and self._clock() >= self._deadline:
            self.cancel(DEADLINE_REASON, lost=True)
        return self.reason is not None

    def ask(self) -> bool:
        """Return whether it is cancelled; for the one who works, who is told by this."""
        if self.check():
            self.told = True
        return self.told

    def wait(self, timeout_sec: float) -> bool:
        """Wait until it is cancelled, or for ``timeout_sec``; return whether it is, as `ask` does."""
        end = self._clock() + timeout_sec
        while not self.ask():
            now = self._clock()
            if now >= end:
                break
            self._wake.wait(min(min(end, self._deadline) - now, _LONGEST_WAIT_SEC))
        return self.told

    def raise_if_cancelled(self) -> None:
        """Raise if it is cancelled.

        Raises:
            WorkCancelled: it is.
        """
        if self.ask():
            raise WorkCancelled(self.reason or DEADLINE_REASON)
