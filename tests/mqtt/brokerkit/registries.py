"""A registry whose jobs go to a test's broker, and what tests do to it: relay, follow, speak raw MQTT."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from jobdb import Broker, Event, Job, Registry, Vault
from jobdb.crypto.master_key import MasterKey
from jobdb.mqtt import BrokerFollower, BrokerSettings, Environment, RegistryOutbox, Relay, subscribe

TIMEOUT_SEC = 60.0


def wait_until(condition: Callable[[], Any], *, limit_sec: float = TIMEOUT_SEC) -> Any:
    """Waits until ``condition`` is true and returns it."""
    deadline = time.monotonic() + limit_sec
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {limit_sec} s"
        time.sleep(0.01)


class BrokerHarness:
    """A registry and how its broker is reached."""

    def __init__(self, path: Path | str, port: int, **settings: Any) -> None:
        self.path = path
        self.vault = Vault(MasterKey(b"k" * 32, "the test"))
        self.registry = Registry.open(path, create=True, vault=self.vault)
        self.settings = BrokerSettings("127.0.0.1", port, **settings)
        self.environment = Environment(self.settings, self.settings.ca_certs, self.settings.prefix)
        self.said: list[str] = []

    def close(self) -> None:
        self.registry.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def job(self, **more: Any) -> Job:
        """A new job whose events go to the broker."""
        record = Broker(self.settings.host, self.settings.port, self.settings.tls, self.settings.username)
        return self.registry.register(agent="codex", prompt="sort", broker=record, **more)

    def run_job(self, job: Job, events: int = 3) -> None:
        """Claims it and says so many things, the last of which is that it is completed."""
        claim = self.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
        assert claim is not None
        for number in range(events - 1):
            self.registry.publish(job.job_id, "progress", detail=f"step {number}", attempt=claim.attempt)
        self.registry.complete(job.job_id, attempt=claim.attempt)

    def relay(self, **how: Any) -> Relay:
        outbox = RegistryOutbox(self.registry.engine, environment=self.environment, report=self.said.append)
        return Relay(outbox, report=self.said.append, **how)

    def deliver(self) -> None:
        """Everything that waits goes to the broker now."""
        done = self.relay().run(until_empty=True, timeout_sec=TIMEOUT_SEC)
        assert done.is_leader and self.registry.engine.outbox_size()[0] == 0, self.said

    @contextmanager
    def relaying(self, relay: Relay | None = None, **how: Any) -> Iterator[Relay]:
        """A relay in the background: a given one, or the registry's."""
        relay = self.relay(**how) if relay is None else relay
        thread = threading.Thread(target=relay.run)
        thread.start()
        try:
            yield relay
        finally:
            relay.stop()
            thread.join(TIMEOUT_SEC)
            assert not thread.is_alive()

    def follow(
        self, job_id: str | None = None, *, subscriber: str = "watcher", listening: bool = True, **how: Any
    ) -> BrokerFollower:
        """Follows over the broker; subscribed when this returns, unless nobody is ``listening``."""
        how.setdefault("timeout_sec", TIMEOUT_SEC)
        # The database steps in after so long that only the broker can have brought what a test sees.
        how.setdefault("grace_sec", 600.0)
        received: list[str] = []

        def report(text: str) -> None:
            self.said.append(text)
            received.append(text)

        follower = subscribe(self.registry, job_id, subscriber=subscriber, settings=self.settings, report=report, **how)
        if listening:
            wait_until(lambda: any(text.startswith("subscribed to") for text in received))
        return follower

    def refused(self) -> dict[str, int]:
        return {verdict.value: count for verdict, count in self.registry.verdict_counts().items()}


def collect(follower: BrokerFollower, count: int) -> list[Event]:
    """So many events, each handled."""
    found = []
    for event in follower:
        found.append(event)
        if len(found) == count:
            follower.handled()
            break
    return found


def seqs(events: list[Event]) -> dict[str, list[int]]:
    """The seqs by job, in the order of arrival."""
    found: dict[str, list[int]] = {}
    for event in events:
        found.setdefault(event.job_id, []).append(event.seq)
    return found


class RawClient:
    """A third party at the broker: publishes what it likes and records what it hears."""

    def __init__(self, port: int, name: str = "third", *, topics: tuple[str, ...] = ()) -> None:
        import paho.mqtt.client as paho

        self.received: list[tuple[str, bytes, bool]] = []
        self._ready = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv311)

        def on_connect(client: Any, *_: Any) -> None:
            if topics:
                client.subscribe([(topic, 1) for topic in topics])
            else:
                self._ready.set()

        self._client.on_connect = on_connect
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _c, _d, m: self.received.append((m.topic, bytes(m.payload), bool(m.retain)))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(TIMEOUT_SEC)

    def say(self, topic: str, payload: str | bytes, *, retain: bool = False) -> None:
        """Publishes at QoS 1 and waits for the broker."""
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        info.wait_for_publish(TIMEOUT_SEC)
        assert info.is_published()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
