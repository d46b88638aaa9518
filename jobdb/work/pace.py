"""When a worker asks the database: for jobs, whether its claims still stand, and again after an error.

Used by the dispatcher, in its thread. Pure: the dispatcher reads the clock.
"""

from __future__ import annotations

RECHECK_SEC = 1.0
"""The interval at which a free slot asks for jobs although nothing has changed: a delay or a lease may be over."""
_BURST = 4.0
_ASKS_PER_SEC = 25.0

LEAST_STATES_SEC, MOST_STATES_SEC = 0.25, 1.5
FIRST_PAUSE_SEC, LONGEST_PAUSE_SEC = 0.05, 1.0


class ClaimPace:
    """When to ask for jobs.

    It asks at once when the database has changed, which costs a turn at the write lock. Where others write a thousand
    times a second, none of it for this worker, that would be as many turns: so asking in vain has a budget.
    """

    def __init__(self) -> None:
        self._budget = _BURST
        self._asked_at = float("-inf")
        self._changed = True

    def note_change(self) -> None:
        """Note that there may be jobs: the database has changed."""
        self._changed = True

    def next_ask(self) -> float:
        """Return when to ask, if a slot is free."""
        if not self._changed:
            return self._asked_at + RECHECK_SEC
        if self._budget >= 1.0:
            return float("-inf")
        return self._asked_at + (1.0 - self._budget) / _ASKS_PER_SEC

    def asked(self, now: float, *, wanted: int, got: int) -> None:
        """Note that it asked for ``wanted`` jobs and got ``got``."""
        self._budget = min(_BURST, self._budget + (now - max(self._asked_at, now - 1.0)) * _ASKS_PER_SEC)
        if not got:
            self._budget = max(0.0, self._budget - 1.0)
        self._changed = got == wanted
        self._asked_at = now


class StatesPace:
    """When to ask whether the claims still stand: soon after a change, and now and then without one."""

    def __init__(self) -> None:
        self._asked_at = float("-inf")
        self._changed = False

    def note_change(self) -> None:
        """Note that a claim may have ended: the database has changed."""
        self._changed = True

    def next_ask(self) -> float:
        """Return when to ask."""
        return self._asked_at + (LEAST_STATES_SEC if self._changed else MOST_STATES_SEC)

    def suspect(self) -> None:
        """Ask as soon as possible: something was refused."""
        self._asked_at = float("-inf")

    def asked(self, now: float) -> None:
        """Note that it asked."""
        self._asked_at = now
        self._changed = False


class RetryPace:
    """The pauses before a database that could not be used is tried again."""

    def __init__(self) -> None:
        self._pause_sec = FIRST_PAUSE_SEC
        self.until = float("-inf")

    def failed(self, now: float) -> float:
        """Note a failure; return the pause in seconds."""
        pause = self._pause_sec
        self.until = now + pause
        self._pause_sec = min(LONGEST_PAUSE_SEC, pause * 2)
        return pause

    def succeeded(self) -> None:
        """Note that it works again."""
        self._pause_sec = FIRST_PAUSE_SEC
        self.until = float("-inf")
