"""The agent's channel: the lines that a job's processes write to ``$JOBDB_EVENTS``, parsed into events.

Called by the worker with what the keeper read. Pure: any bytes give events or invalid lines, never an exception.

A line is a kind and a detail, or one JSON object::

    progress step 3 of 10
    {"event": "progress", "detail": "step 3 of 10", "pct": 30, "data": {"file": "a.txt"}}

The kinds ``started``, ``progress`` and ``permission_required`` are published as they are. ``completed`` and ``error``
end nothing, because the exit code does, and an agent that goes on after it has said "completed" is still at work. They
set the detail and the data with which the attempt ends, if it ends that way: ``completed`` counts when the job
completes, ``error`` when the attempt fails or gives the job back. Of several, the last one counts
(:class:`FinalWords`).

In the JSON form ``detail``, ``data`` and ``pct`` may be left out; ``pct``, a number from 0 to 100, is stored in
``data``. Blank lines are skipped. A line that ``publish`` would refuse, whatever the event's number, is invalid.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from json import JSONEncoder
from typing import Any

from ..core.arguments import shown
from ..core.protocol import MAX_DETAIL_CHARS, MAX_KID, MAX_PAYLOAD_BYTES, MAX_SEQ, MalformedPayload, build, decode
from ..errors import InvalidInput
from ..model import EventKind, NewEvent
from ..system.terminal import sanitize

MAX_LINE_BYTES = MAX_PAYLOAD_BYTES
"""The longest line, without its line feed."""

CUT_LINE_MARK = b"\0"
"""The first byte of the line that the keeper sends in place of one that was too long."""

RESERVED_NAMES = ("attempt", "hmac_kid", "hmac_sig")
"""The names in ``data`` that the registry sets itself."""

_FIELDS = ("event", "detail", "data", "pct")
_KINDS = {kind.value: kind for kind in EventKind}
_FINAL = (EventKind.COMPLETED, EventKind.ERROR)
_SHOWN_CHARS = 120
_KEPT_DETAIL_CHARS = 4000
_MOST_NAMES = 100
_BLANKS = b" \t\r\n"
_words = re.compile(r"([^ \t]+)(?:[ \t]+(.*))?", re.DOTALL).fullmatch
_encode = JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class ChannelEvent:
    """One event that an agent wrote, within the limits of the protocol.

    Attributes:
        event: its kind.
        detail: a sentence for people, possibly empty.
        data: further facts.
    """

    event: EventKind
    detail: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_final(self) -> bool:
        """True if it is not published itself but says how the attempt ended."""
        return self.event in _FINAL

    def for_attempt(self, job_id: str, attempt: int) -> NewEvent:
        """Return the event to publish for an attempt of a job."""
        return NewEvent(job_id=job_id, event=self.event, detail=self.detail, data=self.data, attempt=attempt)


@dataclass(frozen=True, slots=True)
class InvalidLine:
    """A line that is no event.

    Attributes:
        text: its beginning, safe to show.
        reason: what is wrong with it, in a sentence.
    """

    text: str
    reason: str


class _Invalid(Exception):
    """Raised inside this module with the reason why a line is invalid."""


def parse_lines(block: bytes) -> Iterator[ChannelEvent | InvalidLine]:
    """Parse the lines of a block; the end of the block ends its last line.

    Example:
        >>> [event.detail for event in parse_lines(b"progress step 1\\nprogress step 2\\n")]
        ['step 1', 'step 2']
    """
    for line in block.split(b"\n"):
        parsed = parse_line(line)
        if parsed is not None:
            yield parsed


def parse_line(line: bytes) -> ChannelEvent | InvalidLine | None:
    """Parse one line; None for a blank one.

    Example:
        >>> parse_line(b"progress step 3 of 10")
        ChannelEvent(event=<EventKind.PROGRESS: 'progress'>, detail='step 3 of 10', data={})
        >>> parse_line(b'{"event": "progress", "pct": 300}').reason
        'pct is not a number from 0 to 100'
    """
    if len(line) > MAX_LINE_BYTES:
        return InvalidLine(_beginning(line), f"it is longer than {MAX_LINE_BYTES} bytes")
    stripped = line.strip(_BLANKS)
    if not stripped:
        return None
    if stripped.startswith(CUT_LINE_MARK):
        return InvalidLine(_beginning(stripped[len(CUT_LINE_MARK) :]), f"it is longer than {MAX_LINE_BYTES} bytes")
    try:
        event = _parse(stripped)
        _check(event)
    except _Invalid as invalid:
        return InvalidLine(_beginning(stripped), str(invalid))
    return event


def format_line(event: ChannelEvent) -> bytes:
    """Return the line for an event, without a line feed: what an agent in Python may write.

    Raises:
        InvalidInput: the event is beyond the limits of the protocol or of a line.
    """
    try:
        _check(event)
        fields: dict[str, Any] = {"event": event.event.value}
        if event.detail:
            fields["detail"] = event.detail
        if event.data:
            fields["data"] = dict(event.data)
        line = _encode(fields).encode("utf-8")
        if len(line) > MAX_LINE_BYTES:
            raise _Invalid(f"it is longer than {MAX_LINE_BYTES} bytes")
    except _Invalid as invalid:
        raise InvalidInput(f"the event cannot be written to the channel: {invalid}") from None
    return line


class FinalWords:
    """The last words of an attempt's agent, and the detail and data that follow from them."""

    def __init__(self) -> None:
        self._said: dict[EventKind, ChannelEvent] = {}

    def hear(self, event: ChannelEvent) -> None:
        """Remember a final line; it replaces an earlier one of its kind."""
        self._said[event.event] = event

    def combine(self, event: EventKind, detail: str, facts: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the detail and the data of an attempt's end, within the limits of an event.

        Args:
            event: how it ends, completed or error.
            detail: the detail if the agent gave none.
            facts: what the worker found, such as the exit code. They replace the agent's data of the same name.

        Returns:
            The agent's detail, or ``detail``; the agent's data with the facts. If that is too much for one event, the
            agent's data are left out, then a long detail is cut, then the largest facts are left out; ``left_out``
            names what is missing.
        """
        said = self._said.get(event)
        if said is not None and said.detail:
            detail = said.detail
        detail = _cut(detail.replace("\0", "\\0"), MAX_DETAIL_CHARS).encode("utf-8", "backslashreplace").decode()
        data = {**(said.data if said is not None else {}), **facts}
        if _is_publishable(event, detail, data):
            return detail, data
        kept, left_out = dict(facts), ["data"] if said is not None and said.data else []
        while not _is_publishable(event, detail, data := {**kept, "left_out": left_out} if left_out else kept):
            if len(detail) > _KEPT_DETAIL_CHARS:
                detail = _cut(detail, _KEPT_DETAIL_CHARS)
            elif kept:
                largest = max(kept, key=lambda name: _size(kept[name]))
                del kept[largest]
                left_out = [*left_out, largest][:_MOST_NAMES]
            else:
                return detail, {}
        return detail, data


def _parse(line: bytes) -> ChannelEvent:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise _Invalid(f"it is not UTF-8 (byte {problem.start})") from None
    if text.startswith("{"):
        return _parse_object(text)
    words = _words(text)
    assert words is not None, "a stripped line begins with a word"
    kind = _KINDS.get(words[1])
    if kind is None:
        raise _Invalid("it is not a JSON object" if text[0] in '["' else _unknown_event(words[1]))
    return ChannelEvent(kind, words[2] or "")


def _parse_object(text: str) -> ChannelEvent:
    try:
        fields = decode(text)
    except MalformedPayload as problem:
        raise _Invalid(problem.reason) from None
    for name in fields:
        if name not in _FIELDS:
            raise _Invalid(f"unknown field {shown(name)}; the fields are {', '.join(_FIELDS)}")
    if "event" not in fields:
        raise _Invalid("the field event is missing")
    name, detail, data, pct = fields["event"], fields.get("detail", ""), fields.get("data", {}), fields.get("pct")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise _Invalid(_unknown_event(name))
    if not isinstance(detail, str):
        raise _Invalid("detail is not text")
    if not isinstance(data, dict):
        raise _Invalid("data is not an object")
    if "pct" in fields:
        if isinstance(pct, bool) or not isinstance(pct, (int, float)) or not 0 <= pct <= 100:
            raise _Invalid("pct is not a number from 0 to 100")
        if data.get("pct", pct) != pct:
            raise _Invalid("pct differs from the one in data")
        data["pct"] = pct
    return ChannelEvent(kind, detail, data)


def _unknown_event(name: object) -> str:
    return f"unknown event {shown(name)}; use started, progress, permission_required, completed or error"


def _check(event: ChannelEvent) -> None:
    """Refuse what ``publish`` would refuse for some job, number and attempt."""
    for name in RESERVED_NAMES:
        if name in event.data:
            raise _Invalid(f"data sets {name!r}, which the registry sets itself")
    problem = _publish_problem(event.event, event.detail, event.data)
    if problem is not None:
        raise _Invalid(problem)


def _is_publishable(event: EventKind, detail: str, data: Mapping[str, Any]) -> bool:
    return _publish_problem(event, detail, data) is None


def _publish_problem(event: EventKind, detail: str, data: Mapping[str, Any]) -> str | None:
    """Return why an event with the longest job id, number, attempt and key version could not be published, or None."""
    try:
        build(
            job_id="j" * 128,
            seq=MAX_SEQ,
            event=event,
            timestamp="2026-06-19T09:32:00Z",
            detail=detail,
            data=data,
            attempt=MAX_SEQ,
            kid=MAX_KID,
            token="t",
        )
    except InvalidInput as problem:
        return str(problem).partition(" cannot be sent: ")[2] or str(problem)
    return None


def _size(value: object) -> int:
    try:
        return len(_encode(value))
    except (TypeError, ValueError, RecursionError):
        return MAX_PAYLOAD_BYTES


def _beginning(line: bytes) -> str:
    return sanitize(_cut(line[: 4 * _SHOWN_CHARS].decode("utf-8", "backslashreplace"), _SHOWN_CHARS))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
