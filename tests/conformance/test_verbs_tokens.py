"""Test tokens on every engine: show, list, rotate with overlap, revoke, rekey."""

import pytest

from jobdb import Broker, IllegalTransition, InvalidInput, KeyProblem
from jobdb.core.protocol import parse
from jobdb.crypto.vault import Vault
from tests.support.keys import OTHER_MASTER_KEY, THIRD_MASTER_KEY, vault
from tests.support.wire_events import signed

TOKEN = "given-token-given-token-given-token-given"


def verdict(registry, line):
    return registry.accept(line, subscriber="s").verdict


def test_each_job_gets_its_own_token(registry):
    one, two = (registry.register(agent="a", prompt="").job_id for _ in range(2))
    given = registry.register(agent="a", prompt="", auth_token=TOKEN).job_id
    assert registry.tokens.show(one) != registry.tokens.show(two)
    assert len(registry.tokens.show(one)) == 43
    assert registry.tokens.show(given) == registry.tokens.show(given, kid=1) == TOKEN
    assert registry.tokens.current(given) == (1, TOKEN)
    with pytest.raises(InvalidInput, match="no token 2"):
        registry.tokens.show(given, kid=2)


def test_rotation_keeps_the_old_token_for_the_overlap(registry, clock, job):
    job_id = job.job_id
    old = registry.tokens.show(job_id)
    assert registry.tokens.rotate(job_id, overlap_sec=60) == 2
    new = registry.tokens.show(job_id)
    assert new != old and registry.tokens.show(job_id, kid=1) == old
    assert [info.state for info in registry.tokens.list(job_id)] == ["overlap", "current"]
    event = registry.publish(job_id, "progress")
    assert parse(event.payload).kid == 2
    assert verdict(registry, signed(job_id, 1, token=old)) == "conflict"
    assert verdict(registry, signed(job_id, 2, token=old)) == "accepted"
    assert verdict(registry, signed(job_id, 3, token=old, kid=2)) == "bad_signature"
    clock.advance(59.999)
    assert verdict(registry, signed(job_id, 3, token=old)) == "accepted"
    clock.advance(0.001)
    assert verdict(registry, signed(job_id, 4, token=old)) == "revoked_key"
    assert verdict(registry, signed(job_id, 4, token=new, kid=2)) == "accepted"
    assert [info.state for info in registry.tokens.list(job_id)] == ["expired", "current"]


def test_an_overlap_is_never_prolonged_by_the_next_rotation(registry, clock, job):
    job_id = job.job_id
    registry.tokens.rotate(job_id, overlap_sec=10)
    assert registry.tokens.rotate(job_id, overlap_sec=100, token=TOKEN) == 3
    first, second, third = registry.tokens.list(job_id)
    assert (second.expires_at - first.expires_at).total_seconds() == 90
    assert third.expires_at is None and registry.tokens.show(job_id) == TOKEN
    assert registry.tokens.rotate(job_id, overlap_sec=0) == 4
    assert [info.state for info in registry.tokens.list(job_id)] == ["expired"] * 3 + ["current"]


def test_revocation_is_immediate(registry, job):
    job_id = job.job_id
    old = registry.tokens.show(job_id)
    registry.tokens.rotate(job_id)
    assert registry.tokens.revoke(job_id, 1) is False
    assert verdict(registry, signed(job_id, 1, token=old)) == "revoked_key"
    assert registry.tokens.revoke(job_id, 1) is False
    assert registry.tokens.revoke(job_id, 2) is True
    assert [info.state for info in registry.tokens.list(job_id)] == ["revoked", "revoked"]
    with pytest.raises(InvalidInput, match="no token 3"):
        registry.tokens.revoke(job_id, 3)


def test_ended_jobs_get_no_new_token(registry, job):
    registry.complete(job.job_id)
    with pytest.raises(IllegalTransition):
        registry.tokens.rotate(job.job_id)


def test_rekey_reseals_everything_or_nothing(registry, database, job):
    ids = [
        registry.register(agent="a", prompt="", broker=Broker("h"), broker_password=f"pw{n}").job_id for n in range(4)
    ]
    ids.append(registry.register(agent="a", prompt="", broker=Broker("h"), auth="never").job_id)
    registry.tokens.rotate(ids[0])
    tokens = [registry.tokens.show(ids[0], kid=kid) for kid in (1, 2)]
    new = vault(OTHER_MASTER_KEY)
    assert registry.tokens.rekey(new) == 6 + 4
    assert [registry.tokens.show(ids[0], kid=kid) for kid in (1, 2)] == tokens
    assert registry.engine.broker(ids[3])[1] == "pw3"
    registry.close()
    with database.open() as old_key:
        with pytest.raises(KeyProblem):
            old_key.tokens.show(ids[0])
        with pytest.raises(KeyProblem):
            old_key.tokens.rekey(vault(THIRD_MASTER_KEY))
    with database.open(vault=new) as fresh:
        assert fresh.tokens.show(ids[0]) == tokens[1]


