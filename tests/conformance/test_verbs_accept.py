"""Test accept on every engine: the thirteen verdicts in their order, gaps, windows, counters and bounds."""

import json

import pytest

from jobdb import Arrival, IllegalTransition, JobStatus, Verdict
from tests.support.keys import TOKEN
from tests.support.wire_events import signed


@pytest.fixture
def job(registry):
    return registry.register(
        agent="claude-code", prompt="p", job_id="j", auth_token=TOKEN, timeout_sec=0, idle_timeout_sec=0
    )


def wire(seq, event="progress", **more):
    more.setdefault("token", TOKEN)
    return signed("j", seq, event, **more)


def verdict(registry, payload, subscriber="s", **more):
    return registry.accept(payload, subscriber=subscriber, **more).verdict


def with_fields(line, **fields):
    return json.dumps({**json.loads(line), **fields})


def test_accepted_events_are_stored_and_update_the_job(registry, clock, job):
    result = registry.accept(wire(1, "started"), subscriber="s")
    assert result.verdict is Verdict.ACCEPTED and result.missing == range(0) and result.reason == ""
    assert result.event == registry.events("j")[0] and result.event.payload == wire(1, "started")
    assert registry.get("j").status is JobStatus.RUNNING
    assert verdict(registry, wire(2)) == "accepted"
    assert verdict(registry, wire(3, "completed", detail="done")) == "accepted"
    ended = registry.get("j")
    assert (ended.status, ended.last_seq, ended.detail) == (JobStatus.COMPLETED, 3, "done")
    assert ended.finished_at.timestamp() * 1000 == clock.now_ms
    (subscription,) = registry.subscriptions()
    assert (subscription.start_seq, subscription.last_seq, subscription.handled_seq) == (0, 3, 0)


def test_each_verdict_and_each_check_before_the_next(registry, clock, job):
    """Each payload fails its own check and every later check that can fail together with it."""
    topic = {"topic": "jobdb/jobs/other/events"}
    old = wire(1)
    assert verdict(registry, old) == "accepted"
    assert verdict(registry, wire(5, "completed")) == "accepted"
    registry.tokens.revoke("j", 1)
    registry.engine.put_setting("x", "y")

    def verdict_of(payload, **more):
        return registry.accept(payload, subscriber="s", **more).verdict

    assert verdict_of("{", **topic) is Verdict.MALFORMED
    assert verdict_of(with_fields(wire(1), job_id="nobody", schema_version=2), **topic) is Verdict.UNSUPPORTED_VERSION
    assert verdict_of(with_fields(wire(1, token=None), job_id="nobody"), **topic) is Verdict.UNKNOWN_JOB
    assert verdict_of(wire(1, token=None), **topic) is Verdict.WRONG_TOPIC
    assert verdict_of(wire(1, token=None), topic="jobdb/jobs/j/events") is Verdict.UNSIGNED
    assert verdict_of(wire(1, token="another-token-another-token")) is Verdict.REVOKED_KEY
    assert verdict_of(wire(1, kid=9)) is Verdict.REVOKED_KEY


@pytest.fixture
def registry_with_history(registry, job):
    """Make subscriber s accept 1, 2, 4 and the end at 5, under attempt 1; seq 3 was skipped."""
    registry.claim(worker="w")
    for seq in (1, 2, 4):
        assert verdict(registry, wire(seq, attempt=1)) == "accepted"
    assert verdict(registry, wire(5, "completed", attempt=1)) == "accepted"
    return registry


def test_the_verdicts_on_authentic_events_in_order(registry_with_history):
    other = "another-token-another-token-another"
    assert verdict(registry_with_history, wire(1, attempt=1, token=other)) is Verdict.BAD_SIGNATURE
    assert verdict(registry_with_history, with_fields(wire(1, attempt=1), detail="forged")) is Verdict.BAD_SIGNATURE
    assert verdict(registry_with_history, wire(1, attempt=1)) is Verdict.DUPLICATE
    assert verdict(registry_with_history, wire(5, "completed", attempt=1)) is Verdict.DUPLICATE
    assert verdict(registry_with_history, wire(1, attempt=7, detail="other")) is Verdict.CONFLICT
    assert verdict(registry_with_history, wire(9, "error", attempt=7)) is Verdict.CONFLICT
    assert verdict(registry_with_history, wire(3, attempt=7)) is Verdict.REPLAYED
    assert verdict(registry_with_history, wire(3, attempt=1), window=1) is Verdict.REPLAYED
    assert verdict(registry_with_history, wire(6, attempt=7)) is Verdict.STALE_ATTEMPT
    assert verdict(registry_with_history, wire(6, attempt=1)) is Verdict.AFTER_TERMINAL
    assert verdict(registry_with_history, wire(3, attempt=1), window=2) is Verdict.ACCEPTED
    job = registry_with_history.get("j")
    assert (job.status, job.last_seq) == (JobStatus.COMPLETED, 5)
    assert [event.seq for event in registry_with_history.events("j")] == [1, 2, 3, 4, 5]


