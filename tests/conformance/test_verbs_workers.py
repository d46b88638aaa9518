"""Test the batches of workers, on every engine: claims, events, returns, renewals, tries and refusals."""

from datetime import UTC, datetime

import pytest

from jobdb import (
    EventKind,
    IllegalTransition,
    InvalidInput,
    JobStatus,
    KeyProblem,
    NewEvent,
    StaleAttempt,
    UnknownJob,
)
from jobdb.core.protocol import MAX_DETAIL_CHARS, parse, verify
from jobdb.crypto.master_key import MasterKey
from jobdb.crypto.vault import Vault
from tests.support.worker_records import back, batch, claimed_ids, event, register_jobs

# -- claims


def test_a_batch_claims_as_many_as_it_asks_for_highest_priority_first_then_oldest(registry, clock):
    a, b, c, d, e = register_jobs(registry, 0, 5, 5, -1, 0)
    assert claimed_ids(batch(registry)) == []
    result = batch(registry, claim=3, lease_sec=20)
    assert claimed_ids(result) == [b, c, a]
    assert [(claim.attempt, claim.worker) for claim in result.claims] == [(1, "host1:w1")] * 3
    until = datetime.fromtimestamp(clock.now_ms / 1000 + 20, UTC)
    assert [claim.lease_expires_at for claim in result.claims] == [until] * 3
    assert [claim.job for claim in result.claims] == [registry.get(job_id) for job_id in (b, c, a)]
    assert claimed_ids(batch(registry, claim=8)) == [e, d]
    assert claimed_ids(batch(registry, claim=8)) == []


def test_a_batch_claims_only_jobs_of_its_agent_and_session(registry):
    (plain,) = register_jobs(registry, 9)
    first, second = register_jobs(registry, 0, 0, agent="hermes", session="tmux:1")
    (other,) = register_jobs(registry, 3, agent="codex", session="tmux:1")
    assert claimed_ids(batch(registry, claim=9, agent="nobody")) == []
    assert claimed_ids(batch(registry, claim=9, agent_session="tmux:2")) == []
    assert claimed_ids(batch(registry, claim=1, agent="hermes")) == [first]
    assert claimed_ids(batch(registry, claim=9, agent="hermes", agent_session="tmux:1")) == [second]
    assert claimed_ids(batch(registry, claim=9, agent_session="tmux:1")) == [other]
    assert claimed_ids(batch(registry, claim=9, agent="codex")) == [plain]


def test_a_claim_is_announced_if_the_batch_asks_for_it(registry):
    signed, silent = register_jobs(registry, 1, 0)
    result = batch(registry, claim=2, announce=True)
    assert [claim.job.last_event for claim in result.claims] == ["started", "started"]
    assert [claim.job for claim in result.claims] == [registry.get(signed), registry.get(silent)]
    (started,) = registry.events(signed)
    assert (started.event, started.attempt, started.data["worker"]) == ("started", 1, "host1:w1")
    assert verify(parse(started.payload), registry.tokens.show(signed))


def test_a_job_that_cannot_be_announced_is_claimed_all_the_same(registry):
    revoked, good = register_jobs(registry, 1, 0)
    registry.tokens.revoke(revoked, 1)
    result = batch(registry, claim=2, announce=True)
    assert claimed_ids(result) == [revoked, good] and result.refused == {}
    assert [len(registry.events(job_id)) for job_id in (revoked, good)] == [0, 1]


def test_a_batch_takes_jobs_whose_lease_has_expired(registry, clock):
    (job_id,) = register_jobs(registry, 0)
    assert batch(registry, "gone", claim=1, lease_sec=5).claims[0].attempt == 1
    clock.advance(5)
    (claim,) = batch(registry, "w2", claim=4).claims
    assert (claim.job_id, claim.attempt, claim.worker, claim.job.strikes) == (job_id, 2, "host1:w2", 1)


@pytest.mark.parametrize("verb", ["work_batch", "claim"])
def test_many_expired_leases_do_not_hide_the_jobs_of_another_agent(registry, clock, verb):
    expired = register_jobs(registry, *[5] * 230, agent="gone")
    assert len(batch(registry, claim=250, lease_sec=5).claims) == 230
    (waiting,) = register_jobs(registry, 0, agent="also-gone")
    assert claimed_ids(batch(registry, claim=1, lease_sec=6)) == [waiting]
    clock.advance(7)
    if verb == "claim":
        claim = registry.claim(worker="w", agent="also-gone")
        assert claim.job_id == waiting and claim.attempt == 2
    else:
        assert claimed_ids(batch(registry, claim=1, agent="also-gone")) == [waiting]
    assert {registry.get(job_id).status for job_id in expired} == {JobStatus.PENDING}


