"""Starts the two-host file server in a process of its own, and Python programs that work on one host.

Used by the tests through the fixture `two_hosts`. Every wait has an end, and the mounts go whatever happens.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.fuse.mounting import unmount
from tests.support.processes import module_environment, python_module


class TwoHosts:
    """One backing folder, mounted as the hosts `a` and `b`.

    Args:
        tmp_path: where the folders are made.
        options: options of tests.support.twohosts.server.
    """

    def __init__(self, tmp_path: Path, *options: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="hosts-", dir=tmp_path))
        self.backing, self.a, self.b = (self.root / name for name in ("backing", "a", "b"))
        for folder in (self.backing, self.a, self.b):
            folder.mkdir()
        self._log = (self.root / "server.log").open("wb")
        self._server = subprocess.Popen(
            python_module("tests.support.twohosts.server", *options, self.backing, self.a, self.b),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=module_environment(),
        )
        self._received = b""

    def __enter__(self) -> TwoHosts:
        try:
            self._expect(b"READY")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def send_command(self, verb: str, host: int) -> None:
        """`cut`, `heal` or `expire` a host (0 is a, 1 is b); returns when it is done."""
        assert self._server.stdin is not None
        self._server.stdin.write(f"{verb} {host}\n".encode())
        self._server.stdin.flush()
        self._expect(f"DONE {verb} {host}".encode())

    def stop(self) -> None:
        """Ends the server and takes the mounts away, also from under a server that no longer answers."""
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        try:
            self._server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait(timeout=30)
        for mount_point in (self.a, self.b):
            if _mounted(mount_point):
                unmount(str(mount_point))
        self._server.stdout.close()
        self._log.close()

    def _expect(self, line: bytes) -> None:
        assert self._server.stdout is not None
        end = time.monotonic() + 60
        with selectors.DefaultSelector() as selector:
            selector.register(self._server.stdout, selectors.EVENT_READ)
            while line + b"\n" not in self._received:
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise TimeoutError(f"the server did not say {line!r}")
                piece = os.read(self._server.stdout.fileno(), 4096)
                if not piece:
                    raise RuntimeError((self.root / "server.log").read_text())
                self._received += piece
        self._received = self._received.split(line + b"\n", 1)[1]


def _mounted(path: Path) -> bool:
    # By the table: looking at the path itself would ask a server that may be dead.
    return f" {path} " in Path("/proc/self/mountinfo").read_text()


def start_python(program: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Starts a Python program, given as text, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def finish(process: subprocess.Popen[str], *, limit_sec: float) -> str:
    """Its output, once it has ended; kills it and fails when the time is over or it ended badly."""
    try:
        out, errors = process.communicate(timeout=limit_sec)
    except subprocess.TimeoutExpired:
        process.kill()
        out, errors = process.communicate(timeout=10)
        raise AssertionError(f"still running after {limit_sec} s: {out}\n{errors}") from None
    assert process.returncode == 0, f"exit code {process.returncode}: {out}\n{errors}"
    return out


def finish_json(process: subprocess.Popen[str], *, limit_sec: float) -> Any:
    """The same, read as JSON."""
    return json.loads(finish(process, limit_sec=limit_sec))
