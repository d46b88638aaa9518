"""The reader of event logs and audit logs: converts lines to events and to the log's form.

Called by the reader of source jobs. Pure: no file, clock or database. A line that is not a wire event of the job is
kept as it is, so that the log can be rebuilt byte for byte; ``log_form.py`` describes the form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .damage import Damaged, DamageKind
from .entry_kind import EntryKind
from .log_form import FormBuilder
from .log_line import LogEvent, is_other_object, match_flat_line, parse_flat_line, parse_line
from .secret_mask import MIN_SECRET_CHARS, needles
from .seq_ranges import SeqRange, missing_ranges

MAX_NAMED = 5
"""The maximum number of lines or seqs named in a reason; further ones are only counted."""


@dataclass(slots=True)
class KeptLine:
    """Consecutive lines that are not stored as events, unchanged, and the number of the first.

    Number 0 is a whole file of the audit log.
    """

    log: EntryKind
    number: int
    raw: bytes = field(repr=False)


@dataclass(slots=True)
class JobLogs:
    """The content of the logs of one job.

    Attributes:
        events: the events in order of seq, each seq once.
        kept: the other lines, in the order of the logs.
        forms: the form of each log that exists.
        notes: unusual but harmless observations, a sentence each.
        damage: the lines that may have been events but were not accepted as such, by log.
        highest_seq: the highest seq of all lines that parse as events of the job, including those not accepted.
    """

    events: list[LogEvent] = field(default_factory=list)
    kept: list[KeptLine] = field(default_factory=list)
    forms: dict[EntryKind, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    damage: dict[EntryKind, Damaged] = field(default_factory=dict)
    highest_seq: int = 0


def read_logs(
    job_id: str, logs: Iterable[tuple[EntryKind, bytes]], *, fallback_ms: int, secrets: Sequence[str] = ()
) -> JobLogs:
    """Read the event log and the audit log of one job. The first line with a seq wins, the event log before the audit.

    Args:
        job_id: the job; events of others are not accepted.
        logs: the kind and the complete content of each log.
        fallback_ms: the time of an event with an invalid timestamp, Unix milliseconds.
        secrets: the job's token and password; a line that contains one in clear text is not accepted as an event.
    """
    logs = list(logs)
    guarded = [needle for secret in secrets if len(secret) >= MIN_SECRET_CHARS for needle in needles(secret)]
    if len(logs) == 1:
        log, content = logs[0]
        usual = _read_flat_log(job_id, content, fallback_ms, guarded)
        if usual:
            return JobLogs(usual, [], {log: f"1-{len(usual)}" if len(usual) > 1 else "1"}, [], {}, len(usual))
    reading = _LogReader(job_id, fallback_ms, guarded)
    for log, content in logs:
        reading.read(log, content)
    return reading.finish()


def _read_flat_log(job_id: str, content: bytes, fallback_ms: int, needles: Sequence[bytes]) -> list[LogEvent] | None:
    """Return the events of a log that consists of flat lines with seqs from 1 on; None for any other log."""
    for needle in needles:
        if needle in content:
            return None
    if content.count(b"\n") * MIN_EVENT_BYTES > len(content):
        return None  # it would be a long list of lines that are not events
    try:
        lines = str(content, "utf-8").split("\n")
    except UnicodeDecodeError:
        return None
    if lines.pop():
        return None
    events = []
    for number, line in enumerate(lines, 1):
        event = match_flat_line(line, job_id) or parse_flat_line(line.encode(), job_id, fallback_ms=fallback_ms)
        if event is None or event.seq != number:
            return None
        events.append(event)
    return events


MIN_EVENT_BYTES = 64
"""The minimum length in bytes: the names of an event's required fields alone take more."""

_MAX_CACHED_LINES = 1000
"""The maximum number of short lines whose classification is cached: a log that repeats a line costs little."""

_LINE_BREAK = 10
_LINE_BREAKS = re.compile(rb"\n+")
_TOO_SHORT = Damaged(DamageKind.BAD_LINE, "is not a wire event: it is too short")
_NOT_CACHED = Damaged(DamageKind.BAD_LINE, "was not seen before")
_NAMES = {EntryKind.EVENT_LOG: "the event log", EntryKind.AUDIT_LOG: "the audit log"}


