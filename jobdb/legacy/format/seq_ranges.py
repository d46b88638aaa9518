"""Ranges of seqs: the compact form of gaps, log forms and skipped seqs.

Called by the readers of logs and states, and by the verification for row ids. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class SeqRange(NamedTuple):
    """A range of seqs, both ends included. Its text is ``5`` or ``5-9``."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    @classmethod
    def parse(cls, text: str) -> SeqRange:
        """Parse a range in the format of `__str__`."""
        first, _, last = text.partition("-")
        return cls(int(first), int(last or first))

    def seqs(self) -> range:
        """Return the seqs of the range."""
        return range(self.first, self.last + 1)


def consecutive_ranges(numbers: Iterable[int]) -> Iterator[SeqRange]:
    """Yield ascending numbers, which may repeat, as ranges without gaps."""
    first = last = None
    for number in numbers:
        if first is None or last is None:
            first = number
        elif number > last + 1:
            yield SeqRange(first, last)
            first = number
        last = number
    if first is not None and last is not None:
        yield SeqRange(first, last)


def missing_ranges(seqs: Iterable[int]) -> list[SeqRange]:
    """Return the ranges missing before and between ascending seqs, counted from 1."""
    expected = 1
    gaps = []
    for seq in seqs:
        if seq > expected:
            gaps.append(SeqRange(expected, seq - 1))
        expected = seq + 1
    return gaps


def intersect_ranges(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> list[SeqRange]:
    """Return the intersection of two lists of ascending ranges.

    Args:
        one, other: pairs of first and last; may be lists, as in JSON.
    """
    found = []
    first = second = 0
    while first < len(one) and second < len(other):
        low, high = max(one[first][0], other[second][0]), min(one[first][1], other[second][1])
        if low <= high:
            found.append(SeqRange(low, high))
        if one[first][1] < other[second][1]:
            first += 1
        else:
            second += 1
    return found
