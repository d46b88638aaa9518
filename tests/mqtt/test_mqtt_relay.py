"""The relay: order, acknowledgements, crashes, one at a time, several brokers, refusals, draining."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from brokerkit.chaos import WORKERS
from brokerkit.registries import LIMIT_SEC, Bench, RawClient, until
from brokerkit.servers import Mosquitto

from jobdb import Broker, EventKind, NewEvent
from jobdb.engines.sqlite.gate import gate_path
from jobdb.mqtt import BrokerSettings, RegistryOutbox, Relay
from jobdb.mqtt.connection import MQTT_311
from jobdb.mqtt.link import LONGEST_PAUSE_SEC, Link
from tests.ports import free_port


def _heard_seqs(client: RawClient) -> list[int]:
    import json

    return [json.loads(payload)["seq"] for _, payload, _ in client.heard]


def test_what_the_broker_has_not_acknowledged_stays_and_is_sent_again_in_order(bench: Bench, broker: Mosquitto) -> None:
    job = bench.job()
    bench.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    for _ in range(40):
        bench.registry.publish(job.job_id, "progress", attempt=1)
    broker.stop()
    with bench.relaying() as relay:
        until(lambda: any(lane.link.attempts >= 3 for lane in list(relay._lanes.values())))
    assert bench.registry.engine.outbox_size()[0] == 40
    assert sum("Connection refused" in line for line in bench.said) == 1, "the same failure is said once"
    broker.start()
    with RawClient(broker.port, topics=(job.topic,)) as listener:
        bench.deliver()
        until(lambda: len(listener.heard) == 40)
    assert _heard_seqs(listener) == list(range(1, 41))


def test_marks_only_what_was_acknowledged(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that dies between the broker's answer and its own note sends again; nothing is skipped."""
    job = bench.job()
    bench.run_job(job, events=5)
    with RawClient(bench.settings.port, topics=(job.topic,)) as listener:
        dying = bench.relay()
        monkeypatch.setattr(dying._outbox, "mark", lambda numbers: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            dying.run(until_empty=True, timeout_sec=LIMIT_SEC)
        assert bench.registry.engine.outbox_size()[0] == 5
        bench.deliver()
        # How many of its five the dying one got through is nobody's promise; what was acknowledged is among them.
        until(lambda: len(listener.heard) > 5 and _heard_seqs(listener)[-5:] == [1, 2, 3, 4, 5])
    assert list(dict.fromkeys(_heard_seqs(listener))) == [1, 2, 3, 4, 5]


def test_only_one_relay_delivers_and_the_other_takes_over(bench: Bench) -> None:
    job = bench.job()
    bench.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    with bench.relaying() as first:
        bench.registry.publish(job.job_id, "progress", attempt=1)
        until(lambda: bench.registry.engine.outbox_size()[0] == 0)
        assert not bench.relay().run(until_empty=True, timeout_sec=LIMIT_SEC).in_charge
        with bench.relaying():
            until(lambda: any("another relay delivers" in line for line in bench.said))
            first.stop()
            bench.registry.publish(job.job_id, "progress", attempt=1)
            until(lambda: bench.registry.engine.outbox_size()[0] == 0)


def test_a_relay_that_slept_through_its_lease_sends_nothing_old(bench: Bench, tmp_path: Path) -> None:
    """It is stopped, another takes over and goes on; woken, it must not send: its view of the outbox is old."""
    job = bench.job()
    bench.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    with RawClient(bench.settings.port, topics=(job.topic,)) as listener, open(tmp_path / "err", "wb") as errors:
        sleeper = subprocess.Popen([sys.executable, str(WORKERS), "relay", str(bench.path)], stderr=errors)
        try:
            bench.registry.publish(job.job_id, "progress", attempt=1)
            until(lambda: bench.registry.engine.outbox_size()[0] == 0)
            _stop_outside_the_gate(sleeper, bench.path)
            with bench.relaying(lease_sec=LIMIT_SEC):
                for _ in range(20):
                    bench.registry.publish(job.job_id, "progress", attempt=1)
                until(lambda: bench.registry.engine.outbox_size()[0] == 0)
                sleeper.send_signal(signal.SIGCONT)
                until(lambda: b"waiting to take over" in (tmp_path / "err").read_bytes())
                bench.registry.publish(job.job_id, "progress", attempt=1)
                until(lambda: bench.registry.engine.outbox_size()[0] == 0)
                until(lambda: 22 in _heard_seqs(listener))
        finally:
            sleeper.kill()
            sleeper.wait(LIMIT_SEC)
    heard = _heard_seqs(listener)
    # None after a later one. The same again at once is allowed: a lease of a second may run out on a slow disk.
    assert heard == sorted(heard) and set(heard) == set(range(1, 23))


def _stop_outside_the_gate(process: subprocess.Popen[bytes], database: Path) -> None:
    """Stops it at a moment when nobody has to wait for it."""
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


def test_sigterm_lets_it_deliver_what_waits(bench: Bench, broker: Mosquitto, tmp_path: Path) -> None:
    job = bench.job()
    bench.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    bench.registry.publish(job.job_id, "progress", attempt=1)
    relay = bench.relay(drain_sec=LIMIT_SEC)
    thread = threading.Thread(target=relay.run)
    thread.start()
    until(lambda: any("connected" in line for line in bench.said))
    for _ in range(200):
        bench.registry.publish(job.job_id, "progress", attempt=1)
    relay.stop()
    thread.join(LIMIT_SEC)
    assert not thread.is_alive()
    assert bench.registry.engine.outbox_size()[0] == 0
    assert bench.registry.engine.take_lease("relay", holder="next", lease_ms=1000), "the lease was given back"


def test_a_broker_that_is_down_keeps_nobody_elses_events(bench: Bench, mosquitto: Callable[..., Mosquitto]) -> None:
    other = mosquitto()
    dead = Broker("127.0.0.1", free_port())
    for _ in range(30):
        lost = bench.registry.register(agent="a", prompt="p", broker=dead)
        bench.registry.publish(lost.job_id, "started")
    jobs = [bench.job(), bench.registry.register(agent="a", prompt="p", broker=Broker("127.0.0.1", other.port))]
    with (
        RawClient(bench.settings.port, topics=("#",)) as here,
        RawClient(other.port, "other", topics=("#",)) as there,
        bench.relaying(),
    ):
        for job in jobs:
            bench.run_job(job, events=10)
        until(lambda: len(here.heard) == 10 and len(there.heard) == 10)
        until(lambda: bench.registry.engine.outbox_size()[0] == 30)
    assert {topic for topic, _, _ in here.heard} == {jobs[0].topic}
    assert {topic for topic, _, _ in there.heard} == {jobs[1].topic}


def test_many_jobs_share_the_way_fairly(bench: Bench) -> None:
    busy, quiet = bench.job(), [bench.job() for _ in range(5)]
    for job in [busy, *quiet]:
        bench.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    bench.registry.publish_many([NewEvent(job_id=busy.job_id, event=EventKind.PROGRESS) for _ in range(1500)])
    for job in quiet:
        bench.registry.publish(job.job_id, "progress", attempt=1)
    with RawClient(bench.settings.port, topics=("jobdb/#",)) as listener:
        bench.deliver()
        until(lambda: len(listener.heard) == 1505)
    places = [place for place, (topic, _, _) in enumerate(listener.heard) if topic != busy.topic]
    assert len(places) == 5 and max(places) < 1000


def test_a_refused_topic_is_said_and_parks_its_job_alone(tmp_path: Path, mosquitto: Callable[..., Mosquitto]) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite jobdb/jobs/free/#\n")
    server = mosquitto(listener=f"acl_file {rules}")
    with Bench(tmp_path / "db" / "jobs.db", server.port) as bench:
        forbidden, free = bench.job(job_id="forbidden"), bench.job(job_id="free")
        bench.run_job(forbidden, events=3)
        bench.run_job(free, events=3)
        done = bench.relay().run(until_empty=True, one_try=True, timeout_sec=LIMIT_SEC)
        assert done.delivered == 3, bench.said
        left = bench.registry.engine.outbox(after=0, limit=10)
        assert [delivery.job_id for delivery in left] == ["forbidden"] * 3
        assert sum("does not take event" in line and "Not authorized" in line for line in bench.said) == 1


def test_what_is_behind_a_refused_event_is_not_delivered_before_it(
    tmp_path: Path, mosquitto: Callable[..., Mosquitto]
) -> None:
    """Three are on their way and the broker takes the first and the third: the third waits with the second."""
    server = mosquitto(lines="message_size_limit 1000")
    with Bench(tmp_path / "db" / "jobs.db", server.port) as bench:
        job, other = bench.job(job_id="one"), bench.job(job_id="other")
        for detail in ("small", "large" * 300, "small"):
            bench.registry.publish(job.job_id, "progress", detail=detail)
        bench.run_job(other, events=3)
        done = bench.relay().run(until_empty=True, one_try=True, timeout_sec=LIMIT_SEC)
        assert done.delivered == 4, bench.said
        left = bench.registry.engine.outbox(after=0, limit=10)
        assert [(delivery.job_id, delivery.seq) for delivery in left] == [("one", 2), ("one", 3)]
        assert sum("does not take event 2 of job one" in line for line in bench.said) == 1


def test_what_a_broker_said_before_it_hung_up_counts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mosquitto 2.0.11 refuses an event and hangs up at once."""
    job = bench.job()
    bench.run_job(job, events=3)
    relay = bench.relay()
    assert relay._keep_lease()
    until(lambda: relay._step() and all(lane.in_flight for lane in relay._lanes.values()))
    [lane] = relay._lanes.values()
    until(lambda: len(lane.acknowledged) == 3)
    assert lane.link.connection is not None
    lane.link.connection.close()
    with monkeypatch.context() as patched:
        patched.setattr(relay, "_mark", lambda: False)  # the answers come just behind its look at them
        relay._step()
    assert lane.link.connection is None
    relay._mark()
    relay._end(in_charge=True)
    assert bench.registry.engine.outbox_size()[0] == 0


def test_an_event_at_which_the_broker_hangs_up_without_a_word_parks_its_job_alone(
    tmp_path: Path, mosquitto: Callable[..., Mosquitto], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MQTT 3.1.1 has no other way to say no."""
    monkeypatch.setattr("jobdb.mqtt.link.MQTT_5", MQTT_311)
    server = mosquitto(lines="max_packet_size 2000")
    with Bench(tmp_path / "db" / "jobs.db", server.port) as bench:
        large, small = bench.job(job_id="large"), bench.job(job_id="small")
        for detail in ("x", "x" * 3000, "x"):
            bench.registry.publish(large.job_id, "progress", detail=detail)
        bench.run_job(small, events=50)
        with bench.relaying():
            until(lambda: bench.registry.engine.outbox_size()[0] == 2)
            until(lambda: any("does not take event 2 of job large: it hangs up" in line for line in bench.said))
            bench.registry.publish(bench.job(job_id="later").job_id, "progress")
            until(lambda: bench.registry.engine.outbox_size()[0] == 2)
        left = bench.registry.engine.outbox(after=0, limit=10)
        assert [(delivery.job_id, delivery.seq) for delivery in left] == [("large", 2), ("large", 3)]


def test_an_event_that_is_too_large_for_the_broker_is_said(tmp_path: Path, mosquitto: Callable[..., Mosquitto]) -> None:
    server = mosquitto(lines="max_packet_size 2000")
    with Bench(tmp_path / "db" / "jobs.db", server.port) as bench:
        large, small = bench.job(job_id="large"), bench.job(job_id="small")
        bench.registry.publish("large", "progress", detail="x" * 3000)
        bench.run_job(small, events=2)
        assert bench.relay().run(until_empty=True, one_try=True, timeout_sec=LIMIT_SEC).delivered == 2
        assert any("job large" in line and "more than its limit of 2000" in line for line in bench.said)
        assert large.topic not in "".join(bench.said)


def test_a_password_that_cannot_be_opened_stops_only_its_job(bench: Bench) -> None:
    from jobdb import Registry, Vault
    from jobdb.crypto.master_key import MasterKey

    locked = bench.job(job_id="locked", broker_password="a broker's password")
    free = bench.job(job_id="free")
    bench.registry.publish(locked.job_id, "progress")
    bench.run_job(free, events=2)
    with Registry.open(bench.path, vault=Vault(MasterKey(b"z" * 32, "another key"))) as elsewhere:
        outbox = RegistryOutbox(elsewhere.engine, environment=bench.environment, report=bench.said.append)
        with bench.relaying(Relay(outbox, report=bench.said.append)):
            until(lambda: bench.registry.engine.outbox_size()[0] == 1)
    assert [delivery.job_id for delivery in bench.registry.engine.outbox(after=0, limit=10)] == ["locked"]
    assert sum("job locked" in line and "its events wait" in line for line in bench.said) == 1


def test_a_cheap_look_at_a_large_backlog_of_a_dead_broker(bench: Bench) -> None:
    """One step of an index for each of its jobs, however many events wait."""
    from jobdb.mqtt.relay import _Room

    dead = Broker("127.0.0.1", free_port())
    jobs = [bench.registry.register(agent="a", prompt="p", broker=dead).job_id for _ in range(3)]
    for job_id in jobs:
        bench.registry.publish_many([NewEvent(job_id=job_id, event=EventKind.PROGRESS) for _ in range(2000)])
    plan = "\n".join(_plan(bench, "waiting_jobs", after=0, limit=500))
    assert "SCAN o" not in plan and "SEARCH o USING COVERING INDEX outbox_by_job" in plan
    relay = bench.relay()
    room = _Room(relay, relay._lanes, 0.0)
    assert relay._outbox.read(room) == [] and room.somebody_waits


def _plan(bench: Bench, name: str, **parameters: object) -> list[str]:
    from jobdb.engines.statements import Statement
    from jobdb.mqtt.outbox import RELAY

    store = bench.registry.engine.store
    plan = Statement("the_plan", "EXPLAIN QUERY PLAN " + RELAY[name].text)
    with store.read() as tx:
        return [row[3] for row in tx.all(plan, **parameters)]


def test_pauses_between_attempts_grow_and_are_jittered() -> None:
    now, said = [0.0], []
    link = Link(
        BrokerSettings("127.0.0.1", free_port()),
        "id",
        wake=lambda: None,
        report=said.append,
        clock=lambda: now[0],
        jitter=lambda: 0.5,
    )
    pauses = []
    for _ in range(10):
        link.tend()
        until(lambda: not link._connector or not link._connector.is_alive())
        link.tend()
        pauses.append(link._retry_at - now[0])
        link.tend()
        assert not link.connecting, "no attempt before the pause is over"
        now[0] = link._retry_at
    assert pauses[:3] == pytest.approx([0.15, 0.3, 0.6])
    assert pauses[-1] == pytest.approx(0.75 * LONGEST_PAUSE_SEC)
    assert len(said) == 1


def test_a_running_relay_brings_each_event_as_it_comes(bench: Bench) -> None:
    job = bench.job()
    bench.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    with RawClient(bench.settings.port, topics=(job.topic,)) as listener, bench.relaying():
        for number in range(1, 12):
            bench.registry.publish(job.job_id, "progress", attempt=1)
            until(lambda wanted=number: len(listener.heard) == wanted)  # type: ignore[misc]