@pytest.mark.parametrize("verb", ["work_batch", "claim"])
def test_a_due_job_of_higher_priority_comes_first(registry, clock, verb):
    urgent, _ordinary = register_jobs(registry, 5, 0)
    registry.claim(worker="w", job_id=urgent)
    registry.release(urgent, attempt=1, delay_sec=30)

    def take():
        if verb == "claim":
            claim = registry.claim(worker="w")
            return claim and claim.job_id
        return next(iter(claimed_ids(batch(registry, claim=1))), None)

    clock.advance(29.999)
    assert take() == _ordinary
    assert take() is None
    (later,) = register_jobs(registry, 1)
    clock.advance(0.001)
    assert [take(), take(), take()] == [urgent, later, None]


# -- events, returns and renewals


def test_events_returns_renewals_and_claims_are_one_batch(registry, clock):
    done, failed, kept, waiting = register_jobs(registry, 3, 2, 1, 0)
    batch(registry, claim=3, lease_sec=10)
    clock.advance(5)
    result = batch(
        registry,
        events=(event(done), event(kept, detail="step 3"), event(done, "completed", data={"exit_code": 0})),
        give_back=(back(failed, counts=True, delay_sec=600),),
        renew=((kept, 1),),
        claim=5,
        lease_sec=20,
    )
    assert claimed_ids(result) == [waiting]
    assert result.refused == {} and result.returned == {(failed, 1): "returned"}
    assert [one.event for one in registry.events(done)] == ["progress", "completed"]
    assert registry.get(done).status is JobStatus.COMPLETED
    assert registry.get(kept).detail == "step 3"
    assert registry.get(kept).lease_expires_at.timestamp() * 1000 == clock.now_ms + 20_000
    again = registry.get(failed)
    assert (again.status, again.strikes, again.detail) == (JobStatus.PENDING, 1, "the agent stopped")
    assert again.not_before.timestamp() * 1000 == clock.now_ms + 600_000


def test_what_is_refused_stops_nothing_else(registry):
    lost, ended, good = register_jobs(registry, 2, 1, 0)
    batch(registry, claim=3)
    registry.release(lost, attempt=1)
    registry.cancel(ended)
    result = batch(
        registry,
        events=(event("nobody"), event(lost), event(good, data={"k": object()}), event(good), event(good)),
        give_back=(back(ended), back(good, attempt=2), back("nobody", attempt=3)),
        renew=((lost, 7), (good, 1)),
        claim=1,
    )
    assert {key: type(error) for key, error in result.refused.items()} == {
        ("nobody", 1): UnknownJob,
        (lost, 1): StaleAttempt,
        (good, 1): InvalidInput,
        (ended, 1): StaleAttempt,
        (good, 2): StaleAttempt,
        ("nobody", 3): UnknownJob,
        (lost, 7): StaleAttempt,
    }
    assert result.returned == {}
    assert [one.seq for one in registry.events(good)] == [1, 2]
    assert claimed_ids(result) == [lost]
    assert isinstance(batch(registry, events=(event(ended),)).refused[ended, 1], IllegalTransition)


def test_an_invalid_batch_writes_nothing(registry):
    (job_id,) = register_jobs(registry, 0)
    with pytest.raises(InvalidInput):
        batch(registry, claim=1, renew=((job_id, -1),))
    with pytest.raises(InvalidInput, match="attempt"):
        batch(registry, claim=1, events=(NewEvent(job_id=job_id, event=EventKind.PROGRESS),))
    assert registry.get(job_id).status is JobStatus.PENDING


def test_a_job_that_ended_in_a_batch_is_not_given_back_by_it(registry):
    done, twice = register_jobs(registry, 1, 0)
    batch(registry, claim=2)
    result = batch(
        registry,
        events=(event(done, "completed"),),
        give_back=(back(done), back(twice, counts=True), back(twice, counts=True)),
    )
    assert {key: type(error) for key, error in result.refused.items()} == {
        (done, 1): StaleAttempt,
        (twice, 1): StaleAttempt,
    }
    assert result.returned == {(twice, 1): "returned"}
    assert registry.get(done).status is JobStatus.COMPLETED and registry.get(twice).strikes == 1


def test_a_return_without_a_try_never_ends_a_job(registry):
    (job_id,) = register_jobs(registry, 0, max_attempts=1)
    for attempt in range(1, 6):
        assert batch(registry, claim=1).claims[0].attempt == attempt
        assert batch(registry, give_back=(back(job_id, attempt),)).returned == {(job_id, attempt): "returned"}
    job = registry.get(job_id)
    assert (job.status, job.strikes, job.worker, job.not_before) == (JobStatus.PENDING, 0, None, None)


