"""Test identities at a broker: copies, restored backups and reused job ids are not mistaken for their originals."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jobdb import InvalidInput, JobStatus, MovedOrCopied, Verdict
from jobdb.engines.identity import REGISTRY_ID, assign_new_identity, new_registry_id
from jobdb.engines.place import PLACE
from jobdb.engines.sql.statements import JOBS
from jobdb.mqtt import Relay, Ticket, TicketOutbox, issue_ticket, read_ticket, write_ticket
from jobdb.mqtt.ticket_outbox import _ticket_digest
from tests.support.mqtt.client import RawClient
from tests.support.mqtt.harness import BrokerHarness, collect
from tests.support.waiting import TIMEOUT_SEC, wait_until


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tickets.db"


def _copied(harness: BrokerHarness, tmp_path: Path) -> BrokerHarness:
    """Copy the closed database as a file, and open both; return the copy."""
    harness.registry.close()
    folder = tmp_path / "copy"
    folder.mkdir(mode=0o700)
    shutil.copy2(harness.path, folder / "jobs.db")
    harness.registry = BrokerHarness(harness.path, harness.settings.port).registry
    return BrokerHarness(folder / "jobs.db", harness.settings.port)


def _ticket(harness: BrokerHarness, job_id: str) -> Ticket:
    claim = harness.registry.claim(worker="remote", job_id=job_id, lease_sec=None)
    assert claim is not None
    return issue_ticket(harness.registry, job_id, environment=harness.environment)


def _publish(ticket: Ticket, state: Path, *events: str) -> list[int]:
    with TicketOutbox.open(ticket, path=state) as outbox:
        found = [outbox.publish(event).seq for event in events]
        Relay(outbox, report=lambda text: None).run(until_empty=True, timeout_sec=TIMEOUT_SEC)
        assert outbox.count_pending() == 0
    return found


def test_an_unconfirmed_copy_connects_to_no_broker(harness: BrokerHarness, tmp_path: Path) -> None:
    job = harness.job(job_id="j")
    with _copied(harness, tmp_path) as copy:
        for connect in (
            lambda: copy.follow("j", listening=False),
            copy.relay,
            lambda: issue_ticket(copy.registry, "j", environment=copy.environment),
        ):
            with pytest.raises(MovedOrCopied, match="another file"):
                connect()
        copy.registry.publish(job.job_id, "started")
        harness.run_job(job)
        harness.deliver()


@pytest.mark.parametrize("origin", ["copied", "restored"])
def test_a_copy_takes_none_of_the_events_of_the_original(
    harness: BrokerHarness, tmp_path: Path, state: Path, origin: str
) -> None:
    harness.job(job_id="j")
    ticket = _ticket(harness, "j")
    harness.follow("j", subscriber="orch").close()  # its session waits at the broker
    with _copied(harness, tmp_path) as copy:
        if origin == "copied":
            assign_new_identity(copy.registry.engine.store)
        else:  # as restore leaves it
            with copy.registry.engine.store.write() as tx:
                tx.run(JOBS.put_setting, name=REGISTRY_ID, value=new_registry_id())
                tx.run(JOBS.put_setting, name=PLACE, value="")
        with copy.follow("j", subscriber="orch") as theirs:
            _publish(ticket, state, "started", "progress", "completed")
            assert [event.seq for event in collect(theirs, 3)] == [1, 2, 3]
    with harness.follow("j", subscriber="orch") as ours:
        assert [event.seq for event in collect(ours, 3)] == [1, 2, 3]
    assert harness.registry.get("j").status is JobStatus.COMPLETED


def test_a_migrated_database_keeps_its_broker_session(harness: BrokerHarness, state: Path) -> None:
    """The older version connected under a random client id; the migration keeps it together with the registry's id."""
    harness.job(job_id="j")
    ticket = _ticket(harness, "j")
    engine = harness.registry.engine
    engine.put_setting("broker_identity", f"{engine.setting(REGISTRY_ID)} 0123456789abcdef")
    older = harness.settings.client_id("sub", "0123456789abcdef", "orch", "j")
    with harness.follow("j", subscriber="orch") as follower:
        assert follower._consumer._link._client_id == older
    _publish(ticket, state, "started")
    with harness.follow("j", subscriber="orch") as follower:
        assert collect(follower, 1)[0].seq == 1


# -- a job id that is used again


