"""A mounted file system whose power can be cut, served by a process of its own.

Used by tests, which require ``require_fuse(root=True)`` first. ``LossyMount`` never touches the mounted files itself.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.fuse.mounting import unmount
from tests.support.lossyfs.tree import NameDurability
from tests.support.processes import module_environment, python_module


class LossyMount:
    """A file system that forgets what was not synced when ``cut`` is called.

    Args:
        folder: an empty folder to mount on; made when missing.
        seed: of what the power failures keep.
        unit: bytes that reach the disk together: 4096, or 512 for torn pages.
        names: ``posix``: a name lasts once its folder was synced; ``ext4``: once its file was.
        direct: without the kernel's page cache, so that injected read errors are seen.
        sync_delay_ms: how long each sync takes.
        limit_sec: the server ends after this long, whatever happens.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        unit: int = 4096,
        names: NameDurability = "posix",
        direct: bool = False,
        sync_delay_ms: float = 0.0,
        limit_sec: int = 600,
    ) -> None:
        self.folder = folder
        self._options = [
            *("--seed", str(seed), "--unit", str(unit), "--names", names, "--limit-sec", str(limit_sec)),
            *("--sync-delay-ms", str(sync_delay_ms)),
            *(["--direct"] if direct else []),
        ]
        self._unread = b""

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._server = subprocess.Popen(
            python_module("tests.support.lossyfs.server", self.folder, *self._options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=module_environment(),
        )
        try:
            self._expect("ready", 20)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait(10)
        self._server.stdout.close()
        if os.path.ismount(self.folder) or self._server.returncode != 0:
            unmount(str(self.folder))

    def cut(self) -> dict[str, Any]:
        """Cut the power now; returns what was lost. Everybody gets ENOTCONN; ``boot`` when they are dead."""
        return self._ask("cut", "cut")

    def boot(self) -> None:
        """Mount again after a cut, with what survived."""
        self._ask("boot", "booted")

    def arm(self, request: str = "change", pattern: str = "*", skip: int = 0) -> None:
        """Cut the power in place of a later request (see ``faults``); ``wait_cut`` tells when."""
        self._ask(f"arm {request} {pattern} {skip}", "armed")

    def wait_cut(self, timeout_sec: float) -> dict[str, Any]:
        """Wait for the armed cut; TimeoutError when it has not come."""
        return self._expect("cut", timeout_sec)

    def fail(self, request: str, pattern: str, error: int, *, skip: int = 0, count: int = -1) -> None:
        """Answer requests with ``error``, after ``skip`` of them, ``count`` times (-1: always)."""
        self._ask(f"fail {request} {pattern} {error} {skip} {count}", "failing")

    def clear(self) -> None:
        """No more errors and no armed cut."""
        self._ask("clear", "clear")

    def stats(self) -> dict[str, Any]:
        """Requests seen, by name, and the number that was made to fail."""
        return self._ask("stats", "stats")

    def _ask(self, command: str, answer: str) -> dict[str, Any]:
        assert self._server.stdin is not None
        self._server.stdin.write(command.encode() + b"\n")
        self._server.stdin.flush()
        return self._expect(answer, 20)

    def _expect(self, key: str, timeout_sec: float) -> dict[str, Any]:
        assert self._server.stdout is not None
        end = time.monotonic() + timeout_sec
        while True:
            while b"\n" in self._unread:
                line, self._unread = self._unread.split(b"\n", 1)
                answer = json.loads(line)
                if key in answer:
                    found = answer[key]
                    return found if isinstance(found, dict) else {}
            ready, _, _ = select.select([self._server.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError(f"the lossy file system did not say {key!r} within {timeout_sec} s")
            more = os.read(self._server.stdout.fileno(), 65536)
            if not more:
                raise RuntimeError(f"the lossy file system ended with exit code {self._server.wait(5)}")
            self._unread += more
