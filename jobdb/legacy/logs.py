"""Event logs and audit logs of the old registry: lines to events, and the form in which the lines stood there.

Called by the importer (`read_logs`) and the exporter (`write_log`). Pure: no file, clock or database; calls the wire
protocol's parser. A line that is no wire event of this job is kept as it is, so that the log can be written again byte
for byte. A log's *form* says how: ``k 1-4 k 5`` is a kept line, the events 1 to 4, another kept line, event 5; a
final ``!`` says that the last line had no line break.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ..protocol import MAX_PAYLOAD_BYTES, MalformedPayload, UnsupportedVersion, WireEvent, parse
from .damage import Damage, Damaged, quoted
from .jsontext import parse_object
from .layout import EntryKind

MOST_NAMED = 5
"""How many lines or seqs a reason names before it only counts."""


@dataclass(slots=True)
class LogEvent:
    """One event out of a log, ready for the database.

    Attributes:
        recorded_ms: when its author says it happened, Unix milliseconds.
        digest: SHA-256 of its canonical form.
        text: the line, which is its wire form.
    """

    seq: int
    event: str
    attempt: int | None
    recorded_ms: int
    digest: bytes
    detail: str = field(repr=False)
    text: str = field(repr=False)


@dataclass(slots=True)
class KeptLine:
    """A line that is no event here, as it stood in the log. ``secret``: it holds the job's token or password."""

    log: EntryKind
    number: int
    raw: bytes = field(repr=False)
    secret: bool = False


@dataclass(slots=True)
class JobLogs:
    """All that the logs of one job hold.

    Attributes:
        events: by seq, each seq once.
        kept: the other lines, in the order of the logs.
        forms: how each log was laid out; a log that does not exist has none.
        notes: what is unusual and harmless, a sentence each.
        damage: what was not taken over as an event though it may be one, by log.
        highest_seq: of all lines that read as events of the job, those that were not taken over included.
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
    """Reads the event log and the audit log of one job. The first line of a seq wins, the event log before the audit.

    Args:
        job_id: the job; events of others are not taken.
        logs: which log, and its whole content.
        fallback_ms: the time of an event whose timestamp names no real moment, Unix milliseconds.
        secrets: the job's token and password; a line that holds one is marked.
    """
    found = JobLogs()
    by_seq: dict[int, LogEvent] = {}
    needles = [needle for secret in secrets if len(secret) >= 4 for needle in _needles(secret)]
    for log, content in logs:
        _read_log(found, by_seq, job_id, log, content, fallback_ms, needles)
    found.events = [by_seq[seq] for seq in sorted(by_seq)]
    gaps = _gaps([event.seq for event in found.events])
    if gaps:
        found.notes.append("the logs have no event for seq " + _few(gaps))
    return found


def write_log(form: str, payload: Callable[[int], str], kept: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of a log as it was read, line breaks included.

    Args:
        form: the log's form.
        payload: the wire form of the event of a seq.
        kept: the kept lines in order.
    """
    items = form.split()
    unfinished = bool(items) and items[-1] == "!"
    lines = _lines_of(items[:-1] if unfinished else items, payload, kept)
    before = next(lines, None)
    for line in lines:
        yield (before or b"") + b"\n"
        before = line
    if before is not None:
        yield before if unfinished else before + b"\n"


def _lines_of(items: Iterable[str], payload: Callable[[int], str], kept: Iterator[bytes]) -> Iterator[bytes]:
    for item in items:
        if item == "k":
            yield next(kept)
        else:
            first, _, last = item.partition("-")
            for seq in range(int(first), int(last or first) + 1):
                yield payload(seq).encode("utf-8")


def secret_in(raw: bytes, secrets: Iterable[str]) -> bool:
    """Whether bytes hold one of the secrets in clear, as they are or as JSON writes them."""
    return any(needle in raw for secret in secrets if len(secret) >= 4 for needle in _needles(secret))


class _Form:
    """Collects a log's form: runs of ascending seqs become ranges."""

    def __init__(self) -> None:
        self._items: list[str] = []
        self._first = self._last = 0

    def event(self, seq: int) -> None:
        if self._last and seq == self._last + 1:
            self._last = seq
            return
        self._flush()
        self._first = self._last = seq

    def kept(self) -> None:
        self._flush()
        self._items.append("k")

    def finish(self, unfinished: bool) -> str:
        self._flush()
        return " ".join([*self._items, "!"] if unfinished else self._items)

    def _flush(self) -> None:
        if self._last:
            first, last = self._first, self._last
            self._items.append(str(first) if first == last else f"{first}-{last}")
            self._first = self._last = 0


