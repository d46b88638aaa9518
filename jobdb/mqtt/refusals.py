"""Saying what was refused, within bounds: an attacker must not be able to fill a log either. Called by the intake."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..model import Acceptance
from .link import Report


class Refusals:
    """Says what was refused: verdict, job and seq, never the payload. At most so many lines a period, then a count.

    Args:
        report: takes the sentence.
        clock: seconds that never go back.
        most: lines a period.
        period_sec: its length.
    """

    def __init__(
        self, report: Report, *, clock: Callable[[], float] = time.monotonic, most: int = 20, period_sec: float = 10.0
    ) -> None:
        self._report = report
        self._clock = clock
        self._most = most
        self._period_sec = period_sec
        self._since = clock()
        self._said = 0
        self._unsaid = 0

    def say(self, answer: Acceptance) -> None:
        """One refusal."""
        self._turn_over()
        if self._said >= self._most:
            self._unsaid += 1
            return
        self._said += 1
        job = answer.job_id or "?"
        seq = "?" if answer.seq is None else answer.seq
        self._report(f"refused: {answer.verdict} job {job} seq {seq}: {answer.reason}")

    def _turn_over(self) -> None:
        now = self._clock()
        if now - self._since < self._period_sec:
            return
        if self._unsaid:
            self._report(f"refused: {self._unsaid} more; 'jobdb stats' counts them")
        self._since, self._said, self._unsaid = now, 0, 0
