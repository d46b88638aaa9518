"""A job of the old registry as the values that are stored of it, proven against its files.

Made by the source reader, here or in the reading process; what the importer plans, writes and compares. All values
are plain, so that they go from process to process as they are, and into statements without being made into objects.

The proof is the first half of the import's verification: turned back, the values are the record and, byte for byte,
the logs that were read. The second half, that the database holds these values, is in verify.
"""

from __future__ import annotations

import hashlib
import json
import marshal
from collections.abc import Sequence
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any, NamedTuple

from ...engines.sql.rows import shorten
from ...errors import StorageFailed
from ...model import JobStatus
from ..database.job_row import EMPTY_TOKEN_MARKER, add_key_markers, record_from_values
from ..database.stored_logs import rebuild_logs_from
from ..folder.layout import EntryKind
from ..format.damage import Damaged, DamageKind, TrustWarning
from ..format.jobdb_state import State
from ..format.log_reader import mask
from ..format.record import LegacyRecord
from .source import SourceJob
from .trust import FULL_TRUST, Trust

Json = Any
Event = tuple[int, str, int | None, int, bytes, str]
"""seq, event, attempt, recorded_ms, digest, payload: the columns of ``events``."""

Line = tuple[str, int, bytes]
"""log, number, raw: the columns of ``import_lines``."""

JOB_COLUMNS = (
    "job_id",
    "status",
    "agent",
    "agent_session",
    "topic_prefix",
    "timeout_sec",
    "idle_timeout_sec",
    "has_broker",
    "kid",
    "last_seq",
    "attempt",
    "terminal_seq",
    "created_ms",
    "updated_ms",
    "started_ms",
    "finished_ms",
    "last_event",
    "last_event_ms",
    "detail",
)
"""Of the statements ``legacy_insert_job``, ``legacy_update_job`` and ``legacy_written``, in this order."""

SPEC_COLUMNS = ("prompt", "broker", "expected_artifacts", "extra")
"""Of ``legacy_insert_spec``, ``legacy_update_spec`` and ``legacy_written``; the sealed password is not among them."""

ORIGIN_COLUMNS = (
    "updated_ms",
    "record_seq",
    "job_seq",
    "absent",
    "event_form",
    "event_digest",
    "audit_form",
    "audit_digest",
)
"""Of ``legacy_put_import`` and ``legacy_written``."""

TOKEN_COLUMNS = ("kid", "imported", "created_ms", "expires_ms", "revoked_ms")
CLAIM_COLUMNS = ("worker", "lease_until_ms")

STORED_COLUMNS = (*JOB_COLUMNS, *SPEC_COLUMNS, *ORIGIN_COLUMNS, *TOKEN_COLUMNS, *CLAIM_COLUMNS)
"""Of ``legacy_written``, without the job's number and the sealed secrets, which only the importing process knows."""

_SPEC = len(JOB_COLUMNS)
_ORIGIN = _SPEC + len(SPEC_COLUMNS)
_TOKEN = _ORIGIN + len(ORIGIN_COLUMNS)
_KID = JOB_COLUMNS.index("kid")
_ABSENT = ORIGIN_COLUMNS.index("absent")
_NO_TOKEN = (None,) * len(TOKEN_COLUMNS)
_UNCLAIMED = (None,) * len(CLAIM_COLUMNS)

_IN_BROKER_TEXT = frozenset({"broker.tls", "broker.username"})
_FINAL = frozenset(status.value for status in JobStatus if status.terminal)
_AUDIT_FILES = (EntryKind.AUDIT_LOG, EntryKind.AUDIT_META, EntryKind.AUDIT_STATUS)
_USUAL_BROKER = frozenset({"host", "port", "tls", "username"})
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


class DeferredJob(NamedTuple):
    """A pending job whose turn is at the end: nothing but its record was read, and it will be read again."""

    job_id: str
    created_ms: int