def test_refusals_are_counted_and_authentic_ones_recorded(registry_with_history, clock):
    for _ in range(3):
        verdict(registry_with_history, "nonsense")
    verdict(registry_with_history, with_fields(wire(1), job_id="nobody"))
    verdict(registry_with_history, wire(1, token=None))
    verdict(registry_with_history, wire(3, attempt=1))
    verdict(registry_with_history, wire(3, attempt=1))
    verdict(registry_with_history, wire(1, attempt=1))
    verdict(registry_with_history, wire(9, "error", attempt=1, detail="x" * 5000), subscriber="t")
    assert registry_with_history.verdict_counts() == {
        Verdict.MALFORMED: 3,
        Verdict.UNKNOWN_JOB: 1,
        Verdict.UNSIGNED: 1,
        Verdict.REPLAYED: 2,
        Verdict.CONFLICT: 1,
    }
    assert registry_with_history.verdict_counts("j") == {Verdict.UNSIGNED: 1, Verdict.REPLAYED: 2, Verdict.CONFLICT: 1}
    assert registry_with_history.verdict_counts("nobody") == {}
    conflict, replayed = registry_with_history.refusals()
    assert (conflict.verdict, conflict.subscriber, conflict.seq, conflict.job_id) == ("conflict", "t", 9, "j")
    assert (replayed.verdict, replayed.subscriber, replayed.seq) == ("replayed", "s", 3)
    assert replayed.recorded_at.timestamp() * 1000 == clock.now_ms and "last_seq is 5" in replayed.reason
    assert registry_with_history.refusals(limit=1) == [conflict]
    assert registry_with_history.refusals(job_id="j") == [conflict, replayed]
    assert registry_with_history.refusals(job_id="nobody") == []


def test_refusals_stay_bounded_for_each_job(registry, job):
    verdict(registry, wire(1, "completed"))
    other = registry.register(agent="a", prompt="", job_id="k", auth_token=TOKEN).job_id
    registry.accept(signed(other, 1, "completed", token=TOKEN), subscriber="s")
    registry.accept(signed(other, 2, "error", token=TOKEN), subscriber="s")
    registry.accept_many([wire(2, "error", detail=f"try {n}") for n in range(150)], subscriber="s")
    kept = registry.refusals(job_id="j", limit=1000)
    assert len(kept) == 64 and kept[0].number > kept[-1].number
    assert len(registry.refusals(job_id=other)) == 1
    assert registry.verdict_counts("j") == {Verdict.CONFLICT: 150}


def test_a_repeated_refusal_evicts_nothing(registry, job):
    verdict(registry, wire(1, "completed"))
    verdict(registry, wire(2, "error", detail="evidence"))
    line = wire(2, "error", detail="noise")
    registry.accept_many([line] * 300, subscriber="s")
    newest, evidence = registry.refusals()
    assert newest.number == evidence.number + 1
    assert registry.verdict_counts("j") == {Verdict.CONFLICT: 301}


def test_refusals_stay_bounded_in_total(registry, monkeypatch):
    from jobdb.engines.sql import accept_batch

    monkeypatch.setattr(accept_batch, "MAX_REFUSALS", 10)
    for number in range(15):
        registry.register(agent="a", prompt="", job_id=f"n{number}", auth_token=TOKEN)
        done, again = (signed(f"n{number}", seq, kind, token=TOKEN) for seq, kind in ((1, "completed"), (2, "error")))
        registry.accept_many([done, again], subscriber="s")
    assert [refusal.job_id for refusal in registry.refusals()] == [f"n{number}" for number in range(14, 4, -1)]


def test_events_of_unknown_jobs_leave_only_a_counter(registry, database):
    for number in range(200):
        registry.accept(signed(f"stranger{number}", 1, token=TOKEN), subscriber=f"s{number}")
        registry.accept(f"garbage {number}", subscriber=f"s{number}")
    registry.close()
    for table in ("jobs", "events", "subscriptions", "refusals", "gaps"):
        assert database.scalar(f"SELECT count(*) FROM {table}") == 0, table
    assert database.scalar("SELECT count(*) FROM verdict_counts") == 2