def test_rekey_handles_more_than_one_page(registry, monkeypatch):
    from jobdb.engines.sql import tokens

    monkeypatch.setattr(tokens, "_PAGE", 4)
    ids = [registry.register(agent="a", prompt="", broker=Broker("h"), broker_password="p").job_id for _ in range(9)]
    for job_id in ids[::2]:
        registry.tokens.rotate(job_id)
    assert registry.tokens.rekey(vault(OTHER_MASTER_KEY)) == 9 + 5 + 9
    for job_id in ids:
        registry.tokens.show(job_id)


def test_rekey_handles_a_job_with_more_tokens_than_a_page(registry, monkeypatch, job):
    from jobdb.engines.sql import tokens

    monkeypatch.setattr(tokens, "_PAGE", 4)
    for _ in range(9):
        registry.tokens.rotate(job.job_id)
    other = registry.register(agent="a", prompt="").job_id
    before = [registry.tokens.show(job.job_id, kid=kid) for kid in range(1, 11)]
    assert registry.tokens.rekey(vault(OTHER_MASTER_KEY)) == 11
    assert [registry.tokens.show(job.job_id, kid=kid) for kid in range(1, 11)] == before
    assert registry.tokens.show(other)


def test_a_token_that_the_job_had_before_is_refused(registry, job):
    job_id = job.job_id
    old = registry.tokens.show(job_id)
    registry.tokens.rotate(job_id, token=TOKEN)
    registry.tokens.revoke(job_id, 1)
    for kid, token in ((1, old), (2, TOKEN)):
        with pytest.raises(InvalidInput, match=f"token {kid} of") as caught:
            registry.tokens.rotate(job_id, token=token)
        assert token not in str(caught.value)
    assert registry.tokens.current(job_id) == (2, TOKEN)


def test_a_process_without_a_key_is_refused_and_creates_none(registry, database, clock, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    keyless = Vault.open(env={"HOME": str(home)})
    job_id = registry.register(agent="a", prompt="", timeout_sec=5, auth_token=TOKEN).job_id
    registry.publish(job_id, "started")
    line = signed(job_id, 2, token=TOKEN)
    registry.close()
    clock.advance(60)
    with database.open(vault=keyless) as other:
        for verb in (
            lambda: other.register(agent="a", prompt=""),
            lambda: other.publish(job_id, "progress"),
            lambda: other.accept(line, subscriber="s"),
            lambda: other.tokens.show(job_id),
            lambda: other.tokens.rotate(job_id),
            lambda: other.tokens.rotate(job_id, token=TOKEN + "x"),
            lambda: other.tokens.rekey(vault(THIRD_MASTER_KEY)),
            lambda: other.reap(),
        ):
            with pytest.raises(KeyProblem, match="there is no master key"):
                verb()
        assert list(home.iterdir()) == []
        assert other.register(agent="a", prompt="", auth="never").auth == "never"
        assert other.get(job_id).status == "running"
    assert list(home.iterdir()) == []


def test_the_first_secret_of_a_database_creates_the_key(database, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    with database.open(vault=Vault.open(env={"HOME": str(home)})) as registry:
        job_id = registry.register(agent="a", prompt="", auth_token=TOKEN).job_id
    assert (home / ".config" / "jobdb" / "master.key").is_file()
    with database.open(vault=Vault.open(create=False, env={"HOME": str(home)})) as again:
        assert again.tokens.show(job_id) == TOKEN


def test_no_secret_is_readable_in_the_database(registry, database, job):
    token = registry.tokens.show(job.job_id)
    registry.register(agent="a", prompt="", broker=Broker("h"), broker_password="hunter2-hunter2", auth_token=TOKEN)
    registry.publish(job.job_id, "progress")
    registry.close()
    for secret in (token, TOKEN, "hunter2-hunter2"):
        if database.name == "postgresql":
            tables = ("jobs", "specs", "tokens", "events", "settings")
            for table in tables:
                assert database.scalar(f"SELECT count(*) FROM {table} AS r WHERE r::text LIKE '%{secret}%'") == 0
        else:
            for file in database.path.parent.iterdir():
                assert secret.encode() not in file.read_bytes(), file
