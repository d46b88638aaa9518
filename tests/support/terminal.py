"""Programs on a pseudo-terminal: what they write, keys that are typed, and the terminal's size and modes."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

TIMEOUT_SEC = 60.0


class Terminal:
    """A program with a separate terminal as its controlling terminal, stdin, stdout and stderr.

    Args:
        command: the program and its arguments.
        env: its environment; TERM is taken from it.
        folder: its current folder.
        columns: the terminal's width.
        lines: the terminal's height.

    Attributes:
        process: the program.
        output: everything that it wrote.
    """

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], folder: Path, columns: int = 80, lines: int = 24
    ) -> None:
        self.output = b""
        self._matched = 0
        self._ours, self._theirs = pty.openpty()
        self.resize(columns, lines)
        self._modes = termios.tcgetattr(self._theirs)
        self.process = subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def read_until(self, pattern: str) -> str:
        """Read until ``pattern`` matches after the last match; return all that was written since then."""
        begin, deadline = self._matched, time.monotonic() + TIMEOUT_SEC
        while not (found := re.compile(pattern.encode(), re.DOTALL).search(self.output, begin)):
            assert time.monotonic() < deadline, f"{pattern} did not appear in {self.output[begin:][-2000:]!r}"
            self._read(0.2)
        self._matched = found.end()
        return self.output[begin:].decode(errors="replace")

    def appears(self, pattern: str) -> bool:
        """Read until ``pattern`` matches after the last match, or the program has ended; return whether it matched."""
        deadline = time.monotonic() + TIMEOUT_SEC
        while not (found := re.compile(pattern.encode(), re.DOTALL).search(self.output, self._matched)):
            ended = self.process.poll() is not None
            if not self._read(0 if ended else 0.05) and ended:
                return False
            assert time.monotonic() < deadline, f"{pattern} did not appear in {self.output[-2000:]!r}"
        self._matched = found.end()
        return True

    def read_to_end(self) -> str:
        """Read until the program has ended; return all its output."""
        deadline = time.monotonic() + TIMEOUT_SEC
        while True:
            ended = self.process.poll() is not None
            if not self._read(0 if ended else 0.05) and ended:
                return self.output.decode()
            assert time.monotonic() < deadline, f"the program has not ended: {self.output[-2000:]!r}"

    def _read(self, timeout_sec: float) -> bool:
        if not select.select([self._ours], [], [], timeout_sec)[0]:
            return False
        self.output += os.read(self._ours, 65536)
        return True

    def modes_are_restored(self) -> bool:
        return termios.tcgetattr(self._theirs) == self._modes

    def close(self) -> None:
        """Kill the program with its process group, and close the terminal."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(TIMEOUT_SEC)
        os.close(self._ours)
        os.close(self._theirs)
