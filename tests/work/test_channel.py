"""Test the agent's channel: any bytes give events that can be published or invalid lines with a reason."""

from __future__ import annotations

import doctest
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jobdb.work.channel
from jobdb.core.protocol import MAX_DETAIL_CHARS, MAX_KID, MAX_PAYLOAD_BYTES, MAX_SEQ, MAX_VALUES, build
from jobdb.errors import InvalidInput
from jobdb.model import EventKind, NewEvent
from jobdb.system.terminal import is_displayable
from jobdb.work.channel import (
    MAX_LINE_BYTES,
    RESERVED_NAMES,
    ChannelEvent,
    FinalWords,
    InvalidLine,
    format_line,
    parse_line,
    parse_lines,
)

PIECES = st.sampled_from(
    [
        b"progress", b"started", b"completed", b"error", b"permission_required", b"pct", b"event", b"detail", b"data",
        b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b"\\ud800", b" ", b"\t", b"\n", b"\r", b"\0", b"\xff", b"\xc3",
        "é".encode(), "💥".encode(), b"1e999", b"NaN", b"-", b"9" * 30, b"9" * 5000, b"true", b"null", b"hmac_sig",
        b'{"event": "progress", "data": ', b'{"event": "progress", "detail": ', b"{" * 3000, b'{"a":' * 3000,
    ]
)  # fmt: skip
BYTES = st.one_of(st.binary(max_size=300), st.lists(PIECES, max_size=12).map(b"".join))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
DETAIL = TEXT.filter(lambda text: "\0" not in text)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_SEQ, MAX_SEQ)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
NAMES = TEXT.filter(lambda name: name not in RESERVED_NAMES)
EVENTS = st.builds(ChannelEvent, st.sampled_from(EventKind), DETAIL, st.dictionaries(NAMES, VALUES, max_size=5))


def publish(event: ChannelEvent) -> None:
    """Build the wire event as ``publish`` does, with the numbers that take the most room."""
    build(
        job_id="j" * 128, seq=MAX_SEQ, event=event.event, timestamp="2026-06-19T09:32:00Z", detail=event.detail,
        data=event.data, attempt=MAX_SEQ, kid=MAX_KID, token="secret",
    )  # fmt: skip


def reason(line: bytes | str) -> str:
    parsed = parse_line(line.encode() if isinstance(line, str) else line)
    assert isinstance(parsed, InvalidLine), parsed
    return parsed.reason


def event(line: str) -> ChannelEvent:
    parsed = parse_line(line.encode())
    assert isinstance(parsed, ChannelEvent), parsed
    return parsed


def test_the_examples_of_the_docstrings() -> None:
    assert doctest.testmod(jobdb.work.channel).failed == 0


@settings(max_examples=500)
@given(BYTES)
def test_no_bytes_raise_and_what_is_an_event_can_be_published(block: bytes) -> None:
    for parsed in parse_lines(block):
        if isinstance(parsed, ChannelEvent):
            publish(parsed)
        else:
            assert parsed.reason and len(parsed.text) <= 12 * 120
            assert all(map(is_displayable, parsed.text)) and all(map(is_displayable, parsed.reason))


@given(EVENTS)
def test_every_event_survives_a_round_trip(written: ChannelEvent) -> None:
    line = format_line(written)
    assert b"\n" not in line
    assert parse_line(line) == written
    assert list(parse_lines(line + b"\r\n\n" + line)) == [written, written]


@given(st.sampled_from(EventKind), DETAIL.filter(lambda text: "\n" not in text))
def test_the_plain_form_carries_the_detail(kind: EventKind, detail: str) -> None:
    expected = detail.rstrip(" \t\r\n").lstrip(" \t")
    assert parse_line(f"{kind} {detail}".encode()) == ChannelEvent(kind, expected)


