"""One attempt of a command as the command runner knows it: its keeper, its folder, its channel, its time to end.

Used by the command runner's thread alone. Calls the keeper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .channel import ChannelEvent, FinalWords, InvalidLine, parse_lines
from .mailbox import Alive, Heard, Message, Remark
from .runner import MOST_UNWRITTEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..model import Claim
    from .job_folder import AttemptFolder
    from .keeper.client import Keeper
    from .slots import Key

MOST_REMARKS = 20
"""The number of invalid lines of one attempt that are reported; all are counted."""
_NEVER = float("inf")


class AttemptProcess:
    """One attempt of a command.

    Args:
        claim: its claim.
        folder: its folder.
        keeper: its keeper.

    Attributes:
        key: the job's id and the attempt.
        words: what the agent has said about its end.
        cut_at: when everything of it is killed, ``after`` too; it is being stopped.
        was_cut: its keeper was told so.
        is_paused: nothing is read from its keeper, because too many of its events are not recorded yet.
    """

    def __init__(self, claim: Claim, folder: AttemptFolder, keeper: Keeper) -> None:
        self.claim = claim
        self.folder = folder
        self.keeper = keeper
        self.key: Key = (claim.job_id, claim.attempt)
        self.words = FinalWords()
        self.cut_at = _NEVER
        self.was_cut = False
        self.is_paused = False
        self._unwritten = 0
        self._invalid = 0

    def read_lines(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that lines of the channel give."""
        yield Alive(self.key)
        for parsed in parse_lines(data):
            if isinstance(parsed, InvalidLine):
                yield from self._note_invalid(parsed)
            elif parsed.is_final:
                self.words.hear(parsed)
            else:
                yield self._hear(parsed)

    def _hear(self, event: ChannelEvent) -> Message:
        self._unwritten += 1
        return Heard(self.key, event.for_attempt(*self.key))

    def _note_invalid(self, line: InvalidLine) -> Iterator[Message]:
        self._invalid += 1
        if self._invalid > MOST_REMARKS:
            return
        text = f"invalid line on the channel: {line.text} ({line.reason})"
        if self._invalid == MOST_REMARKS:
            text += "; further ones are only counted"
        self.keeper.write_log(f"[jobdb: {text}]\n".encode("utf-8", "replace"))
        yield Remark(self.key, text)

    def last_remark(self) -> Remark | None:
        """Return how many lines were invalid, if not all of them were reported."""
        if self._invalid <= MOST_REMARKS:
            return None
        return Remark(self.key, f"{self._invalid} lines on the channel were invalid")

    @property
    def must_pause(self) -> bool:
        """True if too many of its events are not recorded yet."""
        return self._unwritten >= MOST_UNWRITTEN

    def note_recorded(self, count: int) -> bool:
        """Note that events were recorded; return True if it may go on after a pause."""
        self._unwritten -= count
        return self.is_paused and self._unwritten < MOST_UNWRITTEN // 2
