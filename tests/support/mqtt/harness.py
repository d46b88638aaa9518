"""A registry whose jobs use a test's broker, with a relay and followers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from jobdb import Broker, Event, Job, Registry
from jobdb.mqtt import BrokerFollower, BrokerSettings, Environment, RegistryOutbox, Relay, subscribe
from tests.support.keys import vault
from tests.support.waiting import TIMEOUT_SEC, wait_until


class BrokerHarness:
    """A registry and the settings of its broker."""

    def __init__(self, path: Path | str, port: int, **settings: Any) -> None:
        self.path = path
        self.vault = vault()
        self.registry = Registry.open(path, create=True, vault=self.vault)
        self.settings = BrokerSettings("127.0.0.1", port, **settings)
        self.environment = Environment(self.settings, self.settings.ca_certs, self.settings.prefix)
        self.messages: list[str] = []

    def close(self) -> None:
        self.registry.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def job(self, **more: Any) -> Job:
        """Register a job whose events go to the broker."""
        record = Broker(self.settings.host, self.settings.port, self.settings.tls, self.settings.username)
        return self.registry.register(agent="codex", prompt="sort", broker=record, **more)

    def run_job(self, job: Job, events: int = 3) -> None:
        """Claim the job and publish ``events`` events, the last of which completes it."""
        claim = self.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
        assert claim is not None
        for number in range(events - 1):
            self.registry.publish(job.job_id, "progress", detail=f"step {number}", attempt=claim.attempt)
        self.registry.complete(job.job_id, attempt=claim.attempt)

    def relay(self, **options: Any) -> Relay:
        outbox = RegistryOutbox(self.registry.engine, environment=self.environment, report=self.messages.append)
        return Relay(outbox, report=self.messages.append, **options)

    def deliver(self) -> None:
        """Deliver everything in the outbox to the broker."""
        done = self.relay().run(until_empty=True, timeout_sec=TIMEOUT_SEC)
        assert done.is_leader and self.registry.engine.outbox_size()[0] == 0, self.messages

    @contextmanager
    def relaying(self, relay: Relay | None = None, **options: Any) -> Iterator[Relay]:
        """Run a relay in the background: a given one, or the registry's."""
        relay = self.relay(**options) if relay is None else relay
        thread = threading.Thread(target=relay.run)
        thread.start()
        try:
            yield relay
        finally:
            relay.stop()
            thread.join(TIMEOUT_SEC)
            assert not thread.is_alive()

    def follow(
        self, job_id: str | None = None, *, subscriber: str = "watcher", listening: bool = True, **options: Any
    ) -> BrokerFollower:
        """Follow over the broker; subscribed when this returns, unless ``listening`` is false."""
        options.setdefault("timeout_sec", TIMEOUT_SEC)
        # The backfill starts so late that every event that a test sees has come over the broker.
        options.setdefault("grace_sec", 600.0)
        received: list[str] = []

        def report(text: str) -> None:
            self.messages.append(text)
            received.append(text)

        follower = subscribe(
            self.registry, job_id, subscriber=subscriber, settings=self.settings, report=report, **options
        )
        if listening:
            wait_until(lambda: any(text.startswith("subscribed to") for text in received))
        return follower

    def refused(self) -> dict[str, int]:
        return {verdict.value: count for verdict, count in self.registry.verdict_counts().items()}


def collect(follower: BrokerFollower, count: int) -> list[Event]:
    """Return the next ``count`` events, each handled."""
    found = []
    for event in follower:
        found.append(event)
        if len(found) == count:
            follower.handled()
            break
    return found


def seqs(events: list[Event]) -> dict[str, list[int]]:
    """Return the seqs by job, in the order of arrival."""
    found: dict[str, list[int]] = {}
    for event in events:
        found.setdefault(event.job_id, []).append(event.seq)
    return found