def test_the_plain_and_the_json_form() -> None:
    assert event("progress step 3 of 10") == event('{"event": "progress", "detail": "step 3 of 10"}')
    assert event("  started\r") == ChannelEvent(EventKind.STARTED)
    assert event("progress\ttab  and  blanks") == ChannelEvent(EventKind.PROGRESS, "tab  and  blanks")
    assert event('{"event": "progress", "pct": 30.5, "data": {"file": "a"}}').data == {"file": "a", "pct": 30.5}
    assert event('{"event": "progress", "pct": 30, "data": {"pct": 30}}').data == {"pct": 30}
    assert parse_line(b" \t\r") is None and list(parse_lines(b"\n \n")) == []


def test_an_event_belongs_to_its_attempt() -> None:
    new = event('{"event": "permission_required", "detail": "rm -rf?", "data": {"tool": "sh"}}').for_attempt("j", 2)
    assert new == NewEvent(job_id="j", event="permission_required", detail="rm -rf?", data={"tool": "sh"}, attempt=2)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"\xff", "not UTF-8 (byte 0)"),
        (b"progress caf\xe9", "not UTF-8 (byte 12)"),
        ("hello world", "unknown event 'hello'"),
        ("Progress x", "unknown event 'Progress'"),
        ("cancelled", "unknown event 'cancelled'"),
        ('{"event": "cancelled"}', "unknown event 'cancelled'"),
        ('{"event": ["progress"]}', "unknown event ['progress']"),
        ("[1, 2]", "not a JSON object"),
        ('"progress"', "not a JSON object"),
        ("{", "not JSON"),
        ('{"event": "progress"} x', "not JSON"),
        ("{}", "the field event is missing"),
        ('{"event": "progress", "message": "x"}', "unknown field 'message'; the fields are event, detail, data, pct"),
        ('{"event": "progress", "event": "started"}', "a key occurs twice"),
        ('{"event": "progress", "data": {"a": 1, "a": 2}}', "a key occurs twice"),
        ('{"event": "progress", "detail": 3}', "detail is not text"),
        ('{"event": "progress", "data": []}', "data is not an object"),
        ('{"event": "progress", "data": null}', "data is not an object"),
        ('{"event": "progress", "data": {"n": 9007199254740993}}', "integer is beyond"),
        ('{"event": "progress", "data": {"n": ' + "9" * 10_000 + "}}", "integer is beyond"),
        ('{"event": "progress", "data": {"n": 1e999}}', "cannot represent"),
        ('{"event": "progress", "data": {"n": NaN}}', "not finite"),
        ('{"event": "progress", "data": {"n": ' + "[" * 70 + "]" * 70 + "}}", "nested deeper than 64"),
        ("{" + '"a":{' * 50_000, "more than"),
        ('{"event": "progress", "data": {"n": [' + "0," * MAX_VALUES + "0]}}", f"more than {MAX_VALUES} values"),
        ('{"event": "progress", "data": {"attempt": 1}}', "data sets 'attempt'"),
        ('{"event": "progress", "data": {"hmac_sig": "x"}}', "data sets 'hmac_sig'"),
        ('{"event": "progress", "data": {"hmac_kid": 1}}', "data sets 'hmac_kid'"),
        ('{"event": "progress", "detail": "\\u0000"}', "without NUL"),
        ("progress a\0b", "without NUL"),
        ('{"event": "progress", "detail": "\\ud800"}', "lone surrogate"),
        ('{"event": "progress", "pct": true}', "pct is not a number"),
        ('{"event": "progress", "pct": -1}', "pct is not a number"),
        ('{"event": "progress", "pct": 100.5}', "pct is not a number"),
        ('{"event": "progress", "pct": null}', "pct is not a number"),
        ('{"event": "progress", "pct": 1, "data": {"pct": 2}}', "pct differs"),
        ("progress " + "x" * (MAX_DETAIL_CHARS + 1), f"at most {MAX_DETAIL_CHARS}"),
        ("progress " + "x" * MAX_LINE_BYTES, "longer than"),
        ('{"event": "progress", "data": {"x": "' + "x" * (MAX_PAYLOAD_BYTES - 100) + '"}}', "larger than"),
    ],
)  # fmt: skip
def test_an_invalid_line_names_its_reason(line: bytes | str, expected: str) -> None:
    found = reason(line)
    assert expected in found


