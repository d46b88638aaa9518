"""Attempts under a keeper, for tests: launches in a folder of their own, and the messages of their keepers."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from jobdb.system.boot_clock import boottime
from jobdb.work.keeper.client import Keeper, KeeperServer
from jobdb.work.keeper.launch import Launch
from jobdb.work.keeper.messages import Ended, Lines, Message

WAIT_SEC = 60.0
"""The limit of every wait: nothing comes near it on a machine that is not stuck."""
_M = TypeVar("_M", bound=Message)


class Attempts:
    """Launches of attempts of one job.

    Args:
        folder: a folder for all of its files.
        mark: the begin of the marks of its attempts; a new one without it.
    """

    def __init__(self, folder: Path, *, mark: str | None = None) -> None:
        self.folder = folder
        self.mark = mark or f"{uuid4().hex}:job-1:"
        self.log = folder / "attempt.log"
        self.channel = folder / "events"
        self.lock = folder / "runtime" / "job.lock"
        with suppress(FileExistsError):
            os.mkfifo(self.channel)

    def launch(self, *argv: object, attempt: int = 1, deadline_sec: float = 120.0, **changes: Any) -> Launch:
        """Return a launch of a program.

        Args:
            argv: the program and its arguments.
            attempt: its number.
            deadline_sec: seconds from now.
            changes: other attributes than the usual ones.
        """
        launch = Launch(
            argv=tuple(map(str, argv)),
            environment={"PATH": os.environ["PATH"], "JOBDB_EVENTS": str(self.channel)},
            folder=str(self.folder),
            stdin=None,
            channel=str(self.channel),
            log=str(self.log),
            log_max_bytes=1 << 20,
            lock=str(self.lock),
            mark=f"{self.mark}{attempt}",
            deadline=boottime() + deadline_sec,
            before=None,
            after=None,
            sweep=attempt > 1,
        )
        return replace(launch, **changes)

    def shell(self, script: str, **changes: Any) -> Launch:
        """Return a launch of a shell script; see `launch`."""
        return self.launch("sh", "-c", script, **changes)


class Conversation:
    """The messages of a keeper, as they arrive.

    Args:
        keeper: it.

    Attributes:
        messages: those that were received.
    """

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self.messages: list[Message] = []

    def receive_until(self, condition: Callable[[], object]) -> None:
        """Receive messages until a condition holds.

        Raises:
            TimeoutError: it does not, when the time is over.
            EOFError: the last message came before.
        """
        deadline = time.monotonic() + WAIT_SEC
        while not condition():
            if self.keeper.has_ended:
                raise EOFError(f"the last message came: {self.messages}")
            if not select.select([self.keeper], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"after {WAIT_SEC} s: {self.messages}")
            self.messages += self.keeper.receive()

    def wait_for(self, kind: type[_M]) -> _M:
        """Receive messages until there is one of this kind, and return the first."""
        self.receive_until(lambda: self.of_kind(kind))
        return self.of_kind(kind)[0]

    def wait_for_line(self, line: bytes) -> None:
        """Receive messages until the channel had this line."""
        self.receive_until(lambda: line in self.lines)

    def wait_for_end(self) -> Ended:
        """Receive all messages, and return the last."""
        self.receive_until(lambda: self.keeper.has_ended)
        last = self.messages[-1]
        assert isinstance(last, Ended), self.messages
        return last

    def of_kind(self, kind: type[_M]) -> list[_M]:
        """Return the messages of a kind that were received."""
        return [message for message in self.messages if isinstance(message, kind)]

    @property
    def lines(self) -> list[bytes]:
        """Return the lines of the channel that were received, without their ends."""
        blocks = b"".join(message.data for message in self.of_kind(Lines))
        assert blocks == b"" or blocks.endswith(b"\n")
        return blocks.split(b"\n")[:-1]


def begin(server: KeeperServer, launch: Launch) -> Conversation:
    """Start an attempt."""
    return Conversation(server.start(launch))


def run(server: KeeperServer, launch: Launch) -> Ended:
    """Run an attempt to its end, and close the connection."""
    conversation = begin(server, launch)
    try:
        return conversation.wait_for_end()
    finally:
        conversation.keeper.close()