class StoredValues(NamedTuple):
    """`ReadyJob.stored`, unpacked and with names, for the jobs that need a look."""

    values: tuple[Json, ...]
    events: list[Event]
    lines: list[Line]

    @property
    def job(self) -> tuple[Json, ...]:
        """The values of `JOB_COLUMNS`."""
        return self.values[:_SPEC]

    @property
    def spec(self) -> tuple[Json, ...]:
        """The values of `SPEC_COLUMNS`."""
        return self.values[_SPEC:_ORIGIN]

    @property
    def origin(self) -> tuple[Json, ...]:
        """The values of `ORIGIN_COLUMNS`."""
        return self.values[_ORIGIN:_TOKEN]

    def record(self, token: str | None, password: str | None) -> LegacyRecord:
        """The record that was read."""
        _, seq, _, absent, *_ = self.origin
        return record_from_values(self.job, self.spec, absent, seq, token, password)

    @property
    def key(self) -> tuple[int | None, int | None, int | None, int | None, int | None]:
        """The values of `TOKEN_COLUMNS`."""
        return self.values[_TOKEN : _TOKEN + len(TOKEN_COLUMNS)]

    @property
    def updated_ms(self) -> int:
        """When the record was last written, Unix milliseconds."""
        moment: int = self.origin[0]
        return moment

    @property
    def last_seq(self) -> int:
        """What the job's last_seq must be: the record's, or the log's where that is ahead."""
        seq: int = self.origin[2]
        return seq

    @property
    def event_digest(self) -> bytes | None:
        """SHA-256 of the event log."""
        digest: bytes | None = self.origin[5]
        return digest

    @property
    def audit_digest(self) -> bytes | None:
        """SHA-256 of the audit log with those of its small files behind it."""
        digest: bytes | None = self.origin[7]
        return digest

    def contains_nul(self) -> bool:
        """Whether a text holds a NUL character, which PostgreSQL cannot store."""
        return any("\0" in text for text in (self.spec[0], self.job[2], self.job[3] or "", self.job[4]))


class NormalizedJob(NamedTuple):
    """What is to be stored of one job.

    Attributes:
        bytes_read: how much memory its files took, for keeping what is read at once within bounds.
        stored: the values of `STORED_COLUMNS`, the events by seq and the other lines by log and number, packed by
            `pack_values`. Secrets that stood in lines are replaced by marks.
        token: in clear; None when the record has none, or an empty one.
        password: the broker's, in clear.
        notes: what is unusual and harmless, a sentence each.
        trust_note: how its events are believed, where that is not by a sound token.
        damage: files beside the record that could not be taken over as a whole: path, kind, reason.
        events: how many there are.
        has_event_log: one was read.
        state: what the record's other members cannot say; its attempt only if the events do not say it.
        warning: the same as a value of `damage.TrustWarning`, or empty.
    """

    job_id: str
    status: str
    created_ms: int
    bytes_read: int
    stored: bytes
    token: str | None
    password: str | None
    notes: list[str]
    damage: list[tuple[str, str, str]]
    events: int
    has_event_log: bool
    state: State | None
    trust_note: str
    warning: str

    def __repr__(self) -> str:
        return f"<ReadyJob {self.job_id}>"

    def unpack_values(self) -> StoredValues:
        """The values, events and lines."""
        return StoredValues(*marshal.loads(self.stored))


def pack_values(values: tuple[Json, ...], events: list[Event], lines: list[Line]) -> bytes:
    """What is stored of a job, in one canonical form.

    marshal, in the version without references, writes equal values of equal types as equal bytes. ``==`` would take
    1, 1.0 and true for the same.
    """
    return marshal.dumps((values, events, lines), 2)


