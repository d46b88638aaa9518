"""Test tickets: a worker without access to the database publishes signed events from a durable outbox."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobdb import Event, IllegalTransition, InvalidInput, Job, JobStatus, SchemaMismatch
from jobdb.mqtt import BrokerFollower, Relay, Ticket, TicketOutbox, issue_ticket, read_ticket, write_ticket
from jobdb.mqtt.ticket_outbox import RETENTION_MS
from jobdb.mqtt.ticket_store import default_path
from tests.support.mqtt.chaos import worker_command
from tests.support.mqtt.client import RawClient
from tests.support.mqtt.harness import BrokerHarness, collect
from tests.support.processes import module_environment
from tests.support.waiting import TIMEOUT_SEC, wait_until


def _claimed(harness: BrokerHarness, **more: object) -> Job:
    job = harness.job(**more)
    claim = harness.registry.claim(worker="remote", job_id=job.job_id, lease_sec=None)
    assert claim is not None
    return claim.job


def _issue(harness: BrokerHarness, job: Job) -> Ticket:
    return issue_ticket(harness.registry, job.job_id, environment=harness.environment)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state" / "jobdb" / "tickets.db"


@pytest.fixture
def outbox(harness: BrokerHarness, state: Path) -> Iterator[TicketOutbox]:
    with TicketOutbox.open(_issue(harness, _claimed(harness, job_id="remote")), path=state) as opened:
        yield opened


def _deliver(outbox: TicketOutbox) -> int:
    return Relay(outbox, report=lambda text: None).run(until_empty=True, timeout_sec=TIMEOUT_SEC).delivered


# -- the file


def test_the_ticket_file_is_private_and_round_trips(harness: BrokerHarness, tmp_path: Path) -> None:
    ticket = _issue(harness, _claimed(harness))
    path = tmp_path / "job.ticket"
    write_ticket(ticket, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_ticket(path) == ticket
    with pytest.raises(InvalidInput, match="exists already"):
        write_ticket(ticket, path)


def test_secrets_are_only_in_the_ticket_file(harness: BrokerHarness, tmp_path: Path, state: Path) -> None:
    job = _claimed(harness, broker_password="a broker's password")
    ticket = _issue(harness, job)
    secrets = [str(ticket.token), "a broker's password"]
    assert all(secret in ticket.as_json() for secret in secrets)
    assert not any(secret in repr(ticket) for secret in secrets)
    with TicketOutbox.open(ticket, path=state) as outbox:
        outbox.publish("started")
    stored = b"".join(path.read_bytes() for path in state.parent.iterdir())
    assert not any(secret.encode() in stored for secret in secrets)
    assert state.stat().st_mode & 0o777 == 0o600 and state.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_may_read_is_refused(harness: BrokerHarness, tmp_path: Path, mode: int) -> None:
    path = tmp_path / "job.ticket"
    write_ticket(_issue(harness, _claimed(harness)), path)
    path.chmod(mode)
    with pytest.raises(InvalidInput, match="chmod 600"):
        read_ticket(path)


@pytest.mark.parametrize(
    "change",
    [
        {"jobdb_ticket": 2},
        {"job_id": "../x"},
        {"topic": 1},
        {"broker": {}},
        {"token": ""},
        {"token": None},
        {"kid": True},
        {"attempt": -1},
        {"next_seq": 0},
        {"next_seq": 2**60},
    ],
)
def test_an_invalid_ticket_file_is_refused_and_not_repeated(
    harness: BrokerHarness, tmp_path: Path, change: dict[str, object]
) -> None:
    ticket = _issue(harness, _claimed(harness))
    path = tmp_path / "job.ticket"
    path.touch(0o600)
    path.write_text(json.dumps(json.loads(ticket.as_json()) | change))
    with pytest.raises(InvalidInput) as caught:
        read_ticket(path)
    assert str(ticket.token) not in str(caught.value) and caught.value.__cause__ is None


def test_a_job_that_has_ended_or_has_no_broker_gets_no_ticket(harness: BrokerHarness) -> None:
    from jobdb.mqtt import Environment

    ended = harness.job()
    harness.registry.cancel(ended.job_id)
    with pytest.raises(IllegalTransition):
        _issue(harness, ended)
    local = harness.registry.register(agent="a", prompt="p")
    with pytest.raises(InvalidInput, match="no broker"):
        issue_ticket(harness.registry, local.job_id, environment=Environment.read({}))
    assert issue_ticket(harness.registry, local.job_id, environment=harness.environment).port == harness.settings.port


# -- the way


def test_a_remote_workers_events_arrive_signed_and_update_the_job(harness: BrokerHarness, outbox: TicketOutbox) -> None:
    with harness.follow() as follower:
        outbox.publish("started")
        outbox.publish("progress", detail="half", data={"pct": 50})
        outbox.publish("completed")
        assert outbox.count_pending() == 3
        assert _deliver(outbox) == 3
        found = collect(follower, 3)
    assert [(event.seq, event.event.value, event.attempt) for event in found] == [
        (1, "started", 1),
        (2, "progress", 1),
        (3, "completed", 1),
    ]
    assert found[1].data["pct"] == 50 and found[1].data["hmac_kid"] == 1
    assert harness.registry.get("remote").status is JobStatus.COMPLETED
    assert harness.refused() == {} and outbox.count_pending() == 0


def test_a_terminal_event_of_a_ticket_is_retained(harness: BrokerHarness, outbox: TicketOutbox) -> None:
    outbox.publish("error", detail="no disk")
    _deliver(outbox)
    with RawClient(harness.settings.port, topics=("jobdb/jobs/remote/events",)) as late:
        wait_until(lambda: late.received)
    assert late.received[0][2]


def test_a_ticket_continues_the_numbering_of_the_job(harness: BrokerHarness, state: Path) -> None:
    job = _claimed(harness)
    harness.registry.publish(job.job_id, "started", attempt=1)
    harness.registry.publish(job.job_id, "progress", attempt=1)
    with TicketOutbox.open(_issue(harness, job), path=state) as outbox:
        assert outbox.publish("progress").seq == 3


def test_nothing_is_published_after_the_end_on_the_same_ticket(outbox: TicketOutbox) -> None:
    outbox.publish("completed")
    with pytest.raises(IllegalTransition, match="ended with this ticket at seq 1"):
        outbox.publish("progress")
    assert outbox.count_pending() == 1


def test_an_event_that_cannot_be_built_uses_no_seq(outbox: TicketOutbox) -> None:
    with pytest.raises(InvalidInput):
        outbox.publish("progress", data={"hmac_sig": "mine"})
    with pytest.raises(InvalidInput):
        outbox.publish("dreaming")
    assert outbox.publish("progress").seq == 1


def test_an_older_attempts_ticket_is_refused_at_accept(harness: BrokerHarness, outbox: TicketOutbox) -> None:
    outbox.publish("progress", detail="before")
    with harness.follow() as follower:
        _deliver(outbox)
        collect(follower, 1)
        harness.registry.release("remote", attempt=1)
        harness.registry.claim(worker="another", job_id="remote", lease_sec=None)
        outbox.publish("completed", detail="from the grave")
        _deliver(outbox)
        wait_until(lambda: harness.refused() == {"stale_attempt": 1})
    job = harness.registry.get("remote")
    assert (job.status, job.attempt, job.last_seq, job.detail) == (JobStatus.RUNNING, 2, 1, "before")


def test_a_ticket_issued_after_a_rotation_uses_the_new_key(harness: BrokerHarness, state: Path) -> None:
    job = _claimed(harness)
    first = _issue(harness, job)
    with harness.follow() as follower:
        with TicketOutbox.open(first, path=state) as outbox:
            outbox.publish("started")
            outbox.publish("progress")
            _deliver(outbox)
        collect(follower, 2)
        harness.registry.engine.rotate_token(job.job_id, overlap_ms=60_000, token=None)
        second = _issue(harness, job)
        assert (second.kid, second.next_seq) == (2, 3)
        with TicketOutbox.open(second, path=state) as outbox:
            assert outbox.publish("completed").seq == 3
            _deliver(outbox)
        [event] = collect(follower, 1)
    assert event.data["hmac_kid"] == 2 and harness.refused() == {}


def test_undelivered_events_are_delivered_later(harness: BrokerHarness, state: Path, broker: object) -> None:
    job = _claimed(harness)
    ticket = _issue(harness, job)
    broker.stop()  # type: ignore[attr-defined]
    with TicketOutbox.open(ticket, path=state) as outbox:
        outbox.publish("started")
        in_vain = Relay(outbox, report=lambda text: None).run(until_empty=True, one_try=True, timeout_sec=TIMEOUT_SEC)
        assert in_vain.delivered == 0
    broker.start()  # type: ignore[attr-defined]
    with TicketOutbox.open(ticket, path=state) as outbox:
        assert outbox.count_pending() == 1 and _deliver(outbox) == 1 and outbox.count_pending() == 0


def test_processes_that_share_a_ticket_share_its_numbers(harness: BrokerHarness, state: Path, tmp_path: Path) -> None:
    ticket = _issue(harness, _claimed(harness, job_id="remote"))
    write_ticket(ticket, tmp_path / "job.ticket")
    command = worker_command("ticket-shouter", str(tmp_path / "job.ticket"), str(state), "40")
    workers = [subprocess.Popen(command, env=module_environment()) for _ in range(3)]
    assert [worker.wait(TIMEOUT_SEC) for worker in workers] == [0, 0, 0]
    with harness.follow() as follower, TicketOutbox.open(ticket, path=state) as outbox:
        outbox.publish("completed")
        with ThreadPoolExecutor(2) as pool:
            delivered = sum(pool.map(lambda _: _deliver(outbox), range(2)))
        assert delivered == 121
        assert [event.seq for event in collect(follower, 121)] == list(range(1, 122))
    assert harness.registry.get("remote").status is JobStatus.COMPLETED and harness.refused() == {}


class _UnlimitedQuota:
    def allowance(self, settings: object, job: int) -> tuple[int, int]:
        return 0, 1000

    def reserve(self, settings: object, events: int) -> None: ...

    def is_exhausted(self) -> bool:
        return False


def _publish_with_loss(outbox: TicketOutbox, follower: BrokerFollower) -> tuple[Event, Event]:
    """Publish three events, of which the second counts as delivered and never was; return the second and the third.

    So it is when a broker has acknowledged an event and then lost it.
    """
    outbox.publish("started")
    _deliver(outbox)
    collect(follower, 1)
    lost = outbox.publish("progress", detail="lost")
    [message] = outbox.read(_UnlimitedQuota())
    outbox.mark_delivered([message.number])
    after = outbox.publish("progress", detail="after")
    _deliver(outbox)
    return lost, after


def test_events_that_a_broker_lost_can_be_sent_again_and_a_window_accepts_them(
    harness: BrokerHarness, outbox: TicketOutbox
) -> None:
    with harness.follow(window=100) as follower:
        lost, _ = _publish_with_loss(outbox, follower)
        [after] = collect(follower, 1)
        assert after.seq == 3 and any("did not arrive" in line for line in harness.messages)
        assert outbox.resend() == 3
        _deliver(outbox)
        assert next(follower).payload == lost.payload
    assert harness.refused() == {}


def test_a_late_event_is_yielded_although_a_newer_one_is_being_handled(
    harness: BrokerHarness, outbox: TicketOutbox
) -> None:
    with harness.follow(window=100) as follower:
        lost, after = _publish_with_loss(outbox, follower)
        assert next(follower).payload == after.payload
        outbox.resend()
        _deliver(outbox)
        wait_until(lambda: [event.seq for event in harness.registry.events(lost.job_id)] == [1, 2, 3])
        assert next(follower).payload == lost.payload
        assert next(follower).payload == after.payload  # again, after the late event


def test_old_tickets_are_deleted_once_nothing_is_queued(harness: BrokerHarness, state: Path) -> None:
    now = [1_000_000_000_000]
    old = _issue(harness, _claimed(harness))
    with TicketOutbox.open(old, path=state, clock=lambda: now[0]) as outbox:
        outbox.publish("started")
        _deliver(outbox)
        outbox.publish("progress")
    now[0] += RETENTION_MS + 1
    new = _issue(harness, _claimed(harness))
    with TicketOutbox.open(new, path=state, clock=lambda: now[0]) as outbox:
        outbox.publish("started")
    with TicketOutbox.open(old, path=state, clock=lambda: now[0]) as outbox:
        assert outbox.count_pending() == 1, "it is still queued, so it stays"
        _deliver(outbox)
        assert outbox.next_seq() == 3
    now[0] += RETENTION_MS + 1
    with TicketOutbox.open(_issue(harness, _claimed(harness)), path=state, clock=lambda: now[0]) as outbox:
        outbox.publish("started")
    with TicketOutbox.open(old, path=state, clock=lambda: now[0]) as outbox:
        assert outbox.next_seq() == 1


def test_an_outbox_of_a_newer_version_or_another_program_is_refused(harness: BrokerHarness, tmp_path: Path) -> None:
    import apsw

    from jobdb import NotAJobdbDatabase

    ticket = _issue(harness, _claimed(harness))
    for name, statement, error in (
        ("newer.db", "PRAGMA user_version = 99", SchemaMismatch),
        ("other.db", "CREATE TABLE t (x)", NotAJobdbDatabase),
    ):
        connection = apsw.Connection(str(tmp_path / name))
        connection.execute(statement)
        connection.close()
        with pytest.raises(error):
            TicketOutbox.open(ticket, path=tmp_path / name)


def test_the_wal_of_a_removed_outbox_is_kept(harness: BrokerHarness, tmp_path: Path) -> None:
    ticket = _issue(harness, _claimed(harness))
    path = tmp_path / "state" / "tickets.db"
    with TicketOutbox.open(ticket, path=path) as outbox:
        outbox.publish("started")
    log = Path(f"{path}-wal").read_bytes()
    path.unlink()
    with pytest.warns(UserWarning, match="are kept as"), TicketOutbox.open(ticket, path=path) as outbox:
        assert outbox.count_pending() == 0
    assert [kept.read_bytes() for kept in path.parent.glob("*-wal") if kept.name.startswith("tickets.db.r")] == [log]


def test_the_outbox_is_in_the_users_state_folder() -> None:
    assert default_path({"XDG_STATE_HOME": "/s", "HOME": "/h"}) == Path("/s/jobdb/tickets.db")
    assert default_path({"XDG_STATE_HOME": "relative", "HOME": "/h"}) == Path("/h/.local/state/jobdb/tickets.db")
    assert default_path({"HOME": "/h"}) == Path("/h/.local/state/jobdb/tickets.db")


def test_a_ticket_outbox_is_refused_in_a_forked_child(outbox: TicketOutbox) -> None:
    from jobdb import ForkedRegistry

    child = os.fork()
    if child == 0:
        try:
            outbox.publish("progress")
        except ForkedRegistry:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
