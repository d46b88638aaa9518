"""Test the replay rules against a naive model, which keeps only sets of accepted seqs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobdb.core.replay import ReplayFacts, check_replay
from jobdb.model import JobStatus, Verdict

NEW = ReplayFacts(
    seq=1,
    event_is_terminal=False,
    attempt=1,
    matches_recorded=None,
    matches_recorded_end=False,
    start_seq=0,
    last_seq=0,
    skipped=False,
    window=0,
    status=JobStatus.RUNNING,
    terminal_seq=None,
    job_attempt=1,
)
THE_END = {
    "seq": 3,
    "event_is_terminal": True,
    "matches_recorded_end": True,
    "status": JobStatus.COMPLETED,
    "terminal_seq": 3,
}
"""The event with which a job ended whose record says so and whose log was lost."""


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict.ACCEPTED),
        ({"last_seq": 1, "matches_recorded": True}, Verdict.DUPLICATE),
        ({"last_seq": 1, "matches_recorded": False}, Verdict.CONFLICT),
        ({"matches_recorded": False}, Verdict.CONFLICT),
        ({"seq": 2, "last_seq": 5, "skipped": True}, Verdict.REPLAYED),
        ({"seq": 2, "last_seq": 5, "skipped": True, "window": 2}, Verdict.REPLAYED),
        ({"seq": 2, "last_seq": 5, "skipped": True, "window": 3}, Verdict.ACCEPTED),
        ({"seq": 2, "last_seq": 5, "skipped": True, "window": 3, "matches_recorded": True}, Verdict.ACCEPTED),
        ({"seq": 3, "start_seq": 5, "last_seq": 5, "matches_recorded": True, "window": 9}, Verdict.REPLAYED),
        ({"attempt": 1, "job_attempt": 2}, Verdict.STALE_ATTEMPT),
        ({"attempt": 1, "job_attempt": 2, "matches_recorded": True}, Verdict.ACCEPTED),
        ({"attempt": 3, "job_attempt": 2}, Verdict.STALE_ATTEMPT),
        ({"attempt": 1, "status": JobStatus.PENDING}, Verdict.STALE_ATTEMPT),
        ({"attempt": None, "job_attempt": 0, "status": JobStatus.PENDING}, Verdict.ACCEPTED),
        ({"attempt": None}, Verdict.ACCEPTED),
        ({"attempt": None, "job_attempt": 2}, Verdict.STALE_ATTEMPT),
        ({"attempt": None, "status": JobStatus.PENDING}, Verdict.STALE_ATTEMPT),
        ({"seq": 4, "status": JobStatus.COMPLETED, "terminal_seq": 3}, Verdict.AFTER_TERMINAL),
        ({"seq": 2, "status": JobStatus.COMPLETED, "terminal_seq": 3}, Verdict.ACCEPTED),
        ({"seq": 4, "status": JobStatus.COMPLETED, "terminal_seq": 3, "event_is_terminal": True}, Verdict.CONFLICT),
        ({"seq": 3, "status": JobStatus.CANCELLED, "terminal_seq": 2, "event_is_terminal": True}, Verdict.CONFLICT),
        ({"seq": 3, "status": JobStatus.CANCELLED, "terminal_seq": 2}, Verdict.AFTER_TERMINAL),
        (
            {
                "seq": 3,
                "status": JobStatus.COMPLETED,
                "terminal_seq": 3,
                "event_is_terminal": True,
                "matches_recorded": True,
            },
            Verdict.ACCEPTED,
        ),
        ({**THE_END}, Verdict.ACCEPTED),
        ({**THE_END, "matches_recorded_end": False}, Verdict.CONFLICT),
        ({**THE_END, "last_seq": 3, "matches_recorded": True, "matches_recorded_end": False}, Verdict.DUPLICATE),
        ({**THE_END, "last_seq": 3, "matches_recorded": False, "matches_recorded_end": False}, Verdict.CONFLICT),
        ({**THE_END, "start_seq": 3, "last_seq": 3}, Verdict.REPLAYED),
        ({**THE_END, "last_seq": 4, "skipped": True}, Verdict.REPLAYED),
        ({**THE_END, "last_seq": 4, "skipped": True, "window": 1}, Verdict.ACCEPTED),
        ({**THE_END, "attempt": None, "job_attempt": 0}, Verdict.ACCEPTED),
        ({**THE_END, "attempt": 1, "job_attempt": 2}, Verdict.STALE_ATTEMPT),
    ],
)
def test_each_replay_rule(changes: dict[str, object], verdict: Verdict) -> None:
    assert check_replay(NEW._replace(**changes))[0] is verdict


@given(st.lists(st.integers(1, 30), max_size=80), st.integers(0, 12), st.integers(0, 10))
def test_no_schedule_accepts_an_event_twice_and_the_window_is_exact(
    schedule: list[int], window: int, start_seq: int
) -> None:
    accepted: set[int] = set()
    last_seq = start_seq
    recorded: set[int] = set()
    for seq in schedule:
        facts = NEW._replace(
            seq=seq,
            window=window,
            start_seq=start_seq,
            last_seq=last_seq,
            skipped=start_seq < seq <= last_seq and seq not in accepted,
            matches_recorded=True if seq in recorded else None,
        )
        verdict, _reason = check_replay(facts)
        fits = seq > start_seq and seq not in accepted and (seq > last_seq or last_seq - seq <= window)
        assert (verdict is Verdict.ACCEPTED) == fits
        if seq in accepted:
            assert verdict is Verdict.DUPLICATE
        elif not fits:
            assert verdict is Verdict.REPLAYED
        if fits:
            accepted.add(seq)
            recorded.add(seq)
            last_seq = max(last_seq, seq)
