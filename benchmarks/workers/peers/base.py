"""The interface of a measured worker. tasks.py calls it; the peers are beside this file.

A peer's queue is in a place: a folder on the measured disk and, where it needs a server, a URL. prepare() fills the
queue; start() begins to work on it with the given number of slots, in the background, and calls the handler with each
job's number; stop() returns when the slots are idle and what they did is recorded. Another process calls
open_producer() and add() to register single jobs, if the peer has a worker of its own.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from ..cpu import own_cpu_sec

_PROMPT = "Review the diff of branch fix/lock and answer PASS or list what must change"


class Handle(Protocol):
    """The handler; ``at_ns`` is the monotonic time of the start, if it was in another process."""

    def __call__(self, number: int, at_ns: int | None = None) -> None: ...


def ignore(number: int, at_ns: int | None = None) -> None:
    """Be the handler where no job is run."""


def prompt(number: int) -> str:
    """Return the payload of a job, the same for all peers."""
    return f"{_PROMPT} ({number})"


def number_of(text: str) -> int:
    """Return the number of the job with that payload."""
    return int(text.rpartition("(")[2][:-1])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a queue is; ``url`` is a database's or a server's, and empty for a queue in a file."""

    folder: Path
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerInfo:
    """The facts that a reader needs to judge a worker's numbers.

    Attributes:
        slots: what the slots are: threads, tasks of an event loop, processes.
        durability: full (what is committed survives power loss) or normal (power loss may take the last commits).
        syncs: what is synced for a job with an empty handler, in words.
        ends_recorded: True if the end of a job is committed before the job counts as done.
        if_worker_dies: what happens to a job whose worker dies.
        settings: the settings, and which of them are ours.
    """

    label: str
    engine: str
    slots: str
    durability: str
    syncs: str
    ends_recorded: bool
    if_worker_dies: str
    settings: str
    version: str

    @property
    def equal(self) -> bool:
        """Return whether a done job is as safe as with jobdb: synced, with its end."""
        return self.durability == "full" and self.ends_recorded


class Peer(ABC):
    """One worker and its queue.

    Attributes:
        server: the server it needs: "", "postgresql" or "redis".
    """

    server: ClassVar[str] = ""

    def __init__(self, place: Place, slots: int) -> None:
        self.place = place
        self.slots = slots

    @abstractmethod
    def info(self) -> PeerInfo: ...

    @abstractmethod
    def prepare(self, jobs: int) -> None:
        """Create the queue in the empty place, with the jobs 0 to ``jobs`` - 1 waiting. Not measured."""

    @abstractmethod
    def start(self, handle: Handle) -> None:
        """Start the worker."""

    def check(self) -> None:  # noqa: B027
        """Raise if the worker has died."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the worker when its slots have done what they began."""

    @abstractmethod
    def ended(self) -> int | None:
        """Return how many jobs have ended, according to the queue itself. The worker is stopped.

        None: the queue keeps nothing of an ended job; that none is left was checked.
        """

    def cpu_sec(self) -> float:
        """Return the CPU seconds that the worker has used so far."""
        return own_cpu_sec()


class WorkerPeer(Peer):
    """A queue with a worker of its own, whose waiting for jobs is measured, too."""

    @abstractmethod
    def open_producer(self) -> None:
        """Connect, in a process that only registers jobs."""

    @abstractmethod
    def add(self, number: int) -> None:
        """Register one job."""

    def close_producer(self) -> None:
        """Disconnect."""


class Loop(Peer):
    """A loop in threads around the verbs of a queue without a worker of its own."""

    def __init__(self, place: Place, slots: int) -> None:
        super().__init__(place, slots)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    @abstractmethod
    def work(self, handle: Handle, stopping: threading.Event) -> None:
        """Be one slot: claim, handle, end until ``stopping`` is set; when nothing is left, wait for that a little."""

    def _run(self, handle: Handle) -> None:
        try:
            self.work(handle, self._stopping)
        except BaseException as error:
            self._errors.append(error)

    def start(self, handle: Handle) -> None:
        self._threads = [threading.Thread(target=self._run, args=(handle,), daemon=True) for _ in range(self.slots)]
        for thread in self._threads:
            thread.start()

    def check(self) -> None:
        if self._errors:
            raise self._errors[0]

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self.check()
