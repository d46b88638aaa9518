"""Whose process is at the other end of a connection."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from jobdb.ui.peer import owner_of


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_the_other_end_is_ours() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, peer = server.accept()
        with accepted:
            assert owner_of(peer, accepted.getsockname()) == os.getuid()
            assert owner_of((peer[0], 1), accepted.getsockname()) is None
        assert client.fileno() >= 0


def test_what_the_system_does_not_tell_is_not_known(tmp_path) -> None:
    assert owner_of(("127.0.0.1", 1), ("127.0.0.1", 2), table=tmp_path / "none") is None
    assert owner_of(("::1", 1), ("::1", 2)) is None