@pytest.mark.parametrize(("max_attempts", "limit", "tries"), [(None, 1, 1), (None, 3, 3), (2, 1, 2), (1, 3, 1)])
def test_the_last_try_ends_the_job_with_its_data(registry, max_attempts, limit, tries):
    (job_id,) = register_jobs(registry, 0, max_attempts=max_attempts)
    failing = {"counts": True, "limit": limit, "data": {"exit_code": 3, "tail": "boom"}}
    for attempt in range(1, tries):
        batch(registry, claim=1)
        assert batch(registry, give_back=(back(job_id, attempt, **failing),)).returned == {
            (job_id, attempt): "returned"
        }
    batch(registry, claim=1)
    assert batch(registry, give_back=(back(job_id, tries, **failing),)).returned == {(job_id, tries): "ended"}
    (error,) = registry.events(job_id)
    reason = "the agent stopped" + (f", try {tries} of {tries}" if tries > 1 else "")
    assert (error.event, error.attempt, error.detail) == ("error", tries, reason)
    assert (error.data["exit_code"], error.data["tail"]) == (3, "boom")
    assert verify(parse(error.payload), registry.tokens.show(job_id))
    assert registry.get(job_id).status is JobStatus.ERROR


def test_expired_leases_and_failures_use_up_the_same_tries(registry, clock):
    (job_id,) = register_jobs(registry, 0, max_attempts=3)
    batch(registry, claim=1, lease_sec=5)
    clock.advance(5)
    assert batch(registry, claim=1).claims[0].attempt == 2
    assert batch(registry, give_back=(back(job_id, 2, counts=True),)).returned == {(job_id, 2): "returned"}
    assert batch(registry, claim=1, lease_sec=5).claims[0].attempt == 3
    clock.advance(5)
    assert claimed_ids(batch(registry, claim=1)) == []
    (error,) = registry.events(job_id)
    assert error.detail.endswith("strike 3 of 3") and error.data["reason"] == "lease_expired"


@pytest.mark.parametrize("case", ["revoked", "bad data", "long reason"])
def test_a_last_try_ends_the_job_even_if_its_event_cannot_be_sent_as_it_is(registry, case):
    (job_id,) = register_jobs(registry, 0)
    batch(registry, claim=1)
    if case == "revoked":
        registry.tokens.revoke(job_id, 1)
    fields = {
        "revoked": {},
        "bad data": {"data": {"k": object()}},
        "long reason": {"reason": "x" * MAX_DETAIL_CHARS, "limit": 3},
    }[case]
    tries = fields.get("limit", 1)
    for attempt in range(1, tries + 1):
        found = batch(registry, give_back=(back(job_id, attempt, **{"counts": True, "limit": 1, **fields}),), claim=1)
        assert found.refused == {}
    job = registry.get(job_id)
    assert (job.status, job.lease_expires_at) == (JobStatus.ERROR, None)
    assert [one.event for one in registry.events(job_id)] == ([] if case == "revoked" else ["error"])


def test_without_the_key_a_last_try_is_refused(registry, database):
    (job_id,) = register_jobs(registry, 0)
    with database.open(vault=Vault(MasterKey(bytes(31) + b"1", "a test"))) as other:
        assert claimed_ids(batch(other, claim=1)) == [job_id]
        found = batch(other, give_back=(back(job_id, counts=True, limit=1),))
        assert isinstance(found.refused[job_id, 1], KeyProblem) and found.returned == {}
        assert batch(other, give_back=(back(job_id),)).returned == {(job_id, 1): "returned"}


@pytest.mark.parametrize("verb", ["work_batch", "claim"])
def test_a_process_without_the_key_leaves_a_last_try_to_reap_and_claims_others(registry, clock, database, verb):
    last, other_job = register_jobs(registry, 1, 0)
    registry.cancel(other_job)
    (last_try,) = register_jobs(registry, 0, max_attempts=1)
    assert len(batch(registry, claim=2, lease_sec=5).claims) == 2
    clock.advance(5)
    with database.open(vault=Vault(MasterKey(bytes(31) + b"1", "a test"))) as other:
        if verb == "claim":
            assert other.claim(worker="w").job_id == last
            assert other.claim(worker="w") is None
            with pytest.raises(KeyProblem):
                other.claim(worker="w", job_id=last_try)
        else:
            assert claimed_ids(batch(other, claim=9)) == [last]
    assert registry.get(last_try).status is JobStatus.RUNNING
    assert [(one.job_id, one.action) for one in registry.reap()] == [(last_try, "ended")]


def test_an_expired_claim_that_nobody_took_can_still_report(registry, clock):
    said, kept, returned = register_jobs(registry, 2, 1, 0)
    batch(registry, claim=3, lease_sec=5)
    clock.advance(60)
    result = batch(registry, events=(event(said, "completed"),), renew=((kept, 1),), give_back=(back(returned),))
    assert result.refused == {}
    assert registry.get(said).status is JobStatus.COMPLETED
    assert registry.get(kept).lease_expires_at.timestamp() * 1000 == clock.now_ms + 60_000
