"""A connection to a broker that reconnects, with exponential backoff and jitter.

Used by the relay and the consumer, each from one thread: ``poll`` is called repeatedly and never blocks; connecting,
which can take seconds, is done in a separate thread.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from ..system.interrupt_safe_flag import Flag
from .connection import Connection, Message
from .paho_client import MQTT_5, MQTT_311, ConnectionFailed
from .reporting import ReportCallback
from .settings import BrokerSettings

MIN_BACKOFF_SEC = 0.2
MAX_BACKOFF_SEC = 30.0
_STABLE_SEC = 10.0


class _ConnectAttempt(threading.Thread):
    """An attempt to connect, in a separate thread.

    Args:
        connect: returns the open connection or raises.
        wake: called when the attempt has ended.

    Attributes:
        result: the connection, or the error; set once the thread has ended.
    """

    def __init__(self, connect: Callable[[], Connection], wake: Callable[[], None]) -> None:
        super().__init__(name="mqtt connector", daemon=True)
        self._connect = connect
        self._wake = wake
        self.result: Connection | Exception | None = None

    def run(self) -> None:
        try:
            self.result = self._connect()
        except Exception as failure:
            self.result = failure
        finally:
            self._wake()


class ReconnectingConnection:
    """A connection to one broker that reconnects.

    Args:
        settings: the broker.
        client_id: our client id at the broker.
        session_sec: how long the broker keeps our session, in seconds; 0: each connection is a clean start.
        wake: called from other threads when ``poll`` should be called soon.
        report: called with sentences about connections and failures.
        on_message, on_acknowledged: as for :class:`Connection`.
        clock: monotonic seconds.
        jitter: returns a random number from 0 to 1.

    Attributes:
        connection: the open connection, or None.
        failed_attempts: the number of failed attempts since the last connection that lasted.
        rapid_disconnects: the number of consecutive connections that were lost within seconds.
        last_attempt_failed: True if the last attempt to connect failed.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        client_id: str,
        *,
        wake: Callable[[], None],
        report: ReportCallback,
        session_sec: int = 0,
        on_message: Callable[[Message], None] | None = None,
        on_acknowledged: Callable[[int, str | None], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.settings = settings
        self.connection: Connection | None = None
        self.failed_attempts = 0
        self.rapid_disconnects = 0
        self.last_attempt_failed = False
        self._client_id = client_id
        self._session_sec = session_sec
        self._wake = wake
        self._report = report
        self._on_message = on_message
        self._on_acknowledged = on_acknowledged
        self._clock = clock
        self._jitter = jitter
        self._version = MQTT_5
        self._retry_at = 0.0
        self._connected_at = 0.0
        self._connector: _ConnectAttempt | None = None
        self._last_reason = ""
        self._closed = Flag()

    @property
    def connecting(self) -> bool:
        """True while an attempt to connect is in progress."""
        return self._connector is not None

    def poll(self) -> bool:
        """Begin an attempt, take its result, or notice a lost connection; return whether a connection was just opened.

        Raises:
            InvalidInput: paho-mqtt is not installed.
        """
        if self.connection is not None:
            if self.connection.ended.is_set():
                self._handle_disconnect(self.connection.close_reason)
            return False
        if self._connector is None:
            if self._clock() >= self._retry_at:
                self._connector = _ConnectAttempt(self._connect, self._wake)
                self._connector.start()
            return False
        if self._connector.is_alive():
            return False
        attempt, self._connector = self._connector, None
        return self._take_result(attempt.result)

    def _take_result(self, result: Connection | Exception | None) -> bool:
        self.last_attempt_failed = isinstance(result, ConnectionFailed)
        if isinstance(result, Connection):
            self.connection, self._version = result, result.version
            self._connected_at, self._last_reason = self._clock(), ""
            self._report(f"connected to the broker {self.settings}")
            return True
        if isinstance(result, ConnectionFailed):
            self._schedule_retry(str(result))
            return False
        assert result is not None
        raise result

    def _connect(self) -> Connection:
        """Open a connection, trying the other version of MQTT if the broker does not support the last one that worked.

        Called in the connector's thread.
        """
        try:
            return self._open(self._version)
        except ConnectionFailed as failure:
            if not failure.other_version:
                raise
            return self._open(MQTT_311 if self._version == MQTT_5 else MQTT_5)

    def _open(self, version: int) -> Connection:
        connection = Connection(
            self.settings,
            self._client_id,
            version=version,
            session_sec=self._session_sec,
            on_message=self._on_message,
            on_acknowledged=self._on_acknowledged,
            on_end=self._wake,
        )
        connection.open()
        if self._closed.is_set():
            connection.close()
        return connection

    def reconnect(self, close_reason: str) -> None:
        """Give up the current connection, and connect again after a pause."""
        if self.connection is not None:
            self.connection.close()
            self._handle_disconnect(close_reason)

    def _handle_disconnect(self, close_reason: str) -> None:
        self.connection = None
        self.rapid_disconnects += 1
        if self._clock() - self._connected_at >= _STABLE_SEC:
            self.failed_attempts = self.rapid_disconnects = 0
        self._schedule_retry(close_reason)

    def _schedule_retry(self, close_reason: str) -> None:
        pause = min(MAX_BACKOFF_SEC, MIN_BACKOFF_SEC * 2 ** min(self.failed_attempts, 20))
        pause *= 0.5 + 0.5 * self._jitter()
        self.failed_attempts += 1
        self._retry_at = self._clock() + pause
        if close_reason != self._last_reason:
            self._last_reason = close_reason
            self._report(f"no connection to the broker {self.settings}: {close_reason}; trying again until it works")

    def close(self, *, forget_session: bool = False) -> None:
        """End the connection; an attempt in progress ends by itself."""
        self._closed.set()
        if self._connector is not None:
            self._connector.join(0.2)
            if not self._connector.is_alive() and isinstance(self._connector.result, Connection):
                self.connection, self._connector = self._connector.result, None
        if self.connection is not None:
            self.connection.close(forget_session=forget_session)
            self.connection = None
