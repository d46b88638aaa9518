"""Growing pauses between attempts to run a verb, to connect, or to query a server that does not answer.

Used by the PostgreSQL engine, its pool, its listener and the search for a commit's outcome. Computes pauses only: the
caller waits.
"""

from __future__ import annotations

import random


class Backoff:
    """A pause that grows with each use, up to a limit.

    Args:
        first_sec: the first pause, in seconds.
        longest_sec: the longest pause, in seconds.
        factor: the ratio of each pause to the previous one.

    Attributes:
        pause_sec: the next pause, in seconds.
    """

    __slots__ = ("_factor", "_first_sec", "_longest_sec", "pause_sec")

    def __init__(self, first_sec: float, *, longest_sec: float, factor: float = 1.5) -> None:
        self._first_sec = first_sec
        self._longest_sec = longest_sec
        self._factor = factor
        self.pause_sec = first_sec

    def next(self) -> float:
        """Return the next pause; the one after it is longer."""
        pause = self.pause_sec
        self.pause_sec = min(self._factor * pause, self._longest_sec)
        return pause

    def next_jittered(self) -> float:
        """Return between half and all of the next pause, at random, so that competitors do not collide again."""
        return random.uniform(0.5, 1) * self.next()

    def reset(self) -> None:
        """Start with the first pause again."""
        self.pause_sec = self._first_sec