def normalize_job(source: SourceJob) -> NormalizedJob | Damaged:
    """The values of a job, or that they would not be the job: then it is left where it is.

    Damaged is the answer to a mistake of ours, which nobody knows of: better one job named than one job changed.
    """
    record, logs = source.record, source.logs
    events = [event[:6] for event in logs.events]
    lines: list[Line] = []
    if logs.kept:
        secrets = {"auth_token": record.auth_token, "broker.password": record.broker_password}
        lines = sorted((line.log.value, line.number, mask(line.raw, secrets)) for line in logs.kept)
    token, password = record.auth_token or None, record.broker_password
    job, spec, origin = _job_values(source), _spec_values(record), _origin_values(source)
    trust = Trust.from_record(record, source.auth_required_by)
    if trust is not FULL_TRUST:
        job, origin = _with_key_markers(trust, job, origin)
    again = record_from_values(job, spec, origin[3], origin[1], token, password)
    if not records_equal(record, again):
        return Damaged(DamageKind.NOT_HELD, "the database cannot hold it so that it stays the same; please report this")
    if source.digests and not _logs_round_trip(record, origin, events, lines, source.digests):
        return Damaged(
            DamageKind.NOT_HELD, "the database cannot hold its logs so that they stay the same; please report"
        )
    about_token: tuple[Json, ...] = _NO_TOKEN
    if trust.kid:
        created_ms = record.created_ms if trust.created_ms is None else trust.created_ms
        about_token = (trust.kid, 1, created_ms, trust.expires_ms, trust.revoked_ms)
    return NormalizedJob(
        record.job_id,
        record.status,
        record.created_ms,
        source.bytes_read,
        pack_values(job + spec + origin + about_token + _UNCLAIMED, events, lines),
        token,
        password,
        source.notes(),
        [(name, damaged.kind.value, damaged.reason) for name, damaged in source.damage] if source.damage else [],
        len(events),
        EntryKind.EVENT_LOG in source.digests,
        _state_beyond(record.state, events) if record.state else None,
        trust.note,
        trust.warning,
    )


def _with_key_markers(
    trust: Trust, job: tuple[Json, ...], origin: tuple[Json, ...]
) -> tuple[tuple[Json, ...], tuple[Json, ...]]:
    """Return the job's values with its key, and the origin's with what tells that key from one that was made here."""
    absent = add_key_markers(origin[_ABSENT], trust.kid, trust.no_token_reason)
    return (*job[:_KID], trust.kid, *job[_KID + 1 :]), (*origin[:_ABSENT], absent, *origin[_ABSENT + 1 :])


def replace_key(
    source: NormalizedJob,
    kid: int,
    *,
    token: str | None,
    revoked_ms: int | None = None,
    no_token_reason: str = "",
    note: str,
) -> NormalizedJob:
    """Return the job with another key than its record has: the one that is in the database already.

    Args:
        source: the job.
        kid: the key's version.
        token: in clear; None for one that nobody has.
        revoked_ms: of a revoked one.
        no_token_reason: why nobody has it, if the import made it.
        note: what is to be said of it.
    """
    values, events, lines = source.unpack_values()
    if token is not None:
        lines = [(log, number, mask(raw, {"auth_token": token})) for log, number, raw in lines]
    job, origin = list(values[:_SPEC]), list(values[_ORIGIN:_TOKEN])
    job[_KID] = kid
    origin[_ABSENT] = add_key_markers(origin[_ABSENT], kid, no_token_reason)
    about = (kid, 1, source.created_ms, None, revoked_ms)
    values = (*job, *values[_SPEC:_ORIGIN], *origin, *about, *values[_TOKEN + len(about) :])
    warning = TrustWarning.NO_USABLE_TOKEN.value if token is None else source.warning if source.token else ""
    return source._replace(token=token, stored=pack_values(values, events, lines), trust_note=note, warning=warning)


def _state_beyond(state: State, events: Sequence[Event]) -> State | None:
    """Return the state without an attempt that the events say too, or are beyond."""
    if state.get("attempt", 0) > max((event[2] or 0 for event in events), default=0):
        return state
    rest = {name: value for name, value in state.items() if name != "attempt"}
    return rest if len(rest) > 1 else None


def records_equal(one: LegacyRecord, other: LegacyRecord) -> bool:
    """Whether two records are equal, types included, where their other texts and numbers are the same objects."""
    return one.fields() == other.fields() and (
        marshal.dumps((one.broker, one.expected_artifacts, one.extra), 2)
        == marshal.dumps((other.broker, other.expected_artifacts, other.extra), 2)
    )


