"""Processes of attempts, found by the mark in their environment or by a word in their arguments, through /proc.

Called by the tests of keepers and workers, to see that nothing of an attempt is alive.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

MARK_VARIABLE = "JOBDB_PROCESS_MARK"


def find_processes(matches: Callable[[bytes, bytes], bool]) -> dict[int, str]:
    """Return the living processes that match, with their arguments.

    Args:
        matches: gets the environment and the arguments, each string between zero bytes.
    """
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        with suppress(OSError):
            environment, command = _read(name, "environ"), _read(name, "cmdline")
            state = _read(name, "stat").rpartition(b")")[2].split()[0]
            if state not in (b"Z", b"X") and matches(b"\0" + environment, b"\0" + command):
                found[int(name)] = command.replace(b"\0", b" ").decode("utf-8", "replace").strip()
    return found


def marked_processes(mark: str) -> dict[int, str]:
    """Return the living processes whose mark begins like this; ``registry:job:`` matches all attempts of a job."""
    wanted = f"\0{MARK_VARIABLE}={mark}".encode()
    return find_processes(lambda environment, _: wanted in environment)


def processes_with_argument(word: str) -> dict[int, str]:
    """Return the living processes that have this among their arguments, also those with another environment."""
    wanted = f"\0{word}\0".encode()
    return find_processes(lambda _, command: wanted in command)


def wait_until_none(find: Callable[[], dict[int, str]], timeout_sec: float = 30.0) -> None:
    """Wait until no process is found any more.

    Raises:
        TimeoutError: some still are, when the time is over.
    """
    deadline = time.monotonic() + timeout_sec
    while found := find():
        if time.monotonic() > deadline:
            raise TimeoutError(f"still alive: {found}")
        time.sleep(0.01)


@contextmanager
def none_left(mark: str) -> Iterator[None]:
    """Fail unless, after the block, no process has a mark that begins like this; kill those that are left."""
    try:
        yield
        assert marked_processes(mark) == {}
    finally:
        for _ in range(100):
            found = marked_processes(mark)
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not found:
                break
            time.sleep(0.01)


def _read(pid: str, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()
