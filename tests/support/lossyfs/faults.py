"""Rules for the requests that fail and the one at which the power is cut. Pure; ``server`` asks before each request.

Requests are named: lookup, create, open, read, write, header (a write at offset 0, as a WAL restart makes),
truncate, sync, unlink, rename. ``change`` matches every request that changes something.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

CHANGES = frozenset({"create", "write", "header", "truncate", "sync", "unlink", "rename"})


@dataclass
class Trigger:
    """A rule that matches requests of one kind on names of one pattern, after ``skip`` of them.

    Args:
        request: a request's name, or ``change``.
        pattern: of the file's last name, as the shell writes it.
        skip: how many matching requests pass first.
        count: how many match then; -1 for all.
        error: the errno to answer with; 0 for a trigger that does not answer.
    """

    request: str
    pattern: str
    skip: int = 0
    count: int = -1
    error: int = 0

    def fires(self, request: str, name: str) -> bool:
        wanted = self.request == request or (
            request in CHANGES if self.request == "change" else self.request == "write" and request == "header"
        )
        if not wanted or not fnmatchcase(name, self.pattern) or self.count == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.count -= self.count > 0
        return True


class Faults:
    """The errors to inject, in order, and counts of seen and failed requests."""

    def __init__(self) -> None:
        self.triggers: list[Trigger] = []
        self.seen: dict[str, int] = {}
        self.failed = 0

    def check(self, request: str, name: str) -> int:
        """Return the errno that this request must fail with, or 0."""
        self.seen[request] = self.seen.get(request, 0) + 1
        for trigger in self.triggers:
            if trigger.fires(request, name):
                self.failed += 1
                return trigger.error
        return 0
