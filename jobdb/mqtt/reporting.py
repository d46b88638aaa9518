"""Progress reports for people: the type of the callback, and the rate-limited report of refusals.

The rate limit prevents an attacker from filling a log. The callback type is used by every module of this package that
reports, the report of refusals by the consumer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..model import Acceptance

ReportCallback = Callable[[str], None]
"""A callback that takes a sentence for people; called from any thread."""


class RefusalReporter:
    """A rate-limited report of refusals: verdict, job and seq, never the payload; beyond the limit, only a count.

    Args:
        report: called with each sentence.
        clock: monotonic seconds.
        most: the maximum number of lines per period.
        period_sec: the length of a period, in seconds.
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

    def report(self, answer: Acceptance) -> None:
        """Report a refusal, or only count it if the period's lines are used up."""
        self._roll_period()
        if self._reported >= self._most:
            self._suppressed += 1
            return
        self._reported += 1
        job = answer.job_id or "?"
        seq = "?" if answer.seq is None else answer.seq
        self._report(f"refused: {answer.verdict} job {job} seq {seq}: {answer.reason}")

    def report_dropped(self, count: int) -> None:
        """Report messages that were dropped unread, at most once per period."""
        self._dropped += count
        now = self._clock()
        if self._dropped and now - self._dropped_at >= self._period_sec:
            self._report(
                f"dropped: {self._dropped} messages at QoS 0, which arrived faster than they can be accepted; restrict "
                "at the broker who may publish on the topics"
            )
            self._dropped, self._dropped_at = 0, now

    def _roll_period(self) -> None:
        now = self._clock()
        if now - self._period_start < self._period_sec:
            return
        if self._suppressed:
            self._report(f"refused: {self._suppressed} more; 'jobdb stats' counts them")
        self._period_start, self._reported, self._suppressed = now, 0, 0
