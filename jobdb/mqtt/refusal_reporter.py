"""Saying what was refused, within bounds: an attacker must not be able to fill a log either. Called by the intake."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..model import Acceptance
from .reconnecting import ReportCallback


class RefusalReporter:
    """Says what was refused: verdict, job and seq, never the payload. At most so many lines a period, then a count.

    Args:
        report: takes the sentence.
        clock: seconds that never go back.
        most: lines a period.
        period_sec: its length.
    """

    def __init__(
        self,
        report: ReportCallback,
        *,
        clock: Callable[[], float] = time.monotonic,
        most: int = 20,
        period_sec: float = 10.0,
    ) -> None:
        self._report = report
        self._clock = clock
        self._most = most
        self._period_sec = period_sec
        self._period_start = clock()
        self._reported = 0
        self._suppressed = 0
        self._dropped = 0
        self._dropped_at = self._period_start - period_sec

    def say(self, answer: Acceptance) -> None:
        """One refusal."""
        self._roll_period()
        if self._reported >= self._most:
            self._suppressed += 1
            return
        self._reported += 1
        job = answer.job_id or "?"
        seq = "?" if answer.seq is None else answer.seq
        self._report(f"refused: {answer.verdict} job {job} seq {seq}: {answer.reason}")

    def report_dropped(self, count: int) -> None:
        """Messages that nobody looked at; said once a period."""
        self._dropped += count
        now = self._clock()
        if self._dropped and now - self._dropped_at >= self._period_sec:
            self._report(
                f"dropped: {self._dropped} messages at QoS 0, which came faster than they can be looked at; who may "
                "publish on the topics is the broker's to restrict"
            )
            self._dropped, self._dropped_at = 0, now

    def _roll_period(self) -> None:
        now = self._clock()
        if now - self._period_start < self._period_sec:
            return
        if self._suppressed:
            self._report(f"refused: {self._suppressed} more; 'jobdb stats' counts them")
        self._period_start, self._reported, self._suppressed = now, 0, 0