def test_missing_names_the_gap_and_a_window_fills_it_once(registry, job):
    assert verdict(registry, wire(2)) == "accepted"
    result = registry.accept(wire(10), subscriber="s")
    assert list(result.missing) == [3, 4, 5, 6, 7, 8, 9]
    assert registry.accept(wire(20), subscriber="s").missing == range(11, 20)
    late = [7, 3, 9, 5, 4, 6, 8, 1]
    for seq in late:
        assert verdict(registry, wire(seq), window=20) == "accepted", seq
        assert verdict(registry, wire(seq), window=20) == "duplicate", seq
    assert verdict(registry, wire(15), window=4) == "replayed"
    assert verdict(registry, wire(15), window=5) == "accepted"
    assert registry.get("j").last_seq == 20
    assert [event.seq for event in registry.events("j")] == [*range(1, 11), 15, 20]


def test_a_huge_gap_is_one_range(registry, job, database):
    top = 2**53 - 1
    result = registry.accept(wire(top), subscriber="s")
    assert result.verdict == "accepted" and (result.missing.start, result.missing.stop) == (1, top)
    assert result.as_dict()["missing_count"] == top - 1 and len(result.as_dict()["missing"]) == 1000
    assert verdict(registry, wire(top - 1), window=1) == "accepted"
    assert registry.get("j").last_seq == top
    registry.close()
    assert database.scalar("SELECT count(*) FROM gaps") == 1


def test_subscribers_are_independent(registry, job):
    for seq in (1, 2):
        assert verdict(registry, wire(seq), "one") == "accepted"
    assert verdict(registry, wire(2), "two") == "accepted"
    assert verdict(registry, wire(1), "two") == "replayed"
    assert verdict(registry, wire(1), "one") == "duplicate"
    assert len(registry.events("j")) == 2


def test_a_fresh_subscriber_that_starts_now_accepts_nothing_old(registry, job):
    for seq in (1, 2):
        verdict(registry, wire(seq))
    for seq in (1, 2):
        assert verdict(registry, wire(seq), "fresh", start="now", window=50) == "replayed"
    assert verdict(registry, wire(3), "fresh", start="now") == "accepted"
    assert verdict(registry, wire(2), "fresh", window=50) == "replayed"


def test_start_now_is_fixed_at_the_first_event(registry, job):
    old = registry.publish("j", "progress").payload
    assert verdict(registry, old, "fresh", start="now") == "replayed"
    for _ in range(2):
        event = registry.publish("j", "progress").payload
        assert verdict(registry, event, "fresh", start="now") == "accepted"
    (numbers,) = registry.subscriptions(subscriber="fresh")
    assert (numbers.start_seq, numbers.last_seq, numbers.handled_seq) == (1, 3, 1)


def test_unauthentic_events_create_no_subscription(registry, job):
    assert verdict(registry, wire(1, token=TOKEN[::-1]), "fresh", start="now") == "bad_signature"
    assert registry.subscriptions() == []


def test_a_batch_returns_verdicts_in_order(registry, job):
    items = [wire(1), Arrival(wire(2), "elsewhere/events"), b"\xff", wire(2).encode(), wire(1), json.loads(wire(3))]
    found = registry.accept_many(items, subscriber="s")
    assert [item.verdict for item in found] == [
        "accepted",
        "wrong_topic",
        "malformed",
        "accepted",
        "duplicate",
        "accepted",
    ]
    assert registry.accept_many([], subscriber="s") == []


def test_a_registrys_own_events_are_accepted_then_duplicates(registry, job):
    lines = [registry.publish("j", kind).payload for kind in ("started", "progress", "completed")]
    assert [verdict(registry, line, topic=job.topic) for line in lines] == ["accepted"] * 3
    assert [verdict(registry, line) for line in lines] == ["duplicate"] * 3
    assert len(registry.events("j")) == 3


def test_stale_attempts_after_a_takeover(registry, clock, job):
    registry.claim(worker="a", lease_sec=10)
    assert verdict(registry, wire(1, attempt=1)) == "accepted"
    clock.advance(11)
    registry.reap()
    assert verdict(registry, wire(2, attempt=1)) == "stale_attempt"
    registry.claim(worker="b")
    assert verdict(registry, wire(2, attempt=1)) == "stale_attempt"
    assert verdict(registry, wire(2)) == "stale_attempt"
    assert verdict(registry, wire(2, "completed", attempt=1)) == "stale_attempt"
    assert verdict(registry, wire(2, attempt=2)) == "accepted"
    assert registry.get("j").status is JobStatus.RUNNING