def _end_and_prune(harness: BrokerHarness, job_id: str) -> None:
    harness.registry.prune(older_than_sec=0, now_ms=2**42)
    assert [job.job_id for job in harness.registry.jobs()] == []


def test_a_ticket_of_a_job_with_a_reused_id_numbers_its_own_events(harness: BrokerHarness, state: Path) -> None:
    names = set()
    for night in range(2):
        harness.job(job_id="nightly")
        ticket = _ticket(harness, "nightly")
        names.add(_ticket_digest(ticket))
        with harness.follow("nightly", subscriber=f"night {night}") as follower:
            assert _publish(ticket, state, "started", "completed") == [1, 2]
            assert [event.seq for event in collect(follower, 2)] == [1, 2]
        assert harness.registry.get("nightly").status is JobStatus.COMPLETED
        _end_and_prune(harness, "nightly")
    assert len(names) == 2


def test_the_retained_end_of_a_pruned_job_does_not_end_its_successor(harness: BrokerHarness, state: Path) -> None:
    harness.job(job_id="nightly")
    old = _ticket(harness, "nightly")
    with harness.follow("nightly", subscriber="s") as follower:
        _publish(old, state, "started", "completed")
        collect(follower, 2)
    _end_and_prune(harness, "nightly")
    harness.job(job_id="nightly")
    with harness.follow("nightly", subscriber="a newcomer"):  # the broker delivers the retained event at once
        wait_until(lambda: harness.refused().get("bad_signature"))
    job = harness.registry.get("nightly")
    assert job.status is JobStatus.PENDING and job.last_seq == 0


def test_the_retained_end_of_an_unsigned_job_cannot_end_a_successor_either(harness: BrokerHarness) -> None:
    with RawClient(harness.settings.port) as client:
        harness.run_job(harness.job(job_id="open", auth="never"))
        harness.deliver()
        _end_and_prune(harness, "open")
        with pytest.raises(InvalidInput, match="another id"):
            harness.job(job_id="open", auth="never")
        harness.job(job_id="open")
        with harness.follow("open", subscriber="s"):
            wait_until(lambda: harness.refused().get("unsigned"))
        del client
    assert harness.registry.get("open").status is JobStatus.PENDING


def test_a_given_token_of_a_pruned_job_is_not_accepted_again(harness: BrokerHarness) -> None:
    token = "0123456789abcdef0123456789abcdef"
    job = harness.job(job_id="nightly", auth_token=token)
    harness.run_job(job)
    payloads = [event.payload for event in harness.registry.events("nightly")]
    harness.registry.engine.mark_delivered([each.number for each in harness.registry.engine.outbox(after=0, limit=9)])
    _end_and_prune(harness, "nightly")
    with pytest.raises(InvalidInput, match="was used before"):
        harness.job(job_id="nightly", auth_token=token)
    harness.job(job_id="nightly", auth_token=token[::-1])
    verdicts = {harness.registry.accept(payload, subscriber="s").verdict for payload in payloads}
    assert verdicts == {Verdict.BAD_SIGNATURE}


# -- the file


def test_a_ticket_of_an_older_version_keeps_its_client_id(harness: BrokerHarness, tmp_path: Path, state: Path) -> None:
    import json
    from dataclasses import replace

    harness.job(job_id="j")
    ticket = _ticket(harness, "j")
    assert ticket.registry_id == harness.registry.engine.setting(REGISTRY_ID)
    write_ticket(ticket, tmp_path / "new.ticket")
    assert read_ticket(tmp_path / "new.ticket") == ticket
    older = json.loads(ticket.as_json())
    del older["registry_id"], older["job_instance"]
    path = tmp_path / "old.ticket"
    path.touch(0o600)
    path.write_text(json.dumps(older))
    read = read_ticket(path)
    assert read == replace(ticket, registry_id=None, job_instance=None) and _ticket_digest(read) != _ticket_digest(
        ticket
    )
    assert _publish(read, state, "started") == [1]


@pytest.mark.parametrize("change", [{"registry_id": None}, {"registry_id": "x" * 32}, {"job_instance": 5}])
def test_a_ticket_with_half_an_identity_is_refused(
    harness: BrokerHarness, tmp_path: Path, change: dict[str, object]
) -> None:
    import json

    harness.job(job_id="j")
    path = tmp_path / "j.ticket"
    path.touch(0o600)
    path.write_text(json.dumps(json.loads(_ticket(harness, "j").as_json()) | change))
    with pytest.raises(InvalidInput):
        read_ticket(path)
