"""Replay protection (FW-N7): the verdict on an authentic event, decided from a few facts.

Pure: no database, clock, file or network. The engines gather the facts in the transaction that acts on the verdict.

What a subscriber has accepted of a job is ``start_seq < seq <= last_seq`` less the ranges that it skipped over
("gaps"). That is the whole set, so a redelivery is told from a replay however old it is. By default the sequence is
strictly monotonic; a window of N lets an event that is at most N behind fill its gap, once, as the anti-replay
window of RFC 6479 does.
"""

from __future__ import annotations

from typing import NamedTuple

from ..model import JobStatus, Verdict


class ReplayFacts(NamedTuple):
    """What the verdict on an authentic event depends on.

    Attributes:
        seq: the event's number.
        event_is_terminal: it is ``completed`` or ``error``.
        attempt: the attempt that it was signed with; None from agents that know no attempts.
        matches_recorded: an event of that seq is stored: True with this digest, False with another; None when none is
        stored.
        matches_recorded_end: none of that seq is stored, and it is of the kind and seq with which the job's record
        says that it
            ended. So a job stands that was imported without its log.
        start_seq: where the subscriber began.
        last_seq: the highest seq that the subscriber has accepted.
        skipped: seq lies in a range that the subscriber skipped over.
        window: how far behind last_seq a skipped event may be accepted late.
        status: the job's status.
        terminal_seq: the job's last_seq when it ended; None while it lives.
        job_attempt: the job's present attempt.
    """

    seq: int
    event_is_terminal: bool
    attempt: int | None
    matches_recorded: bool | None
    matches_recorded_end: bool
    start_seq: int
    last_seq: int
    skipped: bool
    window: int
    status: JobStatus
    terminal_seq: int | None
    job_attempt: int


def check_replay(facts: ReplayFacts) -> tuple[Verdict, str]:
    """The verdict from ``duplicate`` on, in the documented order, and a sentence that says why."""
    accepted_before = facts.start_seq < facts.seq <= facts.last_seq and not facts.skipped
    if accepted_before and facts.matches_recorded:
        return Verdict.DUPLICATE, f"seq {facts.seq} was accepted before"
    if facts.matches_recorded is False:
        return Verdict.CONFLICT, f"seq {facts.seq} is recorded with other content"
    if (
        facts.event_is_terminal
        and facts.status.terminal
        and facts.matches_recorded is None
        and not facts.matches_recorded_end
    ):
        return Verdict.CONFLICT, f"the job has ended as {facts.status} at seq {facts.terminal_seq}"
    if facts.seq <= facts.start_seq:
        return Verdict.REPLAYED, f"seq {facts.seq} is from before this subscriber began, at {facts.start_seq}"
    if facts.seq <= facts.last_seq and facts.last_seq - facts.seq > facts.window:
        return Verdict.REPLAYED, f"seq {facts.seq} was passed over; last_seq is {facts.last_seq}"
    if facts.matches_recorded is None:
        reason = _stale_reason(facts)
        if reason:
            return Verdict.STALE_ATTEMPT, reason
        if facts.terminal_seq is not None and facts.seq > facts.terminal_seq:
            return Verdict.AFTER_TERMINAL, f"the job has ended as {facts.status} at seq {facts.terminal_seq}"
    return Verdict.ACCEPTED, ""


def _stale_reason(facts: ReplayFacts) -> str:
    """Why the event's claim is not the present one; empty when it is."""
    if facts.status.terminal:
        # Of the last claim: what came before the end is welcome late, what comes after it is refused below.
        is_stale = facts.job_attempt > 1 if facts.attempt is None else facts.attempt != facts.job_attempt
    elif facts.attempt is None:
        # An agent that knows no attempts cannot be told from its predecessor once there were two.
        is_stale = facts.job_attempt > 1 or (facts.job_attempt == 1 and facts.status is JobStatus.PENDING)
    else:
        is_stale = facts.attempt != facts.job_attempt or (facts.status is JobStatus.PENDING and facts.job_attempt > 0)
    if not is_stale:
        return ""
    signed = "no attempt" if facts.attempt is None else f"attempt {facts.attempt}"
    return f"signed with {signed}; the job is {facts.status} at attempt {facts.job_attempt}"