def test_an_invalid_line_is_shown_shortened_and_harmless() -> None:
    parsed = parse_line(b"\x1b[31mred \xff " + b"x" * 1000)
    assert isinstance(parsed, InvalidLine)
    assert parsed.text.startswith("\\x1b[31mred \\xff xxx") and parsed.text.endswith("…") and len(parsed.text) < 130


def test_a_line_that_the_keeper_has_cut_is_invalid() -> None:
    parsed = parse_line(b"\0a line of 300000 bytes, which is too long: progress xxx\n")
    assert isinstance(parsed, InvalidLine) and "longer than" in parsed.reason
    assert parsed.text == "a line of 300000 bytes, which is too long: progress xxx"


@given(st.integers(0, 600))
def test_the_largest_event_of_the_channel_can_be_published(shorter: int) -> None:
    line = b'{"event":"progress","data":{"x":"' + b"x" * (MAX_PAYLOAD_BYTES - 200 - shorter) + b'"}}'
    parsed = parse_line(line)
    assert parsed is not None
    if isinstance(parsed, ChannelEvent):
        publish(parsed)
    else:
        assert "larger" in parsed.reason


@pytest.mark.parametrize(
    "wrong",
    [
        ChannelEvent(EventKind.PROGRESS, "\0"),
        ChannelEvent(EventKind.PROGRESS, "", {"attempt": 1}),
        ChannelEvent(EventKind.PROGRESS, "", {"x": math.inf}),
        ChannelEvent(EventKind.PROGRESS, "", {"x": "x" * MAX_PAYLOAD_BYTES}),
    ],
)
def test_what_cannot_be_published_is_not_formatted(wrong: ChannelEvent) -> None:
    with pytest.raises(InvalidInput, match="cannot be written to the channel"):
        format_line(wrong)


FACTS = {"exit_code": 0, "duration_sec": 1.5}


def heard(*lines: str) -> FinalWords:
    words = FinalWords()
    for line in lines:
        final = event(line)
        assert final.is_final
        words.hear(final)
    return words


def test_final_lines_set_the_detail_and_the_data_of_the_end_that_they_name() -> None:
    words = heard("completed first", '{"event": "completed", "detail": "done", "data": {"n": 3, "exit_code": 9}}')
    assert words.combine(EventKind.COMPLETED, "", FACTS) == ("done", {"n": 3, **FACTS})
    assert words.combine(EventKind.ERROR, "exit code 1", FACTS) == ("exit code 1", FACTS)
    assert heard("error no disk").combine(EventKind.ERROR, "exit code 1", FACTS) == ("no disk", FACTS)
    assert heard("completed").combine(EventKind.COMPLETED, "exit code 0", FACTS) == ("exit code 0", FACTS)
    assert not event("progress x").is_final


def test_an_end_is_publishable_however_much_was_found_and_said() -> None:
    large = "x" * (MAX_PAYLOAD_BYTES - 1000)
    words = heard(json.dumps({"event": "completed", "detail": "done", "data": {"x": large}}))
    found: dict[str, Any] = {**FACTS, "artifacts": {f"{number}.txt": {"bytes": 1} for number in range(200)}}
    assert words.combine(EventKind.COMPLETED, "", found) == ("done", {**found, "left_out": ["data"]})
    found["artifacts"] = {f"{number}.txt": {"bytes": 1} for number in range(MAX_VALUES)}
    assert words.combine(EventKind.COMPLETED, "", found) == ("done", {**FACTS, "left_out": ["data", "artifacts"]})
    detail, data = FinalWords().combine(EventKind.ERROR, "\0" + "x" * 70_000 + "\ud800", FACTS)
    assert detail.startswith("\\0xxx") and detail.endswith("x…") and data == FACTS
    detail, data = FinalWords().combine(EventKind.ERROR, "💥" * MAX_DETAIL_CHARS, FACTS)
    assert detail == "💥" * 3999 + "…" and data == FACTS
    publish(ChannelEvent(EventKind.ERROR, detail, data))
