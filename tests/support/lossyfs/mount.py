"""A mounted file system whose power can be cut, served by a separate process.

Used by tests, which require ``require_fuse(root=True)`` first. ``LossyMount`` never touches the mounted files itself.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.fuse.mounting import unmount
from tests.support.lossyfs.tree import NameDurability
from tests.support.processes import LineProcess, module_environment, python_module


class LossyMount:
    """A file system that drops unsynced data when ``cut`` is called.

    Args:
        folder: an empty folder to mount on; created if missing.
        seed: of the random choice of what power failures keep.
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

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = python_module("tests.support.lossyfs.server", self.folder, *self._options)
        self._server = LineProcess(command, env=module_environment())
        try:
            self._expect("ready", 20)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        code = self._server.close(10)
        if os.path.ismount(self.folder) or code != 0:
            unmount(str(self.folder))

    def cut(self) -> dict[str, Any]:
        """Cut the power now; return what was lost. Every user gets ENOTCONN; call ``boot`` when they have ended."""
        return self._ask("cut", "cut")

    def boot(self) -> None:
        """Mount again after a cut, with what survived."""
        self._ask("boot", "booted")

    def arm(self, request: str = "change", pattern: str = "*", skip: int = 0) -> None:
        """Cut the power in place of a later request (see ``faults``); ``wait_cut`` returns when it was cut."""
        self._ask(f"arm {request} {pattern} {skip}", "armed")

    def wait_cut(self, timeout_sec: float) -> dict[str, Any]:
        """Wait for the armed cut; raise TimeoutError if it does not come."""
        return self._expect("cut", timeout_sec)

    def fail(self, request: str, pattern: str, error: int, *, skip: int = 0, count: int = -1) -> None:
        """Answer requests with ``error``, after ``skip`` of them, ``count`` times (-1: always)."""
        self._ask(f"fail {request} {pattern} {error} {skip} {count}", "failing")

    def clear(self) -> None:
        """Remove all errors and the armed cut."""
        self._ask("clear", "clear")

    def stats(self) -> dict[str, Any]:
        """Return the numbers of seen requests by name, and of failed ones."""
        return self._ask("stats", "stats")

    def _ask(self, command: str, answer: str) -> dict[str, Any]:
        self._server.send(command)
        return self._expect(answer, 20)

    def _expect(self, key: str, timeout_sec: float) -> dict[str, Any]:
        """Return the value of ``key`` from the next answer that has it."""
        deadline = time.monotonic() + timeout_sec
        while True:
            answer = json.loads(self._server.read_line(deadline - time.monotonic()))
            if key in answer:
                found = answer[key]
                return found if isinstance(found, dict) else {}
