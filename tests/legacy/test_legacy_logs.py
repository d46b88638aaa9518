"""Test legacy logs: each line becomes an event once, the rest is kept, and the log can be reproduced."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jobdb.core.protocol import parse
from jobdb.legacy.format.damage import DamageKind
from jobdb.legacy.format.entry_kind import EntryKind
from jobdb.legacy.format.log_form import render_log, seqs_in_form
from jobdb.legacy.format.log_line import LogEvent, parse_flat_line, parse_line
from jobdb.legacy.format.log_reader import JobLogs, read_logs
from jobdb.legacy.format.secret_mask import mask, unmask

EVENTS, AUDIT = EntryKind.EVENT_LOG, EntryKind.AUDIT_LOG


def line(seq: int, detail: str = "", job_id: str = "abc", **data: Any) -> bytes:
    event = {
        "schema_version": 1,
        "seq": seq,
        "job_id": job_id,
        "event": "progress",
        "timestamp": "2026-06-19T09:32:00Z",
        "detail": detail,
        "data": data,
    }
    return json.dumps(event).encode() + b"\n"


def read(events: bytes, audit: bytes | None = None, secrets: tuple[str, ...] = ()) -> JobLogs:
    logs = [(EVENTS, events)] + ([(AUDIT, audit)] if audit is not None else [])
    found = read_logs("abc", logs, fallback_ms=0, secrets=secrets)
    for kind, content in logs:
        assert rewrite_log(found, kind) == content
    return found


def rewrite_log(found: JobLogs, kind: EntryKind) -> bytes:
    payloads = {event.seq: event.payload for event in found.events}
    kept = iter([kept.raw for kept in found.kept if kept.log is kind])
    return render_log(found.forms[kind], payloads.__getitem__, kept)


def test_an_intact_log_is_stored_as_a_range() -> None:
    found = read(line(1) + line(2) + line(3))
    assert [event.seq for event in found.events] == [1, 2, 3]
    assert found.forms[EVENTS] == "1-3"
    assert (found.notes, found.damage, found.kept, found.highest_seq) == ([], {}, [], 3)
    assert found.events[0].recorded_ms == 1781861520000


def test_the_audit_log_adds_only_what_the_event_log_does_not_have() -> None:
    registered = b'{"event": "registered", "job_id": "abc", "timestamp": "2026-06-19T09:30:00Z"}\n'
    found = read(line(1) + line(2), registered + line(1) + line(2) + line(3))
    assert [event.seq for event in found.events] == [1, 2, 3]
    assert found.forms == {EVENTS: "1-2", AUDIT: "k 1-3"}
    assert (found.notes, found.damage) == ([], {})


def test_a_truncated_last_line_is_reported_and_kept() -> None:
    found = read(line(1) + line(2)[:40])
    assert [event.seq for event in found.events] == [1]
    assert found.damage[EVENTS].kind is DamageKind.CUT_LINE
    assert "line 2" in found.damage[EVENTS].reason
    assert found.forms[EVENTS] == "1 k !"


def test_a_complete_last_line_without_a_line_break_is_not_damage() -> None:
    found = read(line(1) + line(2).rstrip(b"\n"))
    assert len(found.events) == 2
    assert not found.damage


def test_gaps_and_repetitions_are_noted() -> None:
    found = read(line(2) + line(2) + line(5))
    assert [event.seq for event in found.events] == [2, 5]
    assert found.notes == ["the event log repeats seq 2", "the logs have no event for seq 1, 3-4"]
    assert not found.damage


def test_of_two_lines_with_one_seq_the_first_wins_and_the_other_is_reported() -> None:
    found = read(line(1, "first") + line(1, "second"), line(1, "third"))
    assert [event.detail for event in found.events] == ["first"]
    assert found.damage[EVENTS].kind is found.damage[AUDIT].kind is DamageKind.CONFLICTING_LINES
    assert "seq 1" in found.damage[EVENTS].reason


def test_an_event_in_another_notation_is_the_same_event() -> None:
    other = json.dumps(json.loads(line(1)), indent=None, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    found = read(line(1), other)
    assert len(found.events) == 1
    assert not found.damage


def test_lines_of_other_jobs_and_invalid_lines_are_reported() -> None:
    found = read(line(1, job_id="other") + b"\xff\n" + b"[]\n" + b'{"hello": 1}\n' + b"\n" + line(1))
    assert [event.seq for event in found.events] == [1]
    reason = found.damage[EVENTS].reason
    assert found.damage[EVENTS].kind is DamageKind.BAD_LINE
    for number in (1, 2, 3, 4):
        assert f"line {number} " in reason
    assert "line 5 " not in reason


def test_many_bad_lines_are_counted() -> None:
    found = read(b"x\n" * 12)
    assert "and 7 more lines" in found.damage[EVENTS].reason


def test_runs_of_empty_lines_are_stored_as_one_or_not_at_all() -> None:
    found = read(b"\n" * 5000 + line(1) + b"{}\n" * 300 + b"\n" + line(2) + b"\n\n", b"\n")
    assert found.forms == {EVENTS: "b5000 1 k301 2 b2", AUDIT: "b1"}
    assert [(kept.number, kept.raw) for kept in found.kept] == [(5002, b"{}\n" * 300)]
    assert "line 5002 " in found.damage[EVENTS].reason and "and 295 more lines" in found.damage[EVENTS].reason
    assert read(b"").forms == {EVENTS: ""}
    assert read(b"\nx").forms == {EVENTS: "k2 !"}


def test_a_form_with_one_entry_per_kept_line_is_still_read() -> None:
    """Imports wrote such forms before runs of lines were stored as one."""
    assert render_log("k k 1 k !", {1: "one"}.__getitem__, iter([b"a", b"", b"z"])) == b"a\n\none\nz"


def test_events_in_another_notation_are_recognized_in_their_log() -> None:
    """An export must not append them again."""
    found = read(line(1).replace(b"\n", b"\r\n") + b" " + line(2) + line(3))
    assert found.forms[EVENTS] == "k2 3 =1-2"
    assert seqs_in_form(found.forms[EVENTS]) == {1, 2, 3}


def test_the_meaning_of_a_short_line_does_not_depend_on_earlier_lines() -> None:
    """The classification of short lines is cached per log, since in another log it may differ."""
    found = read(b'{"a":1}\n' * 3, b'{"a":1}\n' * 3 + b"x\n" * 3)
    assert "line 3 " in found.damage[EVENTS].reason
    assert "line 4 " in found.damage[AUDIT].reason and "line 3 " not in found.damage[AUDIT].reason
    many = read(b"x\n" * 9 + b'{"a":1}\n' + b" \n", b"x\n" * 9 + b'{"a":1}\n{"a":1,"a":1}\n \n')
    assert "and 5 more" in many.damage[EVENTS].reason and "and 5 more" in many.damage[AUDIT].reason


def test_a_line_that_contains_the_token_is_not_an_event_and_is_kept_masked() -> None:
    token = 'to"ken-äöü-123'
    raw = line(3, auth_token=token).rstrip(b"\n")
    found = read(raw + b"\n", secrets=(token,))
    assert found.events == []
    assert found.highest_seq == 3
    assert found.damage[EVENTS].kind is DamageKind.SECRET_IN_CLEAR
    masked = mask(raw, {"auth_token": token})
    assert b"ken-" not in masked
    assert unmask(masked, {"auth_token": token}) == raw
    assert b"(left out)" in unmask(masked, {"auth_token": None})


def test_an_impossible_timestamp_falls_back() -> None:
    raw = line(1).replace(b"2026-06-19T09:32:00Z", b"2026-02-31T09:32:00Z")
    found = read_logs("abc", [(EVENTS, raw)], fallback_ms=77)
    assert found.events[0].recorded_ms == 77


def test_seqs_of_a_form() -> None:
    assert seqs_in_form("k 1-3 k 7 !") == {1, 2, 3, 7}
    assert seqs_in_form(None) == set()


LINES = st.one_of(
    st.builds(line, st.integers(1, 6), st.sampled_from(["", "x"])),
    st.builds(lambda seq: line(seq).rstrip(b"\n") + b"\r\n", st.integers(1, 6)),
    st.binary(max_size=30).map(lambda raw: raw + b"\n"),
    st.sampled_from([b"\n", b"\n\n\n", b"{}\n", b" \n", b"\r\n", "\u2028\n".encode()]),
)


@given(st.lists(LINES, max_size=8), st.lists(LINES, max_size=8), st.binary(max_size=20), st.integers(0, 60))
@settings(deadline=None, max_examples=300)
def test_any_log_is_reproduced_byte_for_byte(events: list[bytes], audit: list[bytes], rest: bytes, cut: int) -> None:
    whole = b"".join(audit) + line(4)
    found = read(b"".join(events) + rest, whole[: len(whole) - cut])
    seqs = [event.seq for event in found.events]
    assert seqs == sorted(set(seqs))


def test_a_line_that_the_parser_accepts_is_the_same_event() -> None:
    raw = line(3, "日本", pct=1.5).rstrip(b"\n")
    found, wire = parse_line(raw, "abc", fallback_ms=0), parse(raw)
    assert isinstance(found, LogEvent)
    assert (found.seq, found.event, found.attempt) == (wire.seq, wire.event.value, wire.attempt)
    assert (found.digest, found.detail, found.payload) == (wire.digest, wire.detail, wire.text)


@given(st.binary(max_size=60))
def test_no_line_raises(raw: bytes) -> None:
    assert not isinstance(parse_line(raw, "abc", fallback_ms=0), LogEvent)


SCALARS = st.none() | st.booleans() | st.integers(-(2**54), 2**54) | st.text(max_size=6)
VALUES = st.one_of(SCALARS, SCALARS, SCALARS, st.floats(), st.lists(SCALARS, max_size=1))
DATA_KEYS = st.sampled_from(["pct", "attempt", "hmac_kid", "hmac_sig"]) | st.text(max_size=3)
PAYLOADS = st.fixed_dictionaries(
    {
        "schema_version": st.sampled_from([1, 1, 1, 1, 2, True, 1.0]),
        "seq": st.sampled_from([1, 2, 2**53 - 1, 2**53, 0, True, "1"]),
        "job_id": st.sampled_from(["abc", "abc", "abc", "other"]),
        "event": st.sampled_from(["started", "progress", "completed", "unknown"]),
        "timestamp": st.sampled_from(["2026-06-19T09:32:00Z", "2026-06-19T09:32:60Z", "2026-02-30T00:00:00Z", ""]),
        "detail": st.text(max_size=10),
        "data": st.dictionaries(DATA_KEYS, VALUES, max_size=4),
    },
    optional={"extra": SCALARS},
)
STYLES = st.sampled_from([(", ", ": "), (",", ":"), (",\r", ": ")])
SPLICES = st.sampled_from(
    [b'"seq":1,', b'"data":{},', b'"pct":1,', b'"a":"b",', b"{", b"}", b" ", b"\\u0041", b'"', b""]
)


@given(PAYLOADS, STYLES, st.booleans(), SPLICES, st.integers(0, 400), st.integers(0, 3))
@settings(deadline=None, max_examples=1500)
def test_a_line_in_the_usual_form_is_read_as_by_the_parser(
    payload: dict[str, Any], style: tuple[str, str], ascii_only: bool, splice: bytes, place: int, cut: int
) -> None:
    raw = json.dumps(payload, separators=style, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    place %= len(raw)
    raw = raw[:place] + splice + raw[place + cut * (splice == b"") :]
    found = parse_flat_line(raw, "abc", fallback_ms=0)
    if found is None:
        return
    wire = parse(raw)
    assert (found.seq, found.event, found.attempt) == (wire.seq, wire.event.value, wire.attempt)
    assert (found.digest, found.payload, found.detail) == (wire.digest, wire.text, wire.detail)
    assert (type(found.seq), wire.job_id, found.payload.encode()) == (int, "abc", raw)


@given(PAYLOADS, st.sampled_from(list(range(7))))
@settings(deadline=None, max_examples=300)
def test_a_line_with_a_duplicate_key_is_never_in_the_usual_form(payload: dict[str, Any], which: int) -> None:
    members = [f"{json.dumps(key)}:{json.dumps(value)}" for key, value in payload.items()]
    raw = ("{" + ",".join([*members, members[which]]) + "}").encode()
    assert parse_flat_line(raw, "abc", fallback_ms=0) is None


def test_lines_of_the_old_scripts_are_in_the_usual_form() -> None:
    for raw in (line(1), line(2, "step", pct=32, hmac_sig="ab" * 32), line(3, hmac_kid=2, attempt=1, ok=None)):
        found, wire = parse_flat_line(raw.rstrip(b"\n"), "abc", fallback_ms=0), parse(raw.rstrip(b"\n"))
        assert found is not None and (found.digest, found.payload) == (wire.digest, wire.text)
    with_umlaut = json.dumps(json.loads(line(1, "größer")), ensure_ascii=False).encode()
    found = parse_flat_line(with_umlaut, "abc", fallback_ms=0)
    assert found is not None and found.digest == parse(with_umlaut).digest
