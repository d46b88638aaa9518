"""Test floods by a client without a token: memory stays bounded, and genuine events arrive."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from jobdb import EventKind, Registry
from jobdb.core.protocol import MAX_PAYLOAD_BYTES, build
from jobdb.core.protocol.topics import is_valid_topic
from jobdb.mqtt.connection import OVERSIZED_PAYLOAD, Connection, Message
from jobdb.mqtt.inbox import Inbox, InboxFull
from tests.support.mqtt.client import RawClient
from tests.support.mqtt.harness import BrokerHarness, collect
from tests.support.waiting import TIMEOUT_SEC, wait_until

HEAD = (
    '{"schema_version":1,"seq":1,"job_id":"nosuch","event":"progress",'
    '"timestamp":"2026-06-19T09:32:00Z","detail":"","data":'
)


def costly(item: str) -> bytes:
    capacity = MAX_PAYLOAD_BYTES - len(HEAD) - 20
    return f'{HEAD}{{"x":[{",".join([item] * (capacity // (len(item) + 1)))}]}}}}'.encode()


def message(qos: int, size: int = 0, mid: int = 0) -> Message:
    return Message(cast("Connection", None), mid, "t", b"x" * size, False, qos)


# -- the inbox


def test_at_qos_0_messages_beyond_the_quota_are_dropped_and_counted() -> None:
    inbox = Inbox(max_messages=3, max_bytes=(10_000, 10_000))
    for _ in range(5):
        inbox.put(message(0))
    assert (len(inbox), inbox.pop_dropped_count(), inbox.pop_dropped_count()) == (3, 2, 0)
    inbox.remove(3)
    for _ in range(5):
        inbox.put(message(0, size=9_000))
    assert (len(inbox), inbox.pop_dropped_count()) == (2, 3)


def test_a_flood_at_qos_0_does_not_use_the_quota_of_qos_1() -> None:
    inbox = Inbox(max_messages=3, max_bytes=(10_000, 10_000), max_wait_sec=0.01)
    for _ in range(5):
        inbox.put(message(0, size=9_000))
    for mid in (1, 2, 3):
        inbox.put(message(1, mid=mid))
    assert [one.mid for one in inbox.peek(10, 10**6) if one.qos] == [1, 2, 3]


def test_at_qos_1_the_network_thread_waits_for_quota_up_to_a_limit() -> None:
    inbox = Inbox(max_messages=1, max_wait_sec=TIMEOUT_SEC)
    inbox.put(message(1, mid=1))
    waiting = threading.Thread(target=inbox.put, args=(message(1, mid=2),))
    waiting.start()
    inbox.remove(1)
    waiting.join(TIMEOUT_SEC)
    assert [one.mid for one in inbox.peek(10, 10)] == [2]
    hasty = Inbox(max_messages=1, max_wait_sec=0.01)
    hasty.put(message(1))
    with pytest.raises(InboxFull, match="1 messages wait"):
        hasty.put(message(1))


def test_a_waiting_put_returns_when_the_inbox_is_closed() -> None:
    inbox = Inbox(max_messages=1, max_wait_sec=TIMEOUT_SEC)
    inbox.put(message(1))
    waiting = threading.Thread(target=inbox.put, args=(message(1),))
    waiting.start()
    inbox.close()
    waiting.join(TIMEOUT_SEC)
    assert not waiting.is_alive()


def test_a_batch_is_bounded_by_number_and_bytes() -> None:
    inbox = Inbox()
    for mid in range(5):
        inbox.put(message(1, size=1000, mid=mid))
    assert [one.mid for one in inbox.peek(2, 10**6)] == [0, 1]
    assert [one.mid for one in inbox.peek(10, 4000)] == [0, 1]
    assert [one.mid for one in inbox.peek(10, 1)] == [0]
    inbox.remove(2)
    assert [one.mid for one in inbox.peek(10, 10**6)] == [2, 3, 4]


# -- with a broker


def hold_write_lock(harness: BrokerHarness) -> Callable[[], None]:
    """Hold the write lock; return a function that releases it."""
    hold, held = threading.Event(), threading.Event()

    def run() -> None:
        with Registry.open(harness.path, vault=harness.vault) as other, other.engine.store.write():
            held.set()
            hold.wait(TIMEOUT_SEC)

    def release() -> None:
        hold.set()
        thread.join(TIMEOUT_SEC)

    thread = threading.Thread(target=run)
    thread.start()
    assert held.wait(TIMEOUT_SEC)
    return release


def test_a_flood_while_nothing_can_be_accepted(harness: BrokerHarness) -> None:
    job = harness.job(job_id="ours")
    harness.registry.claim(worker="w", job_id="ours", lease_sec=None)
    raw = [costly(item) for item in ("1.5", "[[[]]]", '{"":0}')]
    with harness.follow() as follower, RawClient(harness.settings.port) as client:
        release_write_lock = hold_write_lock(harness)
        inbox = follower._consumer._inbox
        for number in range(80):
            last = client._client.publish("jobdb/jobs/ours/events", raw[number % 3], qos=0)
        last.wait_for_publish(TIMEOUT_SEC)
        client.publish(job.topic, "{")  # arrives after all of them
        wait_until(lambda: any(one.payload == b"{" for one in inbox.peek(10**6, 10**9)))
        assert sum(len(one.payload) for one in inbox.peek(10**6, 10**9)) < 10 * 1_048_576
        release_write_lock()
        harness.registry.publish("ours", "progress", attempt=1)
        harness.deliver()
        assert [event.seq for event in collect(follower, 1)] == [1]
        wait_until(lambda: any(line.startswith("dropped: ") for line in harness.messages))
    assert set(harness.refused()) == {"malformed"}


def test_at_qos_1_messages_beyond_the_quota_are_delivered_again(harness: BrokerHarness) -> None:
    """The connection is closed without an acknowledgement, and the broker sends the message again."""
    job = harness.job(job_id="ours")
    token = harness.registry.tokens.show("ours")
    lines = [
        build(
            job_id="ours", seq=seq, event=EventKind.PROGRESS, timestamp="2026-06-19T09:32:00Z", detail="x" * 1000,
            data={}, attempt=None, kid=1, token=token,
        ).text
        for seq in range(1, 16)
    ]  # fmt: skip
    with harness.follow() as follower, RawClient(harness.settings.port) as client:
        inbox = follower._consumer._inbox
        inbox._max_bytes, inbox._max_wait_sec = (5000, 5000), 0.1
        release_write_lock = hold_write_lock(harness)
        connection = follower._consumer._link.connection
        assert connection is not None
        for line in lines:
            client.publish(job.topic, line)
        assert connection.ended.wait(TIMEOUT_SEC) and "InboxFull" in connection.close_reason
        assert len(inbox) < len(lines)
        release_write_lock()
        assert [event.seq for event in collect(follower, 15)] == list(range(1, 16))
    assert harness.refused() == {}


def test_an_oversized_message_is_not_kept_and_stops_nothing(harness: BrokerHarness) -> None:
    """An MQTT 5 broker does not even send it; an MQTT 3.1.1 broker does."""
    harness.job(job_id="ours")
    harness.registry.claim(worker="w", job_id="ours", lease_sec=None)
    with harness.follow() as follower, RawClient(harness.settings.port) as client:
        client.publish("jobdb/jobs/ours/events", b"x" * 1_000_000)
        harness.registry.publish("ours", "progress", attempt=1)
        harness.deliver()
        assert [event.seq for event in collect(follower, 1)] == [1]
    assert harness.refused() in ({}, {"malformed": 1})


def test_the_content_of_an_oversized_message_is_dropped_in_the_network_thread() -> None:
    import paho.mqtt.client as paho

    from jobdb.mqtt import BrokerSettings

    taken: list[Message] = []
    options: dict[str, Any] = {"version": 5, "session_sec": 0, "on_acknowledged": None, "on_end": lambda: None}
    connection = Connection(BrokerSettings("127.0.0.1", 1), "c", on_message=taken.append, **options)
    for size in (MAX_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES + 1, 10_000_000):
        received = paho.MQTTMessage(mid=1, topic=b"t")
        received.payload = bytes(size)
        connection._received(None, None, received)
    assert [one.payload is OVERSIZED_PAYLOAD for one in taken] == [False, True, True]


# -- topics that MQTT does not allow, from imported records


@pytest.mark.parametrize("topic", ["", "a/#", "a/+/b", "a\0b", "$SYS/x", "$share/g/t", "\ud800", "x" * 65_536])
def test_invalid_topics(topic: str) -> None:
    assert not is_valid_topic(topic)
    assert is_valid_topic("jobdb/jobs/a b/\u00e9/events") and is_valid_topic("x" * 65_535)


def _give_topics(harness: BrokerHarness, topics: dict[str, str]) -> None:
    with harness.registry.engine.store.write() as tx:
        for job_id, topic in topics.items():
            cast("Any", tx)._execute("UPDATE jobs SET topic_prefix = ? WHERE job_id = ?", (topic, job_id))


@pytest.mark.parametrize("alone", [False, True])
def test_a_job_with_an_unusable_topic_stops_no_subscriber(harness: BrokerHarness, alone: bool) -> None:
    bad = {"wild": "old/#", "plus": "old/+/x", "nul": "old\0x", "shared": "$share/g/x"}
    for job_id in [*bad, "good"]:
        harness.registry.register(agent="a", prompt="", job_id=job_id)
        harness.registry.publish(job_id, "progress")
    _give_topics(harness, bad)
    options: dict[str, Callable[..., Any] | float] = {"grace_sec": 0.2}
    if alone:
        with harness.follow("wild", listening=False, **options) as follower:
            assert [event.seq for event in collect(follower, 1)] == [1]
            wait_until(lambda: any("not a valid MQTT topic" in line for line in harness.messages))
        assert sum("not a valid MQTT topic" in line for line in harness.messages) == 1
        return
    with harness.follow(**options) as follower:
        assert {event.job_id for event in collect(follower, len(bad) + 1)} == {*bad, "good"}
        harness.registry.publish("good", "progress")
        assert collect(follower, 1)[0].job_id == "good"
    assert sum("not a valid MQTT topic" in line for line in harness.messages) == len(bad)
    assert all(len(line) < 500 for line in harness.messages)


def test_a_job_with_an_unusable_topic_stops_no_relay(harness: BrokerHarness) -> None:
    for job_id in ("wild", "nul", "good"):
        harness.job(job_id=job_id)
    _give_topics(harness, {"wild": "old/#", "nul": "old\0x"})
    with harness.follow("good") as follower, harness.relaying():
        for job_id in ("wild", "nul", "good"):
            harness.registry.publish(job_id, "progress")
        assert [event.seq for event in collect(follower, 1)] == [1]
        wait_until(lambda: sum("not a valid MQTT topic" in line for line in harness.messages) >= 2)
    assert {delivery.job_id for delivery in harness.registry.engine.outbox(after=0, limit=9)} == {"wild", "nul"}
