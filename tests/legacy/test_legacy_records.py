"""Test legacy records: valid ones round-trip, all else is reported and never raises."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobdb import InvalidInput
from jobdb.core import registration
from jobdb.core.protocol.topics import topic_error, topic_prefix_error
from jobdb.legacy.format.damage import Damaged, DamageKind
from jobdb.legacy.format.record import FIELDS, LegacyRecord
from jobdb.legacy.format.record_parser import MAX_RECORD_BYTES, _parse_checked, _parse_fast, parse_record
from jobdb.legacy.format.timestamps import format_time, parse_time

LEGAL: dict[str, Any] = {
    "schema_version": 1,
    "job_id": "abc12345",
    "status": "running",
    "created_at": "2026-06-19T09:30:00Z",
    "updated_at": "2026-06-19T09:32:00Z",
    "prompt": "sort ten problems",
    "agent": "codex",
    "agent_session": "tmux:codex-1",
    "broker": {"host": "localhost", "port": 1883, "tls": False, "username": "a", "password": "hunter22"},
    "topic_prefix": "python/mqtt/jobs/abc12345",
    "timeout_sec": 600,
    "idle_timeout_sec": 60,
    "expected_artifacts": ["report.md"],
    "last_seq": 7,
    "auth_token": "0" * 43,
}


def encode(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode()


def damage_of(raw: bytes, name: str = "abc12345.json") -> DamageKind:
    answer = parse_record(raw, name)
    assert isinstance(answer, Damaged), answer
    assert answer.reason
    return answer.kind


def test_every_field_of_a_record_is_read() -> None:
    record = parse_record(encode(LEGAL), "abc12345.json")
    assert isinstance(record, LegacyRecord)
    assert record.created_ms == 1781861400000
    assert record.updated_ms - record.created_ms == 120_000
    assert record.broker == {"host": "localhost", "port": 1883, "tls": False, "username": "a"}
    assert record.broker_password == "hunter22"
    assert record.auth_token == "0" * 43
    assert record.absent == ()
    assert record.as_document() == LEGAL


def test_missing_optional_fields_get_the_old_defaults_and_are_not_exported() -> None:
    bare = {name: LEGAL[name] for name in FIELDS if name not in ("timeout_sec", "idle_timeout_sec", "auth_token")}
    del bare["expected_artifacts"]
    bare["broker"] = {"host": "localhost", "port": 1883}
    record = parse_record(encode(bare), "abc12345.json")
    assert isinstance(record, LegacyRecord)
    assert (record.timeout_sec, record.idle_timeout_sec) == (3600, 120)
    assert (record.expected_artifacts, record.auth_token, record.broker_password) == ([], None, None)
    assert record.as_document() == bare
    nulled = bare | {"auth_token": None, "broker": bare["broker"] | {"password": None}}
    with_nulls = parse_record(encode(nulled), "abc12345.json")
    assert isinstance(with_nulls, LegacyRecord)
    assert with_nulls.as_document() == nulled != bare


def test_no_secret_is_shown() -> None:
    record = parse_record(encode(LEGAL), "abc12345.json")
    assert "hunter22" not in repr(record)
    assert "0" * 43 not in repr(record)
    broken = parse_record(encode(LEGAL | {"last_seq": "hunter22"}), "abc12345.json")
    assert isinstance(broken, Damaged)
    assert "hunter22" not in broken.reason


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"", DamageKind.EMPTY),
        (b" \n", DamageKind.EMPTY),
        (b"\0" * 512, DamageKind.ZEROED),
        (encode(LEGAL)[:100] + b"\0" * 400, DamageKind.ZEROED),
        (encode(LEGAL)[:-1], DamageKind.CUT_SHORT),
        (encode(LEGAL)[:57], DamageKind.CUT_SHORT),
        (b'{"a": tru', DamageKind.CUT_SHORT),
        (b'{"a": -', DamageKind.CUT_SHORT),
        (b'{"a": 1.', DamageKind.CUT_SHORT),
        (b'{"a": "\\u00', DamageKind.CUT_SHORT),
        (b"\xef\xbb\xbf" + encode(LEGAL), DamageKind.BYTE_ORDER_MARK),
        (json.dumps(LEGAL).encode("utf-16"), DamageKind.UTF16),
        (json.dumps(LEGAL).encode("utf-16-le"), DamageKind.UTF16),
        (json.dumps(LEGAL).encode("utf-16-be"), DamageKind.UTF16),
        (b'{"job_id": "abc12345", "prompt": "\xff\xfe"}', DamageKind.NOT_UTF8),
        (b"job_id: abc12345", DamageKind.NOT_JSON),
        (encode(LEGAL) + b"{}", DamageKind.NOT_JSON),
        (b"[1, 2]", DamageKind.NOT_AN_OBJECT),
        (b"null", DamageKind.NOT_AN_OBJECT),
        (b'{"job_id": "a", "job_id": "b"}', DamageKind.DUPLICATE_KEY),
        (encode(LEGAL)[:-1] + b', "notes": {"a": 1, "a": 2}}', DamageKind.DUPLICATE_KEY),
        (encode(LEGAL | {"x": float("nan")}), DamageKind.NOT_A_NUMBER),
        (encode(LEGAL | {"x": [float("-inf")]}), DamageKind.NOT_A_NUMBER),
        (encode(LEGAL)[:-1] + b', "x": 1e999}', DamageKind.HUGE_NUMBER),
        (encode(LEGAL)[:-1] + b', "x": ' + b"9" * 5000 + b"}", DamageKind.HUGE_NUMBER),
        (encode(LEGAL)[:-1] + b', "x": ' + b"[" * 100 + b"]" * 100 + b"}", DamageKind.TOO_DEEP),
        (b"[" * 200_000, DamageKind.TOO_DEEP),
        (encode(LEGAL)[:-1] + b', "x": "\\ud800"}', DamageKind.LONE_SURROGATE),
        (b" " * (MAX_RECORD_BYTES + 1), DamageKind.TOO_LARGE),
    ],
)
def test_bytes_that_are_not_a_json_object(raw: bytes, kind: DamageKind) -> None:
    assert damage_of(raw) is kind


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"job_id": "somebody"}, DamageKind.WRONG_ID),
        ({"job_id": "../../etc/passwd"}, DamageKind.UNSAFE_ID),
        ({"job_id": ".hidden"}, DamageKind.UNSAFE_ID),
        ({"job_id": ""}, DamageKind.UNSAFE_ID),
        ({"job_id": "x" * 129}, DamageKind.UNSAFE_ID),
        ({"job_id": "a\nb"}, DamageKind.UNSAFE_ID),
        ({"job_id": 5}, DamageKind.WRONG_TYPE),
        ({"schema_version": 2}, DamageKind.OTHER_SCHEMA),
        ({"schema_version": "1"}, DamageKind.OTHER_SCHEMA),
        ({"schema_version": 1.0}, DamageKind.OTHER_SCHEMA),
        ({"schema_version": True}, DamageKind.OTHER_SCHEMA),
        ({"schema_version": [1]}, DamageKind.OTHER_SCHEMA),
        ({"status": "paused"}, DamageKind.UNKNOWN_STATUS),
        ({"status": None}, DamageKind.WRONG_TYPE),
        ({"created_at": "yesterday"}, DamageKind.BAD_TIME),
        ({"created_at": "2026-02-30T00:00:00Z"}, DamageKind.BAD_TIME),
        ({"updated_at": "2026-06-19T24:00:00Z"}, DamageKind.BAD_TIME),
        ({"updated_at": "2026-W01-1T00:00:00Z"}, DamageKind.BAD_TIME),
        ({"updated_at": "2026-06-19T09:30:00.5Z"}, DamageKind.BAD_TIME),
        ({"updated_at": 1781861400}, DamageKind.WRONG_TYPE),
        ({"prompt": None}, DamageKind.WRONG_TYPE),
        ({"prompt": ["a"]}, DamageKind.WRONG_TYPE),
        ({"agent": "x" * 129}, DamageKind.OUT_OF_RANGE),
        ({"agent_session": 3}, DamageKind.WRONG_TYPE),
        ({"auth_token": 12345}, DamageKind.WRONG_TYPE),
        ({"broker": "localhost"}, DamageKind.WRONG_TYPE),
        ({"broker": {"port": 1}}, DamageKind.MISSING_FIELD),
        ({"broker": {"host": "h", "port": "1883"}}, DamageKind.WRONG_TYPE),
        ({"broker": {"host": "h", "port": 70000}}, DamageKind.OUT_OF_RANGE),
        ({"broker": {"host": "h", "port": True}}, DamageKind.WRONG_TYPE),
        ({"broker": {"host": "h", "port": 1, "tls": "yes"}}, DamageKind.WRONG_TYPE),
        ({"broker": {"host": "h", "port": 1, "password": 5}}, DamageKind.WRONG_TYPE),
        ({"timeout_sec": "600"}, DamageKind.WRONG_TYPE),
        ({"timeout_sec": 600.0}, DamageKind.WRONG_TYPE),
        ({"timeout_sec": None}, DamageKind.WRONG_TYPE),
        ({"idle_timeout_sec": -1}, DamageKind.OUT_OF_RANGE),
        ({"last_seq": True}, DamageKind.WRONG_TYPE),
        ({"last_seq": 2**53}, DamageKind.OUT_OF_RANGE),
        ({"expected_artifacts": "report.md"}, DamageKind.WRONG_TYPE),
        ({"expected_artifacts": [1]}, DamageKind.WRONG_TYPE),
        ({"topic_prefix": "a/#"}, DamageKind.BAD_TOPIC),
        ({"topic_prefix": "jobdb/jobs/+"}, DamageKind.BAD_TOPIC),
        ({"topic_prefix": "a\0b"}, DamageKind.BAD_TOPIC),
        ({"topic_prefix": "a\x1bb"}, DamageKind.BAD_TOPIC),
        ({"topic_prefix": "a\x85b"}, DamageKind.BAD_TOPIC),
        ({"topic_prefix": "a\ufffeb"}, DamageKind.BAD_TOPIC),
        ({"topic_prefix": "a\U0001ffffb"}, DamageKind.BAD_TOPIC),
        ({"topic_prefix": ""}, DamageKind.BAD_TOPIC),
        ({"topic_prefix": "$SYS/broker"}, DamageKind.BAD_TOPIC),
        ({"topic_prefix": "$share/group/a"}, DamageKind.BAD_TOPIC),
        ({"topic_prefix": "a/" * 200}, DamageKind.BAD_TOPIC),
        ({"topic_prefix": "\u65e5" * 1025}, DamageKind.BAD_TOPIC),
        ({"jobdb_state": None}, DamageKind.BAD_STATE),
        ({"jobdb_state": {"version": 2}}, DamageKind.BAD_STATE),
        ({"jobdb_state": {"version": 1, "auth": "never"}}, DamageKind.BAD_STATE),
        (
            {"jobdb_state": {"version": 1, "kid": 1, "keys": [{"kid": 1, "created_ms": 0, "revoked_ms": 1}]}},
            DamageKind.BAD_STATE,
        ),
        ({"jobdb_state": {"version": 1, "kid": 0}}, DamageKind.BAD_STATE),
        ({"jobdb_state": {"version": 1, "kid": 2, "keys": [{"kid": 1, "created_ms": 2**50}]}}, DamageKind.BAD_STATE),
        ({"jobdb_state": {"version": 1, "attempt": -1}}, DamageKind.BAD_STATE),
        ({"jobdb_state": {"version": 1, "subscribers": [{"subscriber": "s"}]}}, DamageKind.BAD_STATE),
        ({"jobdb_state": {"version": 1, "kid": 2}, "auth_token": None}, DamageKind.BAD_STATE),
    ],
)
def test_fields_with_invalid_values(change: dict[str, Any], kind: DamageKind) -> None:
    assert damage_of(encode(LEGAL | change)) is kind


def test_register_and_import_refuse_the_same_topics() -> None:
    """One function decides; register only removes a trailing slash first."""
    for topic in ("a/#", "+", "", "$SYS", "a\0b", "a\nb", "\ud800", "x" * 1025, "a/" * 200 + "b"):
        assert topic_prefix_error(topic)
        with pytest.raises(InvalidInput):
            registration.topic_prefix(topic)
    for topic in ("a", "/a", "a//b", "a/b c", "\u65e5\u672c", "a/" * 199 + "b", "x" * 1024):
        assert topic_prefix_error(topic) is None
        assert registration.topic_prefix(topic) == topic
        assert isinstance(parse_record(encode(LEGAL | {"topic_prefix": topic}), "abc12345.json"), LegacyRecord)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in FIELDS
        if name not in ("agent_session", "timeout_sec", "idle_timeout_sec", "expected_artifacts", "auth_token")
    ],
)
def test_a_missing_field_is_not_guessed(name: str) -> None:
    record = {key: value for key, value in LEGAL.items() if key != name}
    assert damage_of(encode(record)) is DamageKind.MISSING_FIELD


def test_the_file_name_must_be_the_job_id() -> None:
    assert damage_of(encode(LEGAL), "ABC12345.json") is DamageKind.WRONG_ID
    assert damage_of(encode(LEGAL), "abc12345.json.json") is DamageKind.WRONG_ID


IDS = st.from_regex(re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"), fullmatch=True)
TEXT = st.text(max_size=30)
TIMES = st.integers(min_value=-(10**9), max_value=4 * 10**9).map(lambda second: format_time(second * 1000))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def optional(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


BROKERS = st.builds(
    lambda needed, rest, more: more | needed | rest,
    st.fixed_dictionaries({"host": TEXT, "port": st.integers(0, 65535)}),
    optional({"tls": st.booleans(), "username": st.none() | TEXT, "password": st.none() | TEXT}),
    st.dictionaries(TEXT, JSON, max_size=2).map(
        lambda extra: {key: value for key, value in extra.items() if key not in ("tls", "username", "password")}
    ),
)

LEGAL_RECORDS = st.builds(
    lambda needed, rest, more: needed | rest | {key: value for key, value in more.items() if key not in FIELDS},
    st.fixed_dictionaries(
        {
            "schema_version": st.just(1),
            "job_id": IDS,
            "status": st.sampled_from(["pending", "running", "completed", "error", "cancelled"]),
            "created_at": TIMES,
            "updated_at": TIMES,
            "prompt": TEXT,
            "agent": TEXT,
            "broker": st.none() | BROKERS,
            "topic_prefix": TEXT.filter(lambda text: topic_prefix_error(text) is None),
            "last_seq": st.integers(0, 2**53 - 1),
        }
    ),
    optional(
        {
            "agent_session": st.none() | TEXT,
            "timeout_sec": st.integers(0, 2**53 - 1),
            "idle_timeout_sec": st.integers(0, 2**53 - 1),
            "expected_artifacts": st.lists(TEXT, max_size=3),
            "auth_token": st.none() | TEXT,
        }
    ),
    st.dictionaries(TEXT, JSON, max_size=3),
)


@given(LEGAL_RECORDS, st.sampled_from([None, 2]), st.booleans())
@settings(deadline=None, max_examples=300)
def test_every_legal_record_survives(record: dict[str, Any], indent: int | None, ascii_only: bool) -> None:
    raw = json.dumps(record, indent=indent, ensure_ascii=ascii_only).encode()
    parsed = parse_record(raw, f"{record['job_id']}.json")
    assert isinstance(parsed, LegacyRecord), parsed
    again = json.dumps(parsed.as_document(), sort_keys=True)
    assert again == json.dumps(json.loads(raw), sort_keys=True)


@given(st.binary(max_size=400), st.text(max_size=20))
@example(encode(LEGAL), "abc12345.json")
@settings(deadline=None, max_examples=400)
def test_arbitrary_bytes_neither_raise_nor_become_a_record(raw: bytes, name: str) -> None:
    answer = parse_record(raw, name)
    if isinstance(answer, LegacyRecord):
        assert json.loads(raw) == answer.as_document()


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_a_record_with_one_byte_changed_never_raises(data: st.DataObject) -> None:
    raw = bytearray(encode(LEGAL))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    answer = parse_record(bytes(raw), "abc12345.json")
    if isinstance(answer, LegacyRecord):
        assert json.loads(bytes(raw)) == answer.as_document()


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=100)
def test_a_truncated_record_is_never_a_record(length: int) -> None:
    raw = encode(LEGAL)
    cut = raw[: length % len(raw)]
    assert damage_of(cut) in (DamageKind.EMPTY, DamageKind.CUT_SHORT)


@given(st.integers(min_value=-62_135_596_800, max_value=253_402_300_799))
def test_times_survive_a_round_trip(second: int) -> None:
    assert parse_time(format_time(second * 1000)) == second * 1000


USUAL: dict[str, Any] = dict.fromkeys(FIELDS) | LEGAL
USUAL["broker"] = {"host": "h", "port": 1, "tls": False, "username": None, "password": None}
ODD = st.sampled_from([None, True, 0, 1, -1, 1.0, 2**53, "", "x" * 300, [], [1], {}, "pending", "2026-01-01T00:00:00Z"])


@given(st.dictionaries(st.sampled_from([*FIELDS, *(f"broker.{name}" for name in USUAL["broker"])]), ODD, max_size=2))
@settings(deadline=None, max_examples=1000)
def test_the_fast_path_for_usual_records_equals_the_general_one(changes: dict[str, Any]) -> None:
    document = copy.deepcopy(USUAL)
    for name, value in changes.items():
        place, _, member = name.partition(".")
        if not member:
            document[name] = value
        elif isinstance(document[place], dict):
            document[place][member] = value
    name = "abc12345.json"
    assert _parse_fast(copy.deepcopy(USUAL), name) is not None
    quick, full = _parse_fast(copy.deepcopy(document), name), _parse_checked(copy.deepcopy(document), name)
    if quick is not None:
        assert isinstance(full, LegacyRecord)
        assert quick.fingerprint() == full.fingerprint()


def test_topics_that_no_broker_accepts() -> None:
    assert topic_error("x" * 65_535) is topic_error("jobdb/jobs/a b/\u00e9/events") is topic_error("a/" * 200) is None
    for topic in ("", "x" * 65_536, "\u65e5" * 21_846, "a/" * 201, "$SYS", "a/#", "a\x7f", "\U0001fffe", "\ud800"):
        assert topic_error(topic), topic[:20]
