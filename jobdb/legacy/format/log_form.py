"""The form of a log: the order of its events and other lines, from which it can be rebuilt byte for byte.

Called by ``log_reader``, which builds a form, and by the verification and the export, which render it. Pure. A form is
a string: ``k 1-4 k2 5 b9`` is a kept line, the events 1 to 4, two kept lines that are stored as one text, event 5, nine
blank lines; ``=6-8`` at the end means that kept lines are these events in another form than on the wire, and a final
``!`` that the last line had no line break. So neither rows nor forms grow with blank lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .seq_ranges import SeqRange, consecutive_ranges


def render_log(form: str, payload: Callable[[int], str], kept: Iterator[bytes]) -> bytes:
    """Return the content of a log as it was read.

    Args:
        form: the log's form.
        payload: returns the wire form of the event with a seq.
        kept: the kept lines in order.

    Raises:
        KeyError: an event or a kept line is missing.
    """
    items = form.split()
    unfinished = bool(items) and items[-1] == "!"
    if unfinished:
        del items[-1]
    lines: list[bytes] = []
    for item in items:
        if item[0] == "b":
            lines.append(b"\n" * (int(item[1:]) - 1))
        elif item[0] == "=":
            continue
        elif item[0] == "k":
            line = next(kept, None)
            if line is None:
                raise KeyError("a kept line")
            lines.append(line)
        else:
            texts = map(payload, SeqRange.parse(item).seqs())
            lines.append("\n".join(texts).encode("utf-8"))
    if lines and not unfinished:
        lines.append(b"")
    return b"\n".join(lines)


def seqs_in_form(form: str | None) -> set[int]:
    """Return the seqs of a log's events."""
    found: set[int] = set()
    for item in (form or "").split():
        item = item.removeprefix("=")
        if item[0].isdigit():
            found.update(SeqRange.parse(item).seqs())
    return found


class FormBuilder:
    """The builder of a log's form: runs of ascending seqs become ranges."""

    def __init__(self) -> None:
        self._items: list[str] = []
        self._first = self._last = 0
        self._embedded: list[int] = []

    def add_event(self, seq: int) -> None:
        if self._last and seq == self._last + 1:
            self._last = seq
            return
        self._flush()
        self._first = self._last = seq

    def add_kept(self, count: int) -> None:
        self._flush()
        self._items.append("k" if count == 1 else f"k{count}")

    def add_blank(self, count: int) -> None:
        self._flush()
        self._items.append(f"b{count}")

    def add_embedded(self, seq: int) -> None:
        """Add an event that is in a kept line."""
        self._embedded.append(seq)

    def finish(self, unfinished: bool) -> str:
        self._flush()
        self._items += [f"={seqs}" for seqs in consecutive_ranges(sorted(self._embedded))]
        return " ".join([*self._items, "!"] if unfinished else self._items)

    def _flush(self) -> None:
        if self._last:
            self._items.append(str(SeqRange(self._first, self._last)))
            self._first = self._last = 0
