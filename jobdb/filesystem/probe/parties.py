"""The two parties of a probe: a `Party` does file operations in the probed folder, here or on another host.

Used by local.py and peer.py. A `LocalParty` is a worker process (worker.py) on this machine; the party of another host
is in peer.py. The caller never accesses the folder itself, so if the file system hangs, the caller waits only for the
time limit.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from ...system.subprocess_env import without_secrets
from .failures import PartyError

_WORKER = Path(__file__).with_name("worker.py")


class Party(Protocol):
    """A party of a probe. `start` and `finish` let two parties work at the same time; `call` does both."""

    def start(self, operation: str, **arguments: Any) -> None:
        """Start an operation of worker.py."""
        ...

    def finish(self) -> Any:
        """Wait for the operation's value; raise PartyError if it failed."""
        ...

    def call(self, operation: str, **arguments: Any) -> Any:
        """Start an operation and wait for its value."""
        ...

    def kill(self) -> None:
        """Kill the process that has the files open (SIGKILL), and start another."""
        ...


class LocalParty:
    """A worker process on this machine.

    Args:
        folder: the probed folder; the worker enters it with the first operation.
        subfolder: name of the folder in it to work in, "" for the folder itself.
        limit_sec: longest wait for one answer, in seconds.
    """

    def __init__(self, folder: str | Path, subfolder: str = "", *, limit_sec: float) -> None:
        self._folder = os.fspath(folder)
        self._subfolder = subfolder
        self._limit_sec = limit_sec
        self._operation = ""
        self._received = b""
        self._awaiting_reply = False
        self._process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        # -I -S: the worker needs nothing but the standard library, and starts three times as fast.
        return subprocess.Popen(
            [sys.executable, "-I", "-S", os.fspath(_WORKER), self._folder, self._subfolder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=without_secrets(os.environ),
            bufsize=0,
            close_fds=True,
            process_group=0,  # Ctrl-C is for the caller, which still needs the worker to clean up
        )

    def start(self, operation: str, **arguments: Any) -> None:
        if self._awaiting_reply:
            # An interrupt arrived between a request and its reply, which must not be taken for that of the next one.
            with contextlib.suppress(PartyError):
                self.finish()
        self._operation = operation
        self._awaiting_reply = True
        assert self._process.stdin is not None
        line = json.dumps({"do": operation, **arguments}) + "\n"
        try:
            self._process.stdin.write(line.encode())
        except BrokenPipeError:
            raise PartyError(operation, errno.ESRCH) from None

    def finish(self) -> Any:
        try:
            reply = json.loads(self._read_reply())
        except PartyError:
            self._awaiting_reply = False
            raise
        self._awaiting_reply = False
        if "errno" in reply:
            raise PartyError(self._operation, reply["errno"])
        return reply["value"]

    def call(self, operation: str, **arguments: Any) -> Any:
        self.start(operation, **arguments)
        return self.finish()

    def kill(self) -> None:
        self.close()
        self._received, self._awaiting_reply = b"", False
        self._process = self._spawn()

    def close(self) -> None:
        """End the worker. One that hangs in the kernel is left behind, and ends when the kernel returns."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2)

    def __enter__(self) -> LocalParty:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_reply(self) -> bytes:
        assert self._process.stdout is not None
        end = time.monotonic() + self._limit_sec
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not self._received.endswith(b"\n"):
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise PartyError(self._operation, errno.ETIMEDOUT)
                piece = os.read(self._process.stdout.fileno(), 1 << 16)
                if not piece:
                    raise PartyError(self._operation, errno.ESRCH)
                self._received += piece
        line, self._received = self._received, b""
        return line
