"""Test reused job ids: nothing that was signed for the pruned job is accepted for the new one."""

from __future__ import annotations

import warnings

import pytest

from jobdb import AlreadyExists, InvalidInput, JobStatus, NewJob, Verdict
from jobdb.operations.copy import copy_registry
from tests.support.keys import OTHER_MASTER_KEY, TOKEN, vault

OTHER_TOKEN = TOKEN[::-1]


def register(registry, job_id, **more):
    return registry.register(agent="a", prompt="p", job_id=job_id, **more)


def complete_and_prune(registry, clock, job_id):
    """Complete and prune a job; return its payloads."""
    registry.publish(job_id, "started")
    registry.complete(job_id, detail="the old run")
    payloads = [event.payload for event in registry.events(job_id)]
    clock.advance(2)
    assert registry.prune(older_than_sec=1, now_ms=clock.now_ms) == [job_id]
    return payloads


def verdicts(registry, payloads):
    return {registry.accept(payload, subscriber="s", window=64).verdict for payload in payloads}


def test_a_given_token_is_accepted_once_per_job_id(registry, clock):
    register(registry, "nightly", auth_token=TOKEN)
    payloads = complete_and_prune(registry, clock, "nightly")
    with pytest.raises(InvalidInput, match="used before"):
        register(registry, "nightly", auth_token=TOKEN)
    register(registry, "nightly", auth_token=OTHER_TOKEN)
    assert verdicts(registry, payloads) == {Verdict.BAD_SIGNATURE}
    assert registry.get("nightly").status is JobStatus.PENDING
    with pytest.raises(InvalidInput, match="used before"):
        registry.tokens.rotate("nightly", token=TOKEN)
    registry.tokens.rotate("nightly", token=TOKEN.swapcase())


def test_a_generated_token_is_used_once_per_job_id(registry, clock):
    register(registry, "nightly")
    registry.tokens.rotate("nightly")
    tokens = [registry.tokens.show("nightly", kid=kid) for kid in (1, 2)]
    assert [len(token) for token in tokens] == [43, 43] and len(set(tokens)) == 2
    payloads = complete_and_prune(registry, clock, "nightly")
    for token in tokens:
        with pytest.raises(InvalidInput, match="used before"):
            register(registry, "nightly", auth_token=token)
    register(registry, "nightly")
    assert registry.tokens.show("nightly") not in tokens
    assert verdicts(registry, payloads) == {Verdict.REVOKED_KEY}  # the new job has no key 2
    with pytest.raises(InvalidInput, match="used before"):
        registry.tokens.rotate("nightly", token=tokens[0])


@pytest.mark.parametrize("auth", ["required", "never"])
def test_the_id_of_a_pruned_job_is_not_reused_by_an_unsigned_job(registry, clock, auth):
    register(registry, "open", auth=auth)
    payloads = complete_and_prune(registry, clock, "open")
    with pytest.raises(InvalidInput, match="another id"):
        register(registry, "open", auth="never")
    register(registry, "open")
    assert not verdicts(registry, payloads) & {Verdict.ACCEPTED, Verdict.DUPLICATE}
    assert registry.get("open").status is JobStatus.PENDING


def test_unused_ids_may_be_given_to_unsigned_jobs(registry, clock):
    register(registry, "open", auth="never")
    complete_and_prune(registry, clock, "open")
    register(registry, "another", auth="never")
    registry.register(agent="a", prompt="p", auth="never")


def test_two_jobs_with_one_token_cause_a_warning_and_stay_separate(registry):
    register(registry, "n1", auth_token=TOKEN)
    with pytest.warns(UserWarning, match="job n2 is also the token of job n1"):
        register(registry, "n2", auth_token=TOKEN)
    event = registry.publish("n1", "started")
    forged = event.payload.replace('"n1"', '"n2"')
    assert registry.accept(forged, subscriber="s").verdict is Verdict.BAD_SIGNATURE
    with pytest.warns(UserWarning, match="job n3 \\(and for 1 more\\)"):
        registry.register_many([NewJob(agent="a", prompt="p", job_id=name, auth_token=TOKEN) for name in ("n3", "n4")])
    with pytest.warns(UserWarning, match="job n5"):
        register(registry, "n5")
        registry.tokens.rotate("n5", token=TOKEN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register(registry, "n6", auth_token=OTHER_TOKEN)
        register(registry, "n7")


def test_a_failed_registration_uses_up_no_token(registry):
    register(registry, "taken")
    with pytest.raises(AlreadyExists, match="taken"):
        registry.register_many(
            [NewJob(agent="a", prompt="p", job_id=name, auth_token=TOKEN) for name in ("free", "taken")]
        )
    register(registry, "free", auth_token=TOKEN)


def test_a_reused_id_with_unrecorded_tokens_gets_a_generated_token(database, registry, clock):
    """Tokens of an older version and of imports are not recorded: a given token may be one of them."""
    register(registry, "old", auth_token=TOKEN)
    registry.close()
    database.sql("UPDATE tokens SET remembered = 0; DELETE FROM token_fingerprints")
    with database.open() as again:
        payloads = complete_and_prune(again, clock, "old")
        with pytest.raises(InvalidInput, match="no longer known whether the given token"):
            register(again, "old", auth_token=TOKEN)
        register(again, "old")
        assert verdicts(again, payloads) == {Verdict.BAD_SIGNATURE}


def test_the_record_of_used_tokens_survives_rekey_reopening_and_copying(database, make_database, registry, clock):
    register(registry, "given", auth_token=TOKEN)
    register(registry, "generated")
    generated = registry.tokens.show("generated")
    register(registry, "open", auth="never")
    for job_id in ("given", "generated", "open"):
        complete_and_prune(registry, clock, job_id)
    register(registry, "here")
    new = vault(OTHER_MASTER_KEY)
    registry.tokens.rekey(new)
    target = make_database("sqlite-wal")
    with database.open(vault=new) as again, target.open(vault=new) as copy:
        copy_registry(again, copy)
        for each in (registry, again, copy):
            for job_id, more in (
                ("given", {"auth_token": TOKEN}),
                ("generated", {"auth_token": generated}),
                ("open", {"auth": "never"}),
            ):
                with pytest.raises(InvalidInput):
                    register(each, job_id, **more)


def test_pruning_keeps_rows_for_given_ids_only(registry, clock, database):
    """Generated ids leave nothing behind; given ids leave one row each."""
    many = 100
    registry.register_many([NewJob(agent="a", prompt="p") for _ in range(many)])
    registry.register_many([NewJob(agent="a", prompt="p", job_id=f"given{number}") for number in range(3)])
    for job in registry.jobs(limit=1000):
        registry.cancel(job.job_id)
    clock.advance(2)
    assert len(registry.prune(older_than_sec=1, limit=1000, now_ms=clock.now_ms)) == many + 3
    registry.close()
    assert database.scalar("SELECT count(*) FROM tombstones") == 3
    assert database.scalar("SELECT count(*) FROM token_fingerprints") == 0
