"""The normalization: converts a source job to the values to store, and verifies them against its files.

Called by ``reader_process``, which reads source jobs in this process or another, and by the plan (`replace_key`); calls
the formats and the trust, and opens no file and no database. Runs once per job: the large tuples are created with
``_make``, in the order of their fields, which takes a fifth of the time of keyword arguments.

This is the first half of the import's verification: converted back, the values must equal the record and, byte for
byte, the logs that were read. The second half, that the database has these values, is in ``verification.py``.
"""

from __future__ import annotations

import json
import marshal
from collections.abc import Sequence
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any

from ...engines.sql.rows import shorten
from ...errors import StorageFailed
from ...model import JobStatus
from ..database.job_row import record_from_values
from ..database.job_values import NO_KEY, JobValues, KeyValues, LineValues, OriginValues, SpecValues
from ..database.key_markers import EMPTY_TOKEN_MARKER, NoTokenReason, add_key_markers
from ..database.stored_logs import log_digests, masked_secrets
from ..format.damage import Damaged, DamageKind, TrustWarning
from ..format.entry_kind import EntryKind
from ..format.jobdb_state import State
from ..format.log_line import LogEvent
from ..format.record import LegacyRecord
from ..format.secret_mask import mask
from .normalized_job import NormalizedJob, pack_values
from .source import SourceJob
from .trust import Trust

Json = Any

_ABSENT_IN_BROKER = frozenset({"broker.tls", "broker.username"})
"""The absent names that the stored broker itself shows."""

_TERMINAL = frozenset(status.value for status in JobStatus if status.terminal)
_USUAL_BROKER = frozenset({"host", "port", "tls", "username"})
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def normalize_job(source: SourceJob) -> NormalizedJob | Damaged:
    """Return a job as the values to store; `Damaged` if they do not reproduce the job.

    `Damaged` here means an unknown bug: it is better to report a job than to change it.
    """
    record, logs = source.record, source.logs
    events = logs.events
    lines: list[LineValues] = []
    if logs.kept:
        secrets = masked_secrets(record)
        lines = sorted(LineValues(line.log.value, line.number, mask(line.raw, secrets)) for line in logs.kept)
    token, password = record.auth_token or None, record.broker_password
    trust = Trust.from_record(record, source.auth_required_by)
    job, spec, origin = _job_values(source, trust), _spec_values(record), _origin_values(source, trust)
    again = record_from_values(job, spec, origin.absent, origin.record_seq, token, password)
    if not records_equal(record, again):
        return Damaged(DamageKind.NOT_HELD, "the database cannot store it without a change; please report this")
    if source.digests and not _logs_round_trip(record, origin, events, lines, source.digests):
        return Damaged(DamageKind.NOT_HELD, "the database cannot store its logs without a change; please report this")
    return NormalizedJob._make(
        (
            record.job_id,
            record.status,
            record.created_ms,
            source.bytes_read,
            pack_values(job, spec, origin, _key_values(record, trust), events, lines),
            token,
            password,
            source.notes(),
            source.damage,
            len(events),
            EntryKind.EVENT_LOG in source.digests,
            _state_beyond(record.state, events) if record.state else None,
            trust.note,
            trust.warning,
        )
    )


def replace_key(
    source: NormalizedJob,
    kid: int,
    *,
    token: str | None,
    revoked_ms: int | None = None,
    no_token_reason: NoTokenReason | None = None,
    note: str,
) -> NormalizedJob:
    """Return the job with its record's key replaced by the one that is already in the database.

    Args:
        source: the job.
        kid: the key's version.
        token: the key in clear text; None for one that nobody has.
        revoked_ms: when it was revoked, Unix milliseconds; None if it was not.
        no_token_reason: why nobody has it, if the import created it.
        note: the sentence about it in the report.
    """
    stored = source.unpack_values()
    lines = stored.lines
    if token is not None:
        lines = [line._replace(raw=mask(line.raw, {"auth_token": token})) for line in lines]
    packed = pack_values(
        stored.job._replace(kid=kid),
        stored.spec,
        stored.origin._replace(absent=add_key_markers(stored.origin.absent, kid, no_token_reason)),
        KeyValues(kid, imported=1, created_ms=source.created_ms, expires_ms=None, revoked_ms=revoked_ms),
        stored.events,
        lines,
    )
    warning = TrustWarning.NO_USABLE_TOKEN.value if token is None else source.warning if source.token else ""
    return source._replace(token=token, packed=packed, trust_note=note, warning=warning)


