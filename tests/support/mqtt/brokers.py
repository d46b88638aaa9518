"""MQTT brokers that a test starts, stops and kills. They listen on loopback only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from tests.support.ports import free_port
from tests.support.requirements import require_mosquitto

WAIT_SEC = 60.0


class Broker:
    """A broker process. ``start`` returns when it accepts connections; or use it in a ``with`` statement."""

    version5 = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise RuntimeError("a broker names its command")

    def start(self) -> None:
        log = open(self.folder / "broker.log", "ab")  # noqa: SIM115 (the process keeps it)
        self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        deadline = time.monotonic() + WAIT_SEC
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.stop()
                    raise RuntimeError(f"no broker: {(self.folder / 'broker.log').read_text()[-2000:]}") from None
                time.sleep(0.02)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it with SIGTERM."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL, as a power failure would."""
        self._end(signal.SIGKILL)

    def _end(self, signal_number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal_number)
        try:
            self._process.wait(WAIT_SEC)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(WAIT_SEC)
        self._process = None


class Mosquitto(Broker):
    """Mosquitto with a configuration of the test's.

    Args:
        folder: where its configuration, log and store lie.
        lines: further lines of configuration.
        listener: lines for the listener: TLS, authorities.
        anonymous: let everybody in.
    """

    version5 = True

    def __init__(self, folder: Path, *, lines: str = "", listener: str = "", anonymous: bool = True) -> None:
        super().__init__(folder)
        self._lines = lines
        self._listener = listener
        self._anonymous = anonymous

    def command(self) -> list[str]:
        config = self.folder / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        anonymous = str(self._anonymous).lower()
        config.write_text(
            # Otherwise it drops messages more than a thousand ahead of a slow listener.
            f"{user}persistence true\npersistence_location {self.folder}/\nmax_queued_messages 0\n{self._lines}\n"
            f"listener {self.port} 127.0.0.1\nallow_anonymous {anonymous}\n{self._listener}\n"
        )
        return [require_mosquitto(), "-c", str(config)]


class Amqtt(Broker):
    """amqtt, which speaks MQTT 3.1.1 and keeps sessions in memory."""

    def command(self) -> list[str]:
        config = self.folder / "amqtt.yaml"
        config.write_text(
            f"listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:{self.port}\n"
            "plugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin:\n    allow_anonymous: true\n"
        )
        return [sys.executable, "-m", "amqtt.scripts.broker_script", "-c", str(config)]