def test_events_after_a_cancellation_change_nothing(registry, job):
    verdict(registry, wire(1))
    cancelled = registry.cancel("j")
    assert verdict(registry, wire(2)) == "after_terminal"
    assert verdict(registry, wire(2, "completed")) == "conflict"
    assert registry.get("j") == cancelled and len(registry.events("j")) == 1


@pytest.mark.parametrize(("status", "other"), [("completed", "error"), ("error", "completed")])
def test_the_recorded_end_of_an_imported_job_is_not_a_conflict(database, clock, status, other):
    """The record has the outcome and its seq; the log was lost, and the broker has retained the event."""
    with database.open() as registry:
        registry.register(agent="a", prompt="", job_id="j", auth_token=TOKEN)
        before = registry.get("j")
    end = wire(7, status, detail="all there is")
    # Only the import makes such a job.
    database.sql(f"UPDATE jobs SET status = '{status}', last_seq = 7, terminal_seq = 7, finished_ms = updated_ms")
    with database.open() as registry:
        ended = registry.get("j")
        for conflicting in (wire(7, other), wire(6, status), wire(8, status)):
            assert verdict(registry, conflicting) is Verdict.CONFLICT
        assert verdict(registry, end, start="now", subscriber="late") is Verdict.REPLAYED
        clock.advance(5)
        result = registry.accept(end, subscriber="s")
        assert (result.verdict, result.missing) == (Verdict.ACCEPTED, range(1, 7))
        assert result.event == registry.events("j")[0] and result.event.payload == end
        (subscription,) = registry.subscriptions(subscriber="s")
        assert (subscription.last_seq, subscription.handled_seq) == (7, 0)
        assert registry.get("j") == ended and ended.updated_at == before.updated_at
        assert verdict(registry, end) is Verdict.DUPLICATE
        assert verdict(registry, wire(7, status, detail="another")) is Verdict.CONFLICT
        assert verdict(registry, wire(8, status)) is Verdict.CONFLICT
        assert verdict(registry, end, subscriber="another") is Verdict.ACCEPTED
        assert [event.seq for event in registry.events("j")] == [7]


def test_the_end_of_an_imported_record_twice_in_one_batch(database):
    with database.open() as registry:
        registry.register(agent="a", prompt="", job_id="j", auth_token=TOKEN)
    database.sql("UPDATE jobs SET status = 'completed', last_seq = 2, terminal_seq = 2, finished_ms = updated_ms")
    with database.open() as registry:
        lines = [wire(2, "completed"), wire(2, "completed"), wire(2, "completed", detail="x"), wire(3)]
        found = [answer.verdict for answer in registry.accept_many(lines, subscriber="s")]
        assert found == [Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.CONFLICT, Verdict.AFTER_TERMINAL]


def test_a_job_imported_as_cancelled_has_no_terminal_event(database):
    with database.open() as registry:
        registry.register(agent="a", prompt="", job_id="j", auth_token=TOKEN)
    database.sql("UPDATE jobs SET status = 'cancelled', last_seq = 2, terminal_seq = 2, finished_ms = updated_ms")
    with database.open() as registry:
        assert verdict(registry, wire(2, "completed")) is Verdict.CONFLICT
        assert verdict(registry, wire(2, "error")) is Verdict.CONFLICT


def test_jobs_without_a_token_take_unsigned_events(registry):
    registry.register(agent="a", prompt="", job_id="open", auth="never")
    assert verdict(registry, signed("open", 1, token=None)) == "accepted"
    assert verdict(registry, signed("open", 1, token=None)) == "duplicate"


def test_a_late_event_never_moves_the_job_backwards(registry, job):
    verdict(registry, wire(5, detail="five"))
    before = registry.get("j")
    assert verdict(registry, wire(3, detail="three"), window=10) == "accepted"
    after = registry.get("j")
    assert (after.last_seq, after.detail, after.status) == (before.last_seq, "five", before.status)
    assert verdict(registry, wire(4, "completed", detail="four"), window=10) == "accepted"
    ended = registry.get("j")
    assert (ended.status, ended.last_seq) == (JobStatus.COMPLETED, 5)
    with pytest.raises(IllegalTransition, match="completed"):
        registry.publish("j", "progress")