def _state_beyond(state: State, events: Sequence[LogEvent]) -> State | None:
    """Return the state without its attempt if the events show the same or a higher one."""
    if state.get("attempt", 0) > max((event.attempt or 0 for event in events), default=0):
        return state
    rest = {name: value for name, value in state.items() if name != "attempt"}
    return rest if len(rest) > 1 else None


def records_equal(one: LegacyRecord, other: LegacyRecord) -> bool:
    """Return whether two records are equal, types included, given that their other values are the same objects."""
    return one.fields() == other.fields() and (
        marshal.dumps((one.broker, one.expected_artifacts, one.extra), 2)
        == marshal.dumps((other.broker, other.expected_artifacts, other.extra), 2)
    )


def _logs_round_trip(
    record: LegacyRecord,
    origin: OriginValues,
    events: Sequence[LogEvent],
    lines: Sequence[LineValues],
    digests: dict[EntryKind, bytes],
) -> bool:
    try:
        found = log_digests(origin, record, events, lines)
    except StorageFailed:
        return False
    return found == (digests.get(EntryKind.EVENT_LOG, b""), digests.get(EntryKind.AUDIT_LOG, b""))


def _job_values(source: SourceJob, trust: Trust) -> JobValues:
    record, events = source.record, source.logs.events
    first, last = (events[0], events[-1]) if events else (None, None)
    terminal = record.status in _TERMINAL
    attempts = [event.attempt for event in events if event.attempt is not None]
    if record.state:
        attempts.append(record.state.get("attempt", 0))
    return JobValues._make(
        (
            record.job_id,
            record.status,
            record.agent,
            record.agent_session,
            record.topic_prefix,
            record.timeout_sec,
            record.idle_timeout_sec,
            0 if record.broker is None else 1,
            trust.kid,
            source.last_seq,
            max(attempts) if attempts else 0,
            _terminal_seq(source) if terminal else None,
            record.created_ms,
            record.updated_ms,
            first.recorded_ms if first else None,
            record.updated_ms if terminal else None,
            last.event if last else None,
            last.recorded_ms if last else None,
            shorten(last.detail) if last and last.detail else None,
        )
    )


def _terminal_seq(source: SourceJob) -> int:
    """Return the seq of the event that ended the job, or the last seq if there is none."""
    for event in source.logs.events:
        if event.event == source.record.status:
            return event.seq
    return source.last_seq


def _spec_values(record: LegacyRecord) -> SpecValues:
    return SpecValues._make(
        (
            record.prompt,
            None if record.broker is None else _broker_text(record.broker),
            f"[{','.join(map(encode_basestring, record.expected_artifacts))}]",
            _encode(record.extra) if record.extra else "{}",
        )
    )


def _broker_text(broker: dict[str, Json]) -> str:
    if broker.keys() == _USUAL_BROKER:
        return _usual_broker_text(tuple(broker.items()))
    return _encode(broker)


@lru_cache(maxsize=256)
def _usual_broker_text(items: tuple[tuple[str, Json], ...]) -> str:
    """Return the text of a broker without fields of unknown types. Most jobs share a few brokers."""
    return _encode(dict(items))


def _origin_values(source: SourceJob, trust: Trust) -> OriginValues:
    record, forms, digests = source.record, source.logs.forms, source.digests
    absent = ""
    if record.absent:
        absent = " ".join(name for name in record.absent if name not in _ABSENT_IN_BROKER)
    if record.auth_token == "":
        absent = f"{absent} {EMPTY_TOKEN_MARKER}".lstrip()
    if trust.kid > 1 or trust.no_token_reason:
        absent = add_key_markers(absent, trust.kid, trust.no_token_reason)
    return OriginValues._make(
        (
            record.updated_ms,
            record.last_seq,
            source.last_seq,
            absent,
            forms.get(EntryKind.EVENT_LOG),
            digests.get(EntryKind.EVENT_LOG),
            forms.get(EntryKind.AUDIT_LOG),
            digests.get(EntryKind.AUDIT_LOG),
        )
    )


def _key_values(record: LegacyRecord, trust: Trust) -> KeyValues:
    if not trust.kid:
        return NO_KEY
    created_ms = record.created_ms if trust.created_ms is None else trust.created_ms
    return KeyValues._make((trust.kid, 1, created_ms, trust.expires_ms, trust.revoked_ms))
