"""The topics that a consumer subscribes to at its broker: the given ones and those of live jobs.

Used by the consumer, in its thread; calls the connection, and reads the jobs' topics from the database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..core.protocol.topics import events_topic, is_valid_topic, topic_matches
from .paho_client import ConnectionFailed
from .statements import SUBSCRIBER

if TYPE_CHECKING:
    from ..engines.store import Store
    from .reconnecting import ReconnectingConnection
    from .reporting import ReportCallback

_MAX_INVALID_REPORTED = 20
_READ_SHARE = 20
"""The inverse of the share of the consumer's time that reading the topics may take."""


class TopicSubscriptions:
    """The subscriptions of one consumer.

    Args:
        store: the registry's database.
        link: the connection to the broker.
        topics: for one job, its topic; for all jobs, filters in addition to the topics of live jobs.
        follow_live_jobs: True to subscribe to the topics of live jobs too.
        report: called with sentences about successful and failed subscriptions.
    """

    def __init__(
        self,
        store: Store,
        link: ReconnectingConnection,
        *,
        topics: Sequence[str],
        follow_live_jobs: bool,
        report: ReportCallback,
    ) -> None:
        self._store = store
        self._link = link
        self._topics = list(topics)
        self._follow_live_jobs = follow_live_jobs
        self._report = report
        self._subscribed: set[str] = set()
        self._invalid: set[str] = set()
        self._read_version: int | None = None
        self._next_read_at = 0.0

    def reset(self) -> None:
        """Forget the subscriptions, because the connection is a new one."""
        self._subscribed.clear()
        self._next_read_at = 0.0

    def update(self, on_wait: Callable[[], None]) -> None:
        """Subscribe to the wanted topics that are not yet subscribed to on this connection.

        New jobs may have topics of their own, so the topics are read again after a commit, but rarely enough that this
        takes only a small share of our time.

        Args:
            on_wait: called repeatedly while waiting for the broker's answer.
        """
        connection = self._link.connection
        if connection is None or time.monotonic() < self._next_read_at:
            return
        version = self._store.data_version()
        if self._subscribed and version == self._read_version:
            return
        began = time.monotonic()
        wanted = [topic for topic in self._wanted() if topic not in self._subscribed]
        self._read_version, now = version, time.monotonic()
        self._next_read_at = now + _READ_SHARE * (now - began)
        if not wanted:
            return
        try:
            refused = connection.subscribe(wanted, on_wait=on_wait)
        except ConnectionFailed as failure:
            self._link.reconnect(str(failure))
            return
        self._subscribed.update(wanted)
        more = f" and {len(wanted) - 5} more" if wanted[5:] else ""
        self._report(f"subscribed to {', '.join(wanted[:5])}{more}")
        for topic in refused:
            self._report(f"the broker refuses the subscription to {topic}; its events come from the database alone")

    def _wanted(self) -> list[str]:
        if not self._follow_live_jobs:
            return [topic for topic in self._topics if self._is_subscribable(topic)]
        with self._store.read() as tx:
            topics = [events_topic(row[0]) for row in tx.all(SUBSCRIBER.live_topics)]
        return self._topics + [
            topic
            for topic in topics
            if self._is_subscribable(topic) and not any(topic_matches(name, topic) for name in self._topics)
        ]

    def _is_subscribable(self, topic: str) -> bool:
        """Return whether a job's topic can be subscribed to; if not, report it once, or only count it if many."""
        if is_valid_topic(topic):
            return True
        if topic not in self._invalid:
            self._invalid.add(topic)
            count = len(self._invalid)
            if count <= _MAX_INVALID_REPORTED or count % 1000 == 0:
                self._report(
                    f"topic {topic!r:.200} of a job is not a valid MQTT topic ({count} such so far); its events come "
                    "from the database alone"
                )
        return False
