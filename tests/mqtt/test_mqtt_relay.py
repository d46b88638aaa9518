"""Test the relay: order, acknowledgements, crashes, leadership, several brokers, refusals, draining."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobdb import Broker, EventKind, NewEvent
from jobdb.engines.sqlite.gate import gate_path
from jobdb.mqtt import BrokerSettings, RegistryOutbox, Relay
from jobdb.mqtt.paho_client import MQTT_311
from jobdb.mqtt.reconnecting import MAX_BACKOFF_SEC, ReconnectingConnection
from tests.support.keys import OTHER_MASTER_KEY, vault
from tests.support.mqtt.brokers import Mosquitto
from tests.support.mqtt.chaos import worker_command
from tests.support.mqtt.client import RawClient
from tests.support.mqtt.harness import BrokerHarness
from tests.support.ports import free_port
from tests.support.processes import module_environment
from tests.support.waiting import TIMEOUT_SEC, wait_until


def _received_seqs(client: RawClient) -> list[int]:
    import json

    return [json.loads(payload)["seq"] for _, payload, _ in client.received]


def test_unacknowledged_events_stay_queued_and_are_sent_again_in_order(
    harness: BrokerHarness, broker: Mosquitto
) -> None:
    job = harness.job()
    harness.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    for _ in range(40):
        harness.registry.publish(job.job_id, "progress", attempt=1)
    broker.stop()
    with harness.relaying() as relay:
        wait_until(lambda: any(channel.link.failed_attempts >= 3 for channel in list(relay._channels.values())))
    assert harness.registry.engine.outbox_size()[0] == 40
    assert sum("Connection refused" in line for line in harness.messages) == 1, "the same failure is reported once"
    broker.start()
    with RawClient(broker.port, topics=(job.topic,)) as listener:
        harness.deliver()
        wait_until(lambda: len(listener.received) == 40)
    assert _received_seqs(listener) == list(range(1, 41))


def test_only_acknowledged_events_are_marked_delivered(harness: BrokerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that dies between the acknowledgement and its mark in the outbox sends again; nothing is skipped."""
    job = harness.job()
    harness.run_job(job, events=5)
    with RawClient(harness.settings.port, topics=(job.topic,)) as listener:
        dying = harness.relay()
        monkeypatch.setattr(dying._outbox, "mark_delivered", lambda numbers: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            dying.run(until_empty=True, timeout_sec=TIMEOUT_SEC)
        assert harness.registry.engine.outbox_size()[0] == 5
        harness.deliver()
        # The dying relay may have sent any number of the five; the acknowledged ones are among them.
        wait_until(lambda: len(listener.received) > 5 and _received_seqs(listener)[-5:] == [1, 2, 3, 4, 5])
    assert list(dict.fromkeys(_received_seqs(listener))) == [1, 2, 3, 4, 5]


def test_only_one_relay_delivers_and_the_other_takes_over(harness: BrokerHarness) -> None:
    job = harness.job()
    harness.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    with harness.relaying() as first:
        harness.registry.publish(job.job_id, "progress", attempt=1)
        wait_until(lambda: harness.registry.engine.outbox_size()[0] == 0)
        assert not harness.relay().run(until_empty=True, timeout_sec=TIMEOUT_SEC).is_leader
        with harness.relaying():
            wait_until(lambda: any("another relay delivers" in line for line in harness.messages))
            first.stop()
            harness.registry.publish(job.job_id, "progress", attempt=1)
            wait_until(lambda: harness.registry.engine.outbox_size()[0] == 0)


def test_a_relay_that_slept_past_its_lease_sends_nothing(harness: BrokerHarness, tmp_path: Path) -> None:
    """It is stopped, and another takes over; when continued it must not send: its view of the outbox is old."""
    job = harness.job()
    harness.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    with RawClient(harness.settings.port, topics=(job.topic,)) as listener, open(tmp_path / "err", "wb") as errors:
        command = worker_command("relay", str(harness.path))
        sleeper = subprocess.Popen(command, stderr=errors, env=module_environment())
        try:
            harness.registry.publish(job.job_id, "progress", attempt=1)
            wait_until(lambda: harness.registry.engine.outbox_size()[0] == 0)
            _stop_outside_the_gate(sleeper, harness.path)
            with harness.relaying(lease_sec=TIMEOUT_SEC):
                for _ in range(20):
                    harness.registry.publish(job.job_id, "progress", attempt=1)
                wait_until(lambda: harness.registry.engine.outbox_size()[0] == 0)
                sleeper.send_signal(signal.SIGCONT)
                wait_until(lambda: b"waiting to take over" in (tmp_path / "err").read_bytes())
                harness.registry.publish(job.job_id, "progress", attempt=1)
                wait_until(lambda: harness.registry.engine.outbox_size()[0] == 0)
                wait_until(lambda: 22 in _received_seqs(listener))
        finally:
            sleeper.kill()
            sleeper.wait(TIMEOUT_SEC)
    received = _received_seqs(listener)
    # None after a later one. An immediate repetition is allowed: a lease of a second may expire on a slow disk.
    assert received == sorted(received) and set(received) == set(range(1, 23))


def _stop_outside_the_gate(process: subprocess.Popen[bytes], database: Path) -> None:
    """Stop the process at a moment when it holds no lock."""
    with open(gate_path(database), "rb") as gate:
        while True:
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            try:
                fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                process.send_signal(signal.SIGCONT)
                os.waitid(os.P_PID, process.pid, os.WCONTINUED)
                time.sleep(0.01)


def test_a_stopped_relay_delivers_what_is_queued(harness: BrokerHarness, broker: Mosquitto, tmp_path: Path) -> None:
    job = harness.job()
    harness.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    harness.registry.publish(job.job_id, "progress", attempt=1)
    relay = harness.relay(drain_sec=TIMEOUT_SEC)
    thread = threading.Thread(target=relay.run)
    thread.start()
    wait_until(lambda: any("connected" in line for line in harness.messages))
    for _ in range(200):
        harness.registry.publish(job.job_id, "progress", attempt=1)
    relay.stop()
    thread.join(TIMEOUT_SEC)
    assert not thread.is_alive()
    assert harness.registry.engine.outbox_size()[0] == 0
    assert harness.registry.engine.acquire_lease("relay", holder="next", lease_ms=1000), "the lease was released"


def test_a_broker_that_is_down_does_not_delay_other_brokers(
    harness: BrokerHarness, mosquitto: Callable[..., Mosquitto]
) -> None:
    other = mosquitto()
    dead = Broker("127.0.0.1", free_port())
    for _ in range(30):
        lost = harness.registry.register(agent="a", prompt="p", broker=dead)
        harness.registry.publish(lost.job_id, "started")
    jobs = [harness.job(), harness.registry.register(agent="a", prompt="p", broker=Broker("127.0.0.1", other.port))]
    with (
        RawClient(harness.settings.port, topics=("#",)) as here,
        RawClient(other.port, "other", topics=("#",)) as there,
        harness.relaying(),
    ):
        for job in jobs:
            harness.run_job(job, events=10)
        wait_until(lambda: len(here.received) == 10 and len(there.received) == 10)
        wait_until(lambda: harness.registry.engine.outbox_size()[0] == 30)
    assert {topic for topic, _, _ in here.received} == {jobs[0].topic}
    assert {topic for topic, _, _ in there.received} == {jobs[1].topic}


def test_many_jobs_share_the_connection_fairly(harness: BrokerHarness) -> None:
    busy, quiet = harness.job(), [harness.job() for _ in range(5)]
    for job in [busy, *quiet]:
        harness.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    harness.registry.publish_many([NewEvent(job_id=busy.job_id, event=EventKind.PROGRESS) for _ in range(1500)])
    for job in quiet:
        harness.registry.publish(job.job_id, "progress", attempt=1)
    with RawClient(harness.settings.port, topics=("jobdb/#",)) as listener:
        harness.deliver()
        wait_until(lambda: len(listener.received) == 1505)
    places = [place for place, (topic, _, _) in enumerate(listener.received) if topic != busy.topic]
    assert len(places) == 5 and max(places) < 1000


def test_a_refused_topic_is_reported_and_parks_only_its_job(
    tmp_path: Path, mosquitto: Callable[..., Mosquitto]
) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite jobdb/jobs/free/#\n")
    server = mosquitto(listener=f"acl_file {rules}")
    with BrokerHarness(tmp_path / "db" / "jobs.db", server.port) as harness:
        forbidden, free = harness.job(job_id="forbidden"), harness.job(job_id="free")
        harness.run_job(forbidden, events=3)
        harness.run_job(free, events=3)
        done = harness.relay().run(until_empty=True, one_try=True, timeout_sec=TIMEOUT_SEC)
        assert done.delivered == 3, harness.messages
        left = harness.registry.engine.outbox(after=0, limit=10)
        assert [delivery.job_id for delivery in left] == ["forbidden"] * 3
        assert sum("does not accept event" in line and "Not authorized" in line for line in harness.messages) == 1


def test_events_behind_a_refused_one_are_not_delivered_before_it(
    tmp_path: Path, mosquitto: Callable[..., Mosquitto]
) -> None:
    """Three are in flight and the broker accepts the first and the third: the third waits with the second."""
    server = mosquitto(lines="message_size_limit 1000")
    with BrokerHarness(tmp_path / "db" / "jobs.db", server.port) as harness:
        job, other = harness.job(job_id="one"), harness.job(job_id="other")
        for detail in ("small", "large" * 300, "small"):
            harness.registry.publish(job.job_id, "progress", detail=detail)
        harness.run_job(other, events=3)
        done = harness.relay().run(until_empty=True, one_try=True, timeout_sec=TIMEOUT_SEC)
        assert done.delivered == 4, harness.messages
        left = harness.registry.engine.outbox(after=0, limit=10)
        assert [(delivery.job_id, delivery.seq) for delivery in left] == [("one", 2), ("one", 3)]
        assert sum("does not accept event 2 of job one" in line for line in harness.messages) == 1


def test_acknowledgements_before_a_disconnect_count(harness: BrokerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mosquitto 2.0.11 refuses an event and disconnects at once."""
    job = harness.job()
    harness.run_job(job, events=3)
    relay = harness.relay()
    assert relay._keep_lease()
    wait_until(lambda: relay._step() and all(channel.in_flight for channel in relay._channels.values()))
    [channel] = relay._channels.values()
    wait_until(lambda: len(channel.acknowledged) == 3)
    assert channel.link.connection is not None
    channel.link.connection.close()
    with monkeypatch.context() as patched:
        patched.setattr(
            relay, "_mark_acknowledged", lambda: False
        )  # the answers arrive just after it has checked for them
        relay._step()
    assert channel.link.connection is None
    relay._mark_acknowledged()
    relay._shut_down(is_leader=True)
    assert harness.registry.engine.outbox_size()[0] == 0


def test_an_event_at_which_the_broker_disconnects_silently_parks_only_its_job(
    tmp_path: Path, mosquitto: Callable[..., Mosquitto], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MQTT 3.1.1 has no other way to refuse a message."""
    monkeypatch.setattr("jobdb.mqtt.reconnecting.MQTT_5", MQTT_311)
    server = mosquitto(lines="max_packet_size 2000")
    with BrokerHarness(tmp_path / "db" / "jobs.db", server.port) as harness:
        large, small = harness.job(job_id="large"), harness.job(job_id="small")
        for detail in ("x", "x" * 3000, "x"):
            harness.registry.publish(large.job_id, "progress", detail=detail)
        harness.run_job(small, events=50)
        with harness.relaying():
            wait_until(lambda: harness.registry.engine.outbox_size()[0] == 2)
            wait_until(
                lambda: any("does not accept event 2 of job large: it disconnects" in line for line in harness.messages)
            )
            harness.registry.publish(harness.job(job_id="later").job_id, "progress")
            wait_until(lambda: harness.registry.engine.outbox_size()[0] == 2)
        left = harness.registry.engine.outbox(after=0, limit=10)
        assert [(delivery.job_id, delivery.seq) for delivery in left] == [("large", 2), ("large", 3)]


def test_an_event_too_large_for_the_broker_is_reported(tmp_path: Path, mosquitto: Callable[..., Mosquitto]) -> None:
    server = mosquitto(lines="max_packet_size 2000")
    with BrokerHarness(tmp_path / "db" / "jobs.db", server.port) as harness:
        large, small = harness.job(job_id="large"), harness.job(job_id="small")
        harness.registry.publish("large", "progress", detail="x" * 3000)
        harness.run_job(small, events=2)
        assert harness.relay().run(until_empty=True, one_try=True, timeout_sec=TIMEOUT_SEC).delivered == 2
        assert any("job large" in line and "more than its limit of 2000" in line for line in harness.messages)
        assert large.topic not in "".join(harness.messages)


def test_a_password_that_cannot_be_decrypted_stops_only_its_job(harness: BrokerHarness) -> None:
    from jobdb import Registry

    locked = harness.job(job_id="locked", broker_password="a broker's password")
    free = harness.job(job_id="free")
    harness.registry.publish(locked.job_id, "progress")
    harness.run_job(free, events=2)
    with Registry.open(harness.path, vault=vault(OTHER_MASTER_KEY)) as elsewhere:
        outbox = RegistryOutbox(elsewhere.engine, environment=harness.environment, report=harness.messages.append)
        with harness.relaying(Relay(outbox, report=harness.messages.append)):
            wait_until(lambda: harness.registry.engine.outbox_size()[0] == 1)
    assert [delivery.job_id for delivery in harness.registry.engine.outbox(after=0, limit=10)] == ["locked"]
    assert sum("job locked" in line and "its events wait" in line for line in harness.messages) == 1


def test_a_large_backlog_of_a_dead_broker_is_cheap_to_check(harness: BrokerHarness) -> None:
    """It takes one index lookup for each of its jobs, however many events are queued."""
    from jobdb.mqtt.broker_channel import ChannelQuota

    dead = Broker("127.0.0.1", free_port())
    jobs = [harness.registry.register(agent="a", prompt="p", broker=dead).job_id for _ in range(3)]
    for job_id in jobs:
        harness.registry.publish_many([NewEvent(job_id=job_id, event=EventKind.PROGRESS) for _ in range(2000)])
    plan = "\n".join(_plan(harness, "undelivered_jobs", after=0, limit=500))
    assert "SCAN o" not in plan and "SEARCH o USING COVERING INDEX outbox_by_job" in plan
    relay = harness.relay()
    quota = ChannelQuota(relay._channels, relay._open_channel, 0.0)
    assert relay._outbox.read(quota) == [] and quota.has_backlog


def _plan(harness: BrokerHarness, name: str, **parameters: object) -> list[str]:
    from jobdb.engines.statements import Statement
    from jobdb.mqtt.statements import OUTBOX

    store = harness.registry.engine.store
    plan = Statement("the_plan", "EXPLAIN QUERY PLAN " + OUTBOX[name].text)
    with store.read() as tx:
        return [row[3] for row in tx.all(plan, **parameters)]


def test_pauses_between_attempts_grow_and_are_jittered() -> None:
    now, messages = [0.0], []
    link = ReconnectingConnection(
        BrokerSettings("127.0.0.1", free_port()),
        "id",
        wake=lambda: None,
        report=messages.append,
        clock=lambda: now[0],
        jitter=lambda: 0.5,
    )
    pauses = []
    for _ in range(10):
        link.poll()
        wait_until(lambda: not link._connector or not link._connector.is_alive())
        link.poll()
        pauses.append(link._retry_at - now[0])
        link.poll()
        assert not link.connecting, "no attempt before the end of the pause"
        now[0] = link._retry_at
    assert pauses[:3] == pytest.approx([0.15, 0.3, 0.6])
    assert pauses[-1] == pytest.approx(0.75 * MAX_BACKOFF_SEC)
    assert len(messages) == 1


def test_a_running_relay_delivers_each_event_at_once(harness: BrokerHarness) -> None:
    job = harness.job()
    harness.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    with RawClient(harness.settings.port, topics=(job.topic,)) as listener, harness.relaying():
        for number in range(1, 12):
            harness.registry.publish(job.job_id, "progress", attempt=1)
            wait_until(lambda wanted=number: len(listener.received) == wanted)  # type: ignore[misc]
