"""Replay protection (FW-N7): the verdict on an authentic event, decided from a few facts.

Called by ``accept_batch`` of the engines, which gathers the facts in the transaction that acts on the verdict. Pure: no
database, no clock.

A subscriber has accepted the events of a job with ``start_seq < seq <= last_seq``, except the ranges that it skipped
("gaps"). That is the complete set, so a redelivery can be distinguished from a replay however old it is. By default
the sequence is strictly monotonic; with a window of N, an event that is at most N behind may fill its gap, once, as in
the anti-replay window of RFC 6479.
"""

from __future__ import annotations

from typing import NamedTuple

from ..model import JobStatus, Verdict


class ReplayFacts(NamedTuple):
    """The facts that determine the verdict on an authentic event.

    Attributes:
        seq: the number of the event.
        event_is_terminal: True if it is ``completed`` or ``error``.
        attempt: the attempt that it was signed with; None from agents that do not know attempts.
        matches_recorded: True if an event with that seq is stored with this digest, False if with another digest; None
            if none is stored.
        matches_recorded_end: True if none with that seq is stored, and its kind and seq are those with which the job
            ended according to its record. A job that was imported without its log is in this state.
        start_seq: the seq after which the subscriber began.
        last_seq: the highest seq that the subscriber has accepted.
        skipped: True if seq is in a range that the subscriber skipped.
        window: how far behind last_seq a skipped event may be accepted late.
        status: the status of the job.
        terminal_seq: the last_seq of the job when it ended; None if it has not ended.
        job_attempt: the current attempt of the job.
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
    """Return the verdict, one of those from ``duplicate`` on in the documented order, and its reason as a sentence."""
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
        return Verdict.REPLAYED, f"seq {facts.seq} is from before this subscriber began, after seq {facts.start_seq}"
    if facts.seq <= facts.last_seq and facts.last_seq - facts.seq > facts.window:
        return Verdict.REPLAYED, f"seq {facts.seq} was skipped; last_seq is {facts.last_seq}"
    if facts.matches_recorded is None:
        reason = _stale_reason(facts)
        if reason:
            return Verdict.STALE_ATTEMPT, reason
        if facts.terminal_seq is not None and facts.seq > facts.terminal_seq:
            return Verdict.AFTER_TERMINAL, f"the job has ended as {facts.status} at seq {facts.terminal_seq}"
    return Verdict.ACCEPTED, ""


def _stale_reason(facts: ReplayFacts) -> str:
    """Return why the claim of the event is not the current one; empty if it is."""
    if facts.status.terminal:
        # An event of the last claim from before the end may arrive late; the caller refuses one from after the end.
        is_stale = facts.job_attempt > 1 if facts.attempt is None else facts.attempt != facts.job_attempt
    elif facts.attempt is None:
        # After a second claim, an agent that does not know attempts cannot be distinguished from its predecessor.
        is_stale = facts.job_attempt > 1 or (facts.job_attempt == 1 and facts.status is JobStatus.PENDING)
    else:
        is_stale = facts.attempt != facts.job_attempt or (facts.status is JobStatus.PENDING and facts.job_attempt > 0)
    if not is_stale:
        return ""
    signed = "no attempt" if facts.attempt is None else f"attempt {facts.attempt}"
    return f"signed with {signed}; the job is {facts.status} at attempt {facts.job_attempt}"
