"""A TCP proxy that cuts a connection at a COMMIT: before the server or before the client has received its message."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from types import TracebackType
from typing import Self


class CommitProxy:
    """A proxy to a server on loopback. While ``cut`` is set, the next COMMIT is cut and ``cut`` unset.

    Attributes:
        cut: "before" (the server never hears of it), "after" (it commits, the answer is lost), or None.
        refuse_after_cut: refuse connections once something was cut.
        cuts: the number of cuts so far.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.cut: str | None = None
        self.refuse_after_cut = False
        self.cuts = 0
        self._stopped = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port), timeout=10)
                server.settimeout(None)
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, selectors.DefaultSelector() as waiting, contextlib.suppress(OSError):
            waiting.register(client, selectors.EVENT_READ)
            waiting.register(server, selectors.EVENT_READ)
            while not self._stopped:
                for key, _ in waiting.select(0.5):
                    source = client if key.fileobj is client else server
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is client and self.cut and b"COMMIT\0" in data:
                        how, self.cut = self.cut, None
                        if how == "after":
                            server.sendall(data)
                            server.recv(65536)
                        self.cuts += 1
                        if self.refuse_after_cut:
                            # shutdown wakes the thread in accept(), which close() alone would not.
                            self._listening.shutdown(socket.SHUT_RDWR)
                            self._listening.close()
                        return
                    (server if source is client else client).sendall(data)
