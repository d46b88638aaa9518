"""What a measured way is: a small class that prepares a registry and does the same verbs as all the others.

Subclasses live beside this file, one a module. harness.py calls prepare() once for a template folder, then
in each worker open(), ready(), the verbs, restore() and close(). A verb returns how many jobs or events it
dealt with (list_page: pages), 0 when there is nothing left to do. A verb that a way does not have stands in
``unsupported`` with the reason, and is not measured.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

OPERATIONS = ("register", "claim", "publish", "accept", "complete", "list_page", "life")
BATCH_OPERATIONS = ("register_100", "publish_100", "accept_100")
LIFE_EVENTS = 3

Verb = Callable[[], int]

NO_BATCH = "has no batch verb for it"


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """What a reader must know to judge a way's numbers.

    Attributes:
        durability: full (what was answered survives power loss), normal (survives the process's death; the
            last answers may go at power loss, the file stays whole) or none (as normal, and nothing promises
            that the file stays whole).
        as_shipped: whether these are the settings that its authors ship.
        settings: what was set, in words.
        version: of the software measured.
        notes: verbs that do less or other than jobdb's, and how.
    """

    label: str
    durability: str
    as_shipped: bool
    settings: str
    version: str
    notes: dict[str, str] = field(default_factory=dict)


class Adapter(ABC):
    """One way to keep a registry, in one folder, as one worker sees it."""

    unsupported: ClassVar[dict[str, str]] = {}
    busy_errors: tuple[type[BaseException], ...] = ()
    max_workers: int = 1024

    def __init__(self, folder: Path, durability: str) -> None:
        self.folder = folder
        self.durability = durability
        self.worker = 0
        self.workers = 1

    @classmethod
    @abstractmethod
    def about(cls, durability: str) -> AdapterInfo:
        """Describes the way at that durability."""

    @classmethod
    def unavailable(cls) -> str:
        """Why the way cannot run here; empty when it can."""
        return ""

    @abstractmethod
    def prepare(self, size: int) -> None:
        """Makes a registry of that many jobs in the empty folder. Not measured."""

    def after_copy(self) -> None:  # noqa: B027
        """Called once in a fresh copy of a prepared folder. Not measured."""

    def before_remove(self) -> None:  # noqa: B027
        """Called before the folder is deleted. Not measured."""

    @abstractmethod
    def open(self, worker: int, workers: int) -> None:
        """Connects as that worker of so many."""

    def prefill(self, operation: str, count: int) -> None:  # noqa: B027
        """Lays in what ``count`` calls of the operation will use up. Not measured."""

    def reset_claims(self) -> None:  # noqa: B027
        """Puts what this worker claimed back to pending. Not measured."""

    @abstractmethod
    def close(self) -> None:
        """Disconnects."""

    def verb(self, operation: str) -> Verb:
        """The method for an operation that is not absent."""
        found: Verb = getattr(self, operation)
        return found