def _read_log(
    found: JobLogs,
    by_seq: dict[int, LogEvent],
    job_id: str,
    log: EntryKind,
    content: bytes,
    fallback_ms: int,
    needles: Sequence[bytes],
) -> None:
    lines = content.split(b"\n")
    unfinished = lines.pop() if lines else b""
    form = _Form()
    wrong: list[tuple[int, Damaged]] = []
    repeated: dict[int, None] = {}
    seen: set[int] = set()
    if unfinished:
        lines.append(unfinished)
    for number, raw in enumerate(lines, 1):
        last_and_cut = bool(unfinished) and number == len(lines)
        event = _wire_event(raw, job_id, log, last_and_cut)
        if isinstance(event, WireEvent):
            found.highest_seq = max(found.highest_seq, event.seq)
        if isinstance(event, WireEvent) and any(needle in raw for needle in needles):
            event = Damaged(Damage.SECRET_IN_CLEAR, "holds the job's token or password in clear")
        if isinstance(event, WireEvent):
            entry = LogEvent(
                event.seq,
                event.event.value,
                event.attempt,
                _moment_ms(event.timestamp, fallback_ms),
                event.digest,
                event.detail,
                event.text,
            )
            first = by_seq.setdefault(entry.seq, entry)
            if first.digest != entry.digest:
                event = Damaged(
                    Damage.CONFLICTING_LINES, f"has another content for seq {entry.seq} than a line before"
                )
            elif first.text.encode("utf-8") == raw:
                form.event(entry.seq)
            if entry.seq in seen:
                repeated[entry.seq] = None
            seen.add(entry.seq)
            if first.digest == entry.digest and first.text.encode("utf-8") == raw:
                continue
        if isinstance(event, Damaged):
            wrong.append((number, event))
        form.kept()
        found.kept.append(KeptLine(log, number, raw, any(needle in raw for needle in needles)))
    found.forms[log] = form.finish(bool(unfinished))
    if repeated:
        found.notes.append(f"{_NAMES[log]} repeats seq {_few([(seq, seq) for seq in repeated])}")
    if wrong:
        found.damage[log] = _summary(wrong)


_NAMES = {EntryKind.EVENT_LOG: "the event log", EntryKind.AUDIT_LOG: "the audit log"}


def _wire_event(raw: bytes, job_id: str, log: EntryKind, last_and_cut: bool) -> WireEvent | Damaged | None:
    """The event of a line; why it is none though it may have been one; or None for a line of another kind."""
    if not raw.strip():
        return None
    try:
        if len(raw) <= MAX_PAYLOAD_BYTES:
            event = parse(raw)
            if event.job_id == job_id:
                return event
            return Damaged(Damage.BAD_LINE, f"is about job {quoted(event.job_id)}")
        reason = f"it is larger than {MAX_PAYLOAD_BYTES} bytes"
    except MalformedPayload as error:
        reason = error.reason
    except UnsupportedVersion as error:
        reason = str(error)
    if last_and_cut:
        return Damaged(Damage.CUT_LINE, "is cut short")
    if len(raw) <= MAX_PAYLOAD_BYTES:
        document = parse_object(raw)
        if isinstance(document, dict) and "seq" not in document:
            return (
                None
                if log is EntryKind.AUDIT_LOG
                else Damaged(Damage.BAD_LINE, "is no wire event: it has no seq")
            )
    return Damaged(Damage.BAD_LINE, f"is no wire event: {reason}")


def _summary(wrong: Sequence[tuple[int, Damaged]]) -> Damaged:
    named = "; ".join(f"line {number} {damaged.reason}" for number, damaged in wrong[:MOST_NAMED])
    more = f"; and {len(wrong) - MOST_NAMED} more lines" if len(wrong) > MOST_NAMED else ""
    return Damaged(wrong[0][1].kind, f"{named}{more}. Kept as they are; the other lines were read")


def _gaps(seqs: Sequence[int]) -> list[tuple[int, int]]:
    expected = 1
    gaps = []
    for seq in seqs:
        if seq > expected:
            gaps.append((expected, seq - 1))
        expected = seq + 1
    return gaps


def _few(ranges: Sequence[tuple[int, int]]) -> str:
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:MOST_NAMED]]
    return ", ".join(shown) + (", …" if len(ranges) > MOST_NAMED else "")


def _moment_ms(timestamp: str, fallback_ms: int) -> int:
    try:
        return int(datetime.fromisoformat(timestamp).timestamp() * 1000)
    except (ValueError, OverflowError):
        return fallback_ms


def _needles(secret: str) -> list[bytes]:
    """A secret as it may stand in a line: as it is, and as JSON writes it with and without ASCII escapes."""
    import json

    forms = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    return [form.encode("utf-8") for form in forms]