class _LogReader:
    """The reader of one job's logs, one after the other."""

    def __init__(self, job_id: str, fallback_ms: int, needles: Sequence[bytes]) -> None:
        self._job_id = job_id
        self._fallback_ms = fallback_ms
        self._needles = needles
        self._found = JobLogs()
        self._by_seq: dict[int, LogEvent] = {}
        self._by_line: dict[bytes, LogEvent] = {}
        self._short: dict[bytes, Damaged | None] = {}

    def read(self, log: EntryKind, content: bytes) -> None:
        form = FormBuilder()
        bad_lines = _BadLines()
        repeated: dict[int, None] = {}
        seen: set[int] = set()
        guarded = any(needle in content for needle in self._needles)
        # The lines are read in place: a log of nothing but line breaks must not become a list of lines.
        offset = number = 0
        run = _KeptRun(log, content)
        self._short.clear()
        while offset < len(content):
            if content[offset] == _LINE_BREAK:
                blanks = _LINE_BREAKS.match(content, offset)
                assert blanks is not None
                count = blanks.end() - offset
                run.add(number + 1, offset, count, blank=True)
                number += count
                offset += count
                continue
            number += 1
            end = content.find(b"\n", offset)
            unfinished = end < 0
            raw = content[offset:] if unfinished else content[offset:end]
            event = self._by_line.get(raw) or self._classified(raw, log, guarded, bad_lines)
            if isinstance(event, LogEvent):
                if event.seq in seen:
                    repeated[event.seq] = None
                seen.add(event.seq)
            elif event is not None:
                if unfinished and event.kind is DamageKind.BAD_LINE:
                    event = Damaged(DamageKind.CUT_LINE, "is cut short")
                bad_lines.add(number, event)
            if isinstance(event, LogEvent) and self._by_line.get(raw) is event:
                run.finish(offset, form, self._found.kept)
                form.add_event(event.seq)
            else:
                if isinstance(event, LogEvent) and self._by_seq[event.seq] is event:
                    form.add_embedded(event.seq)
                run.add(number, offset, 1, blank=False)
            offset = len(content) if unfinished else end + 1
        run.finish(offset, form, self._found.kept)
        self._found.forms[log] = form.finish(bool(content) and content[-1] != _LINE_BREAK)
        if repeated:
            repeats = _format_few([SeqRange(seq, seq) for seq in repeated])
            self._found.notes.append(f"{_NAMES[log]} repeats seq {repeats}")
        if bad_lines.count:
            self._found.damage[log] = bad_lines.summary()

    def _classified(self, raw: bytes, log: EntryKind, guarded: bool, bad_lines: _BadLines) -> LogEvent | Damaged | None:
        """Classify a line that is not a known event, with as little parsing as possible if it cannot be one."""
        if len(raw) >= MIN_EVENT_BYTES:
            return self._event(raw, log, guarded)
        known = self._short.get(raw, _NOT_CACHED)
        if known is not _NOT_CACHED:
            return known
        if bad_lines.count >= MAX_NAMED:
            # It is only counted, not named, so the reason does not matter.
            return None if raw.isspace() or (log is EntryKind.AUDIT_LOG and is_other_object(raw)) else _TOO_SHORT
        if log is EntryKind.AUDIT_LOG and is_other_object(raw):
            return None
        found = self._event(raw, log, guarded)
        if not isinstance(found, LogEvent) and len(self._short) < _MAX_CACHED_LINES:
            self._short[raw] = found
        return found

    def _event(self, raw: bytes, log: EntryKind, guarded: bool) -> LogEvent | Damaged | None:
        """Classify a line that was not seen before, and record the first line with a seq as its event."""
        event = parse_line(raw, self._job_id, fallback_ms=self._fallback_ms)
        if event is None:
            if raw.strip() and log is EntryKind.EVENT_LOG:
                return Damaged(DamageKind.BAD_LINE, "is not a wire event: it has no seq")
            return None
        if isinstance(event, Damaged):
            return event
        if event.seq > self._found.highest_seq:
            self._found.highest_seq = event.seq
        if guarded and any(needle in raw for needle in self._needles):
            return Damaged(DamageKind.SECRET_IN_CLEAR, "contains the job's token or password in clear text")
        first = self._by_seq.setdefault(event.seq, event)
        if first.digest != event.digest:
            return Damaged(DamageKind.CONFLICTING_LINES, f"has other content for seq {event.seq} than an earlier line")
        if first is event and event.payload.encode("utf-8") == raw:
            self._by_line[raw] = event
        return event

    def finish(self) -> JobLogs:
        found = self._found
        found.events = [self._by_seq[seq] for seq in sorted(self._by_seq)]
        gaps = missing_ranges(event.seq for event in found.events)
        if gaps:
            found.notes.append("the logs have no event for seq " + _format_few(gaps))
        return found


class _BadLines:
    """The lines of a log that may have been events: the first few with their reasons, the others only counted."""

    def __init__(self) -> None:
        self.count = 0
        self._kind = DamageKind.BAD_LINE
        self._named: list[str] = []

    def add(self, number: int, damaged: Damaged) -> None:
        if not self.count:
            self._kind = damaged.kind
        self.count += 1
        if self.count <= MAX_NAMED:
            self._named.append(f"line {number} {damaged.reason}")

    def summary(self) -> Damaged:
        more = f"; and {self.count - MAX_NAMED} more lines" if self.count > MAX_NAMED else ""
        reason = f"{'; '.join(self._named)}{more}. Kept as they are; the other lines were read"
        return Damaged(self._kind, reason)


class _KeptRun:
    """Consecutive kept lines, stored as one piece of the log, or not at all if all are blank."""

    def __init__(self, log: EntryKind, content: bytes) -> None:
        self._log = log
        self._content = content
        self._count = self._first = self._begins = 0
        self._blank = True

    def add(self, number: int, offset: int, count: int, *, blank: bool) -> None:
        """Add consecutive lines.

        Args:
            number: the number of the first line.
            offset: the offset of the first line.
            count: the number of lines.
            blank: True if they are only line breaks.
        """
        if not self._count:
            self._first, self._begins, self._blank = number, offset, True
        self._count += count
        self._blank = self._blank and blank

    def finish(self, ends: int, form: FormBuilder, kept: list[KeptLine]) -> None:
        """End the run at the offset ``ends``."""
        if not self._count:
            return
        if self._blank:
            form.add_blank(self._count)
        else:
            ends -= self._content[ends - 1] == _LINE_BREAK
            kept.append(KeptLine(self._log, self._first, self._content[self._begins : ends]))
            form.add_kept(self._count)
        self._count = 0


def _format_few(ranges: Sequence[SeqRange]) -> str:
    """Return the first few ranges as text."""
    return ", ".join(map(str, ranges[:MAX_NAMED])) + (", …" if len(ranges) > MAX_NAMED else "")
