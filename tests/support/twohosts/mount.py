"""The two-host file server in a separate process, and Python programs that work on one host.

Used by the tests through the fixture `two_hosts`. Every wait is bounded, and the mounts are always removed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support.fuse.mounting import unmount
from tests.support.processes import LineProcess, module_environment, python_module


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
        command = python_module("tests.support.twohosts.server", *options, self.backing, self.a, self.b)
        self._server = LineProcess(command, env=module_environment(), stderr=self._log)

    def __enter__(self) -> TwoHosts:
        try:
            self._expect("READY")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def send_command(self, verb: str, host: int) -> None:
        """`cut`, `heal` or `expire` a host (0 is a, 1 is b); return when it is done."""
        self._server.send(f"{verb} {host}")
        self._expect(f"DONE {verb} {host}")

    def stop(self) -> None:
        """End the server and take the mounts away, also from under a server that no longer answers."""
        self._server.close()
        for mount_point in (self.a, self.b):
            if _mounted(mount_point):
                unmount(str(mount_point))
        self._log.close()

    def _expect(self, expected: str) -> None:
        try:
            while self._server.read_line() != expected:
                continue
        except EOFError:
            raise RuntimeError((self.root / "server.log").read_text()) from None


def _mounted(path: Path) -> bool:
    # By the table: looking at the path itself would ask a server that may be dead.
    return f" {path} " in Path("/proc/self/mountinfo").read_text()


def start_python(program: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start a Python program, given as text, in a separate process."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def finish(process: subprocess.Popen[str], *, limit_sec: float) -> str:
    """Wait for the end and return the output; fail if it ended badly, and kill it when the time is over."""
    try:
        out, errors = process.communicate(timeout=limit_sec)
    except subprocess.TimeoutExpired:
        process.kill()
        out, errors = process.communicate(timeout=10)
        raise AssertionError(f"still running after {limit_sec} s: {out}\n{errors}") from None
    assert process.returncode == 0, f"exit code {process.returncode}: {out}\n{errors}"
    return out


def finish_json(process: subprocess.Popen[str], *, limit_sec: float) -> Any:
    """Wait for the end, like `finish`, and return the output read as JSON."""
    return json.loads(finish(process, limit_sec=limit_sec))
