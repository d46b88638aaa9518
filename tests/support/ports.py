"""Choose ports for servers that a test starts, and may stop and start again."""

from __future__ import annotations

import os
import random
import socket


def free_port() -> int:
    """Return a free loopback port that stays free while its server is down.

    It is not an ephemeral port, which the system assigns to clients: a server that starts slowly or is down for a
    moment could find it taken, and a client that keeps trying such a closed port ends up connected to itself.
    Each worker of a parallel test run has its own range.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    first = 15_000 + 500 * (int(worker) % 20)
    for port in random.SystemRandom().sample(range(first, first + 500), 500):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port from {first} on")
