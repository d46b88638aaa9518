"""The interface of a measured implementation: a small class that prepares a registry and offers the common verbs.

Subclasses are beside this file, one per module. harness.py calls prepare() once for a template folder, then in each
worker open(), prefill(), the verbs, reset_claims() and close(). A verb returns the number of jobs or events that it
processed (list_page: pages), 0 when there is nothing left to do. A verb that an implementation lacks is listed in
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
    """The facts that a reader needs to judge an implementation's numbers.

    Attributes:
        durability: full (acknowledged writes survive power loss), normal (they survive the death of the process; power
            loss may take the last ones, but the file stays intact) or none (as normal, but without a promise that the
            file stays intact).
        as_shipped: True for the settings that its authors ship.
        settings: the settings, in words.
        version: the version of the measured software.
        notes: verbs that do less than jobdb's or something else, and how they differ.
    """

    label: str
    durability: str
    as_shipped: bool
    settings: str
    version: str
    notes: dict[str, str] = field(default_factory=dict)


class Adapter(ABC):
    """One implementation of a registry, in one folder, as used by one worker."""

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
    def info(cls, durability: str) -> AdapterInfo:
        """Return the description of the implementation at that durability."""

    @classmethod
    def reason_unavailable(cls) -> str:
        """Return why the implementation cannot run here; an empty text when it can."""
        return ""

    @abstractmethod
    def prepare(self, size: int) -> None:
        """Create a registry with ``size`` jobs in the empty folder. Not measured."""

    def after_copy(self) -> None:  # noqa: B027
        """Adjust a fresh copy of a prepared folder. Not measured."""

    def before_remove(self) -> None:  # noqa: B027
        """Release what is outside the folder before the folder is deleted. Not measured."""

    @abstractmethod
    def open(self, worker: int, workers: int) -> None:
        """Connect as worker number ``worker`` of ``workers``."""

    def prefill(self, operation: str, count: int) -> None:  # noqa: B027
        """Prepare what ``count`` calls of the operation will consume. Not measured."""

    def reset_claims(self) -> None:  # noqa: B027
        """Make the jobs that this worker claimed pending again. Not measured."""

    @abstractmethod
    def close(self) -> None:
        """Disconnect."""

    def verb(self, operation: str) -> Verb:
        """Return the method for a supported operation."""
        verb: Verb = getattr(self, operation)
        return verb
