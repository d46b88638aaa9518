"""The settings of a worker, checked, and what it counts.

Created by ``Worker``; read by the dispatcher. Pure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..core import arguments
from ..errors import InvalidInput

LEAST_LEASE_SEC = 0.5
MAX_SLOTS = 10_000
DEFAULT_LEASE_SEC = 60.0
DEFAULT_DRAIN_SEC = 600.0
DEFAULT_SLOTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """The settings of a worker; the arguments of ``Worker``, which documents them."""

    concurrency: int = DEFAULT_SLOTS
    agent: str | None = None
    agent_session: str | None = None
    lease_sec: float = DEFAULT_LEASE_SEC
    drain_sec: float = DEFAULT_DRAIN_SEC
    reap: bool = True
    announce: bool = False
    until_empty: bool = False
    once: bool = False

    def checked(self) -> WorkerSettings:
        """Return the settings with each value checked.

        Raises:
            InvalidInput: one is invalid.
        """
        lease_sec = arguments.seconds_as_ms("lease_sec", self.lease_sec) / 1000
        if lease_sec < LEAST_LEASE_SEC:
            raise InvalidInput(
                f"lease_sec must be at least {LEAST_LEASE_SEC} seconds, not {self.lease_sec}",
                advice="a lease must outlast a few transactions; 60 is usual",
            )
        return WorkerSettings(
            concurrency=arguments.integer("concurrency", self.concurrency, least=1, most=MAX_SLOTS),
            agent=arguments.optional_text("agent", self.agent, most=128),
            agent_session=arguments.optional_text("agent_session", self.agent_session, most=256),
            lease_sec=lease_sec,
            drain_sec=arguments.seconds("drain_sec", self.drain_sec),
            reap=arguments.flag("reap", self.reap),
            announce=arguments.flag("announce", self.announce),
            until_empty=arguments.flag("until_empty", self.until_empty),
            once=arguments.flag("once", self.once),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSummary:
    """The summary of a worker's run.

    Attributes:
        claimed: how many jobs it claimed; each attempt counts.
        completed: how many of them completed.
        failed: how many attempts used up a try, whether or not their jobs have ended.
        returned: how many were given back without using up a try.
        lost: how many attempts nothing could be recorded for.
        exit_code: 0; or 126 or 127 if the command of ``jobdb work`` cannot be executed or is missing.
    """

    claimed: int
    completed: int
    failed: int
    returned: int
    lost: int
    exit_code: int = 0


class Tally(Counter[str]):
    """The counts of a worker while it runs, by the names of `WorkerSummary`."""

    def summary(self, exit_code: int) -> WorkerSummary:
        """Return the counts."""
        return WorkerSummary(
            claimed=self["claimed"],
            completed=self["completed"],
            failed=self["failed"],
            returned=self["returned"],
            lost=self["lost"],
            exit_code=exit_code,
        )
