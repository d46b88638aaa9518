"""Logs of the old registry: lines become events once each, the rest is kept, and the log can be written again."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jobdb.legacy.damage import Damage
from jobdb.legacy.layout import EntryKind
from jobdb.legacy.log_lines import LogEvent, read_line
from jobdb.legacy.logs import JobLogs, mask, read_logs, seqs_of, unmask, write_log
from jobdb.protocol import parse

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
        assert again(found, kind) == content
    return found


def again(found: JobLogs, kind: EntryKind) -> bytes:
    payloads = {event.seq: event.text for event in found.events}
    kept = iter([kept.raw for kept in found.kept if kept.log is kind])
    return b"".join(write_log(found.forms[kind], payloads.__getitem__, kept))


def test_a_sound_log_is_a_range() -> None:
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


def test_a_cut_last_line_is_named_and_kept() -> None:
    found = read(line(1) + line(2)[:40])
    assert [event.seq for event in found.events] == [1]
    assert found.damage[EVENTS].kind is Damage.CUT_LINE
    assert "line 2" in found.damage[EVENTS].reason
    assert found.forms[EVENTS] == "1 k !"


def test_a_whole_last_line_without_a_line_break_is_no_damage() -> None:
    found = read(line(1) + line(2).rstrip(b"\n"))
    assert len(found.events) == 2
    assert not found.damage


def test_gaps_and_repeats_are_noted() -> None:
    found = read(line(2) + line(2) + line(5))
    assert [event.seq for event in found.events] == [2, 5]
    assert found.notes == ["the event log repeats seq 2", "the logs have no event for seq 1, 3-4"]
    assert not found.damage


def test_the_first_of_two_lines_of_one_seq_wins_and_the_other_is_named() -> None:
    found = read(line(1, "first") + line(1, "second"), line(1, "third"))
    assert [event.detail for event in found.events] == ["first"]
    assert found.damage[EVENTS].kind is found.damage[AUDIT].kind is Damage.CONFLICTING_LINES
    assert "seq 1" in found.damage[EVENTS].reason


def test_the_same_event_written_otherwise_is_the_same_event() -> None:
    other = json.dumps(json.loads(line(1)), indent=None, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    found = read(line(1), other)
    assert len(found.events) == 1
    assert not found.damage


def test_lines_of_other_jobs_and_of_no_kind_are_named() -> None:
    found = read(line(1, job_id="other") + b"\xff\n" + b"[]\n" + b'{"hello": 1}\n' + b"\n" + line(1))
    assert [event.seq for event in found.events] == [1]
    reason = found.damage[EVENTS].reason
    assert found.damage[EVENTS].kind is Damage.BAD_LINE
    for number in (1, 2, 3, 4):
        assert f"line {number} " in reason
    assert "line 5 " not in reason


def test_many_bad_lines_are_counted() -> None:
    found = read(b"x\n" * 12)
    assert "and 7 more lines" in found.damage[EVENTS].reason


def test_a_line_that_shows_the_token_is_no_event_and_is_kept_masked() -> None:
    token = 'to"ken-äöü-123'
    raw = line(3, auth_token=token).rstrip(b"\n")
    found = read(raw + b"\n", secrets=(token,))
    assert found.events == []
    assert found.highest_seq == 3
    assert found.damage[EVENTS].kind is Damage.SECRET_IN_CLEAR
    masked = mask(raw, {"auth_token": token})
    assert b"ken-" not in masked
    assert unmask(masked, {"auth_token": token}) == raw
    assert b"(left out)" in unmask(masked, {"auth_token": None})


def test_an_unreal_timestamp_falls_back() -> None:
    raw = line(1).replace(b"2026-06-19T09:32:00Z", b"2026-02-31T09:32:00Z")
    found = read_logs("abc", [(EVENTS, raw)], fallback_ms=77)
    assert found.events[0].recorded_ms == 77


def test_seqs_of_a_form() -> None:
    assert seqs_of("k 1-3 k 7 !") == {1, 2, 3, 7}
    assert seqs_of(None) == set()


LINES = st.one_of(
    st.builds(line, st.integers(1, 6), st.sampled_from(["", "x"])),
    st.builds(lambda seq: line(seq).rstrip(b"\n") + b"\r\n", st.integers(1, 6)),
    st.binary(max_size=30).map(lambda raw: raw + b"\n"),
    st.just(b"\n"),
)


@given(st.lists(LINES, max_size=8), st.lists(LINES, max_size=8), st.binary(max_size=20), st.integers(0, 60))
@settings(deadline=None, max_examples=300)
def test_any_log_is_written_again_byte_for_byte(events: list[bytes], audit: list[bytes], rest: bytes, cut: int) -> None:
    whole = b"".join(audit) + line(4)
    found = read(b"".join(events) + rest, whole[: len(whole) - cut])
    seqs = [event.seq for event in found.events]
    assert seqs == sorted(set(seqs))


def test_a_line_that_the_parser_takes_is_the_same_event() -> None:
    raw = line(3, "日本", pct=1.5).rstrip(b"\n")
    found, wire = read_line(raw, "abc", fallback_ms=0), parse(raw)
    assert isinstance(found, LogEvent)
    assert (found.seq, found.event, found.attempt) == (wire.seq, wire.event.value, wire.attempt)
    assert (found.digest, found.detail, found.text) == (wire.digest, wire.detail, wire.text)


@given(st.binary(max_size=60))
def test_no_line_raises(raw: bytes) -> None:
    assert not isinstance(read_line(raw, "abc", fallback_ms=0), LogEvent)
