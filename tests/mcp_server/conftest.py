"""The fixtures of the tests of `jobdb mcp`: a registry, and clients that send lines. All need the SDK."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobdb import Registry
from tests.support.mcp_client import HANDSHAKE, LineClient, require_sdk


@pytest.fixture
def registry(database: Path) -> Iterator[Registry]:
    require_sdk()
    with Registry.open(database) as opened:
        yield opened


@pytest.fixture
def start_client(database: Path, registry: Registry) -> Iterator[Callable[..., LineClient]]:
    """Return a function that starts a server and shakes hands with it; all are ended after the test."""
    started: list[LineClient] = []

    def start(protocol: str = HANDSHAKE, **variables: str) -> LineClient:
        client = LineClient(database, protocol, variables=variables)
        started.append(client)
        if protocol == HANDSHAKE:
            client.shake_hands()
        return client

    yield start
    for client in started:
        client.close()
