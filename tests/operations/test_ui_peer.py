"""Test the lookup of the user whose process is at the other end of a connection."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from jobdb.ui import access
from jobdb.ui.peer import peer_uid
from tests.support.requirements import on_linux


@on_linux("tells whose process it is")
def test_the_peer_is_this_user() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, peer = server.accept()
        with accepted:
            assert peer_uid(peer, accepted.getsockname()) == os.getuid()
            assert peer_uid((peer[0], 1), accepted.getsockname()) is None
        assert client.fileno() >= 0


def test_a_peer_that_the_system_does_not_report_is_unknown(tmp_path) -> None:
    assert peer_uid(("127.0.0.1", 1), ("127.0.0.1", 2), table=tmp_path / "none") is None
    assert peer_uid(("::1", 1), ("::1", 2)) is None


def status(owner: int | None, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the status of a request with the key, from a process of that user."""
    said: list[int] = []

    async def site(_scope: access.Scope, _receive: access.Receive, send: access.Send) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(message: access.Scope) -> None:
        if message["type"] == "http.response.start":
            said.append(message["status"])

    async def receive() -> access.Scope:
        return {}

    monkeypatch.setattr(access, "peer_uid", lambda _peer, _here: owner)
    headers = [(b"host", b"127.0.0.1:80"), (b"cookie", b"jobdb_ui_80=k")]
    scope = {
        "type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers,
        "client": ["127.0.0.1", 5], "server": ["127.0.0.1", 80],
    }  # fmt: skip
    asyncio.run(access.AccessControl(site, key="k", port=80)(scope, receive, send))
    return said[0]


def test_a_process_of_another_user_is_refused_despite_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert status(os.getuid() + 1, monkeypatch) == 403
    assert [status(owner, monkeypatch) for owner in (os.getuid(), 0, None)] == [200, 200, 200]
