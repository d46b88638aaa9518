"""Test what accept verifies before it acquires the write lock, and what it checks again under it, on every engine."""

from contextlib import contextmanager

import pytest

from jobdb.core import authenticity
from jobdb.model import Arrival
from tests.support.keys import OTHER_MASTER_KEY, vault
from tests.support.wire_events import signed

BULK = "x" * 40_000


def verdicts(registry, lines, subscriber="s"):
    return [answer.verdict for answer in registry.accept_many(lines, subscriber=subscriber)]


@pytest.fixture
def lock_held_at_verify(registry, monkeypatch):
    """Record for each verified signature whether the write lock was held."""
    held, seen = [], []
    write, verify = registry.engine.store.write, authenticity.verify

    @contextmanager
    def watched_write():
        with write() as tx:
            held.append(1)
            try:
                yield tx
            finally:
                held.pop()

    def watched_verify(*arguments, **more):
        seen.append(bool(held))
        return verify(*arguments, **more)

    monkeypatch.setattr(registry.engine.store, "write", watched_write)
    monkeypatch.setattr(authenticity, "verify", watched_verify)
    return seen


def test_a_large_batch_is_verified_once_and_not_under_the_lock(registry, job, lock_held_at_verify):
    token = registry.tokens.show(job.job_id)
    lines = [signed(job.job_id, seq, token=token if seq % 2 else "f" * 32, detail=BULK) for seq in range(1, 9)]
    assert verdicts(registry, lines) == ["accepted", "bad_signature"] * 4
    assert lock_held_at_verify == [False] * 8
    assert verdicts(registry, lines[:1]) == ["duplicate"]
    assert lock_held_at_verify == [False] * 9


def test_a_small_batch_needs_no_read_before_the_lock(registry, job, lock_held_at_verify):
    token = registry.tokens.show(job.job_id)
    assert verdicts(registry, [signed(job.job_id, seq, token=token) for seq in (1, 2)]) == ["accepted"] * 2
    assert lock_held_at_verify == [True] * 2


def test_every_refusal_is_the_same_before_the_lock_and_under_it(registry, job):
    other = registry.register(agent="a", prompt="")
    registry.tokens.rotate(other.job_id, overlap_sec=60)
    registry.tokens.revoke(other.job_id, kid=1)
    token = registry.tokens.show(job.job_id)
    for detail in ("", BULK):
        arrivals = [
            Arrival(b"{"),
            Arrival(signed("nobody", 1, token=token, detail=detail)),
            Arrival(signed(job.job_id, 1, token=token, detail=detail), "another/topic"),
            Arrival(signed(job.job_id, 1, detail=detail, token=None)),
            Arrival(signed(job.job_id, 1, token=token, detail=detail, kid=7)),
            Arrival(signed(other.job_id, 1, token=token, detail=detail)),
            Arrival(signed(job.job_id, 1, token="f" * 32, detail=detail)),
        ]
        answers = registry.accept_many(arrivals, subscriber="s")
        assert [answer.verdict for answer in answers] == [
            "malformed", "unknown_job", "wrong_topic", "unsigned", "revoked_key", "revoked_key", "bad_signature",
        ]  # fmt: skip
        assert {answer.job_id for answer in answers[2:5]} == {job.job_id}
    assert registry.verdict_counts(job.job_id) == dict.fromkeys(
        ["wrong_topic", "unsigned", "bad_signature", "revoked_key"], 2
    )
    assert registry.verdict_counts(other.job_id) == {"revoked_key": 2}
    assert registry.get(job.job_id).last_seq == 0 and registry.subscriptions(job_id=job.job_id) == []


def accept_after_change(registry, line, change):
    prechecked = registry.engine.precheck([Arrival(line)])
    assert prechecked[0].authentic
    change()
    [answer] = registry.engine.accept_prechecked(prechecked, subscriber="s", window=0, start="beginning")
    return answer.verdict


def test_a_token_revoked_meanwhile_authenticates_nothing(registry, job):
    line = signed(job.job_id, 1, token=registry.tokens.show(job.job_id), detail=BULK)
    assert accept_after_change(registry, line, lambda: registry.tokens.revoke(job.job_id, kid=1)) == "revoked_key"
    assert registry.events(job.job_id) == []


def test_a_token_resealed_meanwhile_still_verifies(registry, job):
    line = signed(job.job_id, 1, token=registry.tokens.show(job.job_id), detail=BULK)
    new = vault(OTHER_MASTER_KEY)
    assert accept_after_change(registry, line, lambda: registry.tokens.rekey(new)) == "accepted"


def test_a_job_that_reuses_a_pruned_id_has_another_token(registry, clock, job):
    line = signed(job.job_id, 1, token=registry.tokens.show(job.job_id), detail=BULK)

    def replace():
        registry.cancel(job.job_id)
        clock.advance(100)
        registry.prune(older_than_sec=10)
        registry.register(agent="a", prompt="", job_id=job.job_id)

    assert accept_after_change(registry, line, replace) == "bad_signature"
