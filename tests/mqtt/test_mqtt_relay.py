"""The relay: order, acknowledgements, crashes, one at a time, several brokers, refusals, draining."""

from __future__ import annotations

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
from brokerkit.servers import Mosquitto, free_port

from jobdb import Broker, EventKind, NewEvent
from jobdb.mqtt import BrokerSettings, RegistryOutbox, Relay
from jobdb.mqtt.link import LONGEST_PAUSE_SEC, Link


def _heard_seqs(client: RawClient) -> list[int]:
    import json

    return [json.loads(payload)["seq"] for _, payload, _ in client.heard]


def test_what_the_broker_has_not_acknowledged_stays_and_is_sent_again_in_order(bench: Bench, broker: Mosquitto) -> None:
    job = bench.job()
    bench.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    for _ in range(40):
        bench.registry.publish(job.job_id, "progress", attempt=1)
    broker.stop()
    done = bench.relay().run(until_empty=True, timeout_sec=0.5)
    assert done.delivered == 0 and bench.registry.engine.outbox_size()[0] == 40
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
            sleeper.send_signal(signal.SIGSTOP)
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
    assert _heard_seqs(listener) == list(range(1, 23))


def test_sigterm_lets_it_deliver_what_waits(bench: Bench, broker: Mosquitto, tmp_path: Path) -> None:
    job = bench.job()
    bench.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    relay = bench.relay()
    thread = threading.Thread(target=relay.run)
    thread.start()
    until(lambda: any("connected" in line for line in bench.said) or bench.registry.publish(job.job_id, "progress"))
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
        done = bench.relay().run(until_empty=True, timeout_sec=2)
        assert done.delivered == 3
        left = bench.registry.engine.outbox(after=0, limit=10)
        assert [delivery.job_id for delivery in left] == ["forbidden"] * 3
        assert sum("does not take event" in line and "Not authorized" in line for line in bench.said) == 1


def test_an_event_that_is_too_large_for_the_broker_is_said(tmp_path: Path, mosquitto: Callable[..., Mosquitto]) -> None:
    server = mosquitto(lines="max_packet_size 2000")
    with Bench(tmp_path / "db" / "jobs.db", server.port) as bench:
        large, small = bench.job(job_id="large"), bench.job(job_id="small")
        bench.registry.publish("large", "progress", detail="x" * 3000)
        bench.run_job(small, events=2)
        assert bench.relay().run(until_empty=True, timeout_sec=1).delivered == 2
        assert any("job large" in line and "more than its limit of 2000" in line for line in bench.said)
        assert large.topic not in "".join(bench.said)


def test_a_password_that_cannot_be_opened_stops_only_its_job(bench: Bench) -> None:
    from jobdb import Registry, Vault
    from jobdb.masterkey import MasterKey

    locked = bench.job(job_id="locked", broker_password="a broker's password")
    free = bench.job(job_id="free")
    bench.registry.publish(locked.job_id, "progress")
    bench.run_job(free, events=2)
    with Registry.open(bench.path, vault=Vault(MasterKey(b"z" * 32, "another key"))) as elsewhere:
        outbox = RegistryOutbox(elsewhere.engine, environment=bench.environment, report=bench.said.append)
        assert Relay(outbox, report=bench.said.append).run(until_empty=True, timeout_sec=2).delivered == 2
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
    from jobdb.engines.statements import read_statements
    from jobdb.mqtt.outbox import STATEMENTS

    store = bench.registry.engine.store
    store._statements["the_plan"] = "EXPLAIN QUERY PLAN " + read_statements(STATEMENTS)[name]  # type: ignore[attr-defined]
    with store.read() as tx:
        return [row[3] for row in tx.all("the_plan", **parameters)]


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


def test_latency_of_a_running_relay_is_short(bench: Bench) -> None:
    job = bench.job()
    bench.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    with RawClient(bench.settings.port, topics=(job.topic,)) as listener, bench.relaying():
        bench.registry.publish(job.job_id, "progress", attempt=1)
        until(lambda: len(listener.heard) == 1)
        began = time.monotonic()
        for number in range(2, 12):
            bench.registry.publish(job.job_id, "progress", attempt=1)
            until(lambda wanted=number: len(listener.heard) == wanted)  # type: ignore[misc]
        assert time.monotonic() - began < LIMIT_SEC / 2