def _logs_round_trip(
    record: LegacyRecord,
    origin: tuple[Json, ...],
    events: list[Event],
    lines: list[Line],
    digests: dict[EntryKind, bytes],
) -> bool:
    try:
        found = log_digests(record, origin, events, [(log, raw) for log, _, raw in lines])
    except StorageFailed:
        return False
    return found == (digests.get(EntryKind.EVENT_LOG, b""), digests.get(EntryKind.AUDIT_LOG, b""))


def log_digests(
    record: LegacyRecord, origin: tuple[Json, ...], events: Sequence[Event], lines: Sequence[tuple[str, bytes]]
) -> tuple[bytes, bytes]:
    """The digests of the event log and of the audit log's files, as these values write them."""
    if origin[6] is None and origin[7] is None and not lines and origin[4] in ("1", f"1-{len(events)}"):
        # As nearly all are: nothing but an event log, and nothing but events in it.
        content = "\n".join([event[5] for event in events]) + "\n"
        return hashlib.sha256(content.encode()).digest(), b""
    payloads = {event[0]: event[5] for event in events}
    logs = rebuild_logs_from(record, origin[4], origin[6], origin[7], payloads, lines)
    digests = {kind: hashlib.sha256(content).digest() for kind, content in logs.items()}
    return digests.get(EntryKind.EVENT_LOG, b""), b"".join(digests.get(kind, b"") for kind in _AUDIT_FILES)


def _job_values(source: SourceJob) -> tuple[Json, ...]:
    record, events = source.record, source.logs.events
    first, last = (events[0], events[-1]) if events else (None, None)
    final = record.status in _FINAL
    attempts = [event[2] for event in events if event[2] is not None]
    if record.state:
        attempts.append(record.state.get("attempt", 0))
    return (
        record.job_id,
        record.status,
        record.agent,
        record.agent_session,
        record.topic_prefix,
        record.timeout_sec,
        record.idle_timeout_sec,
        0 if record.broker is None else 1,
        1 if record.auth_token else 0,
        source.last_seq,
        max(attempts) if attempts else 0,
        _terminal_seq(source) if final else None,
        record.created_ms,
        record.updated_ms,
        first.recorded_ms if first else None,
        record.updated_ms if final else None,
        last.event if last else None,
        last.recorded_ms if last else None,
        shorten(last.detail) if last and last.detail else None,
    )


def _terminal_seq(source: SourceJob) -> int:
    """The seq of the event that ended the job; without one, the last seq there is."""
    for event in source.logs.events:
        if event.event == source.record.status:
            return event.seq
    return source.last_seq


def _spec_values(record: LegacyRecord) -> tuple[str, str | None, str, str]:
    return (
        record.prompt,
        None if record.broker is None else _broker_text(record.broker),
        f"[{','.join(map(encode_basestring, record.expected_artifacts))}]",
        _encode(record.extra) if record.extra else "{}",
    )


def _broker_text(broker: dict[str, Json]) -> str:
    if broker.keys() == _USUAL_BROKER:
        return _usual_broker_text(tuple(broker.items()))
    return _encode(broker)


@lru_cache(maxsize=256)
def _usual_broker_text(items: tuple[tuple[str, Json], ...]) -> str:
    """Of a broker without fields of unknown types. Most jobs share a few brokers."""
    return _encode(dict(items))


def _origin_values(source: SourceJob) -> tuple[Json, ...]:
    record, forms, digests = source.record, source.logs.forms, source.digests
    absent = ""
    if record.absent:
        absent = " ".join(name for name in record.absent if name not in _IN_BROKER_TEXT)
    if record.auth_token == "":
        absent = f"{absent} {EMPTY_TOKEN_MARKER}".lstrip()
    return (
        record.updated_ms,
        record.last_seq,
        source.last_seq,
        absent,
        forms.get(EntryKind.EVENT_LOG),
        digests.get(EntryKind.EVENT_LOG),
        forms.get(EntryKind.AUDIT_LOG),
        digests.get(EntryKind.AUDIT_LOG),
    )
