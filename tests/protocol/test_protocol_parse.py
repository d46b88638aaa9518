"""Test parsing a wire event: any input yields an event or one of two refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobdb.core.protocol import (
    MAX_DETAIL_CHARS,
    MAX_PAYLOAD_BYTES,
    MalformedPayload,
    UnsupportedVersion,
    canonical,
    parse,
)
from jobdb.model import EventKind

GOOD: dict[str, Any] = {
    "schema_version": 1,
    "seq": 7,
    "job_id": "abc12345",
    "event": "progress",
    "timestamp": "2026-06-19T09:32:00Z",
    "detail": "step 3 of 10",
    "data": {"pct": 30, "attempt": 2, "hmac_kid": 3, "hmac_sig": "ab" * 32},
}
TEXT = json.dumps(GOOD)


def test_a_valid_event() -> None:
    event = parse(TEXT.encode())
    assert (event.seq, event.job_id, event.event) == (7, "abc12345", EventKind.PROGRESS)
    assert (event.timestamp, event.detail) == ("2026-06-19T09:32:00Z", "step 3 of 10")
    assert (event.attempt, event.kid, event.signature) == (2, 3, "ab" * 32)
    assert event.payload == GOOD and event.data == GOOD["data"]
    assert event.message == canonical(GOOD)
    assert event.text == TEXT
    assert len(event.digest) == 32


def test_absent_optional_fields() -> None:
    event = parse({**GOOD, "data": {}})
    assert (event.attempt, event.kid, event.signature) == (None, 1, None)


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_required_field(name: str) -> None:
    with pytest.raises(MalformedPayload, match=f"{name} is missing"):
        parse({key: value for key, value in GOOD.items() if key != name})


def test_bytes_text_and_objects_are_the_same_event() -> None:
    events = [parse(form) for form in (TEXT, TEXT.encode(), bytearray(TEXT.encode()), GOOD, MappingProxyType(GOOD))]
    assert {event.digest for event in events} == {events[0].digest}
    assert {event.signature for event in events} == {"ab" * 32}
    assert events[3].text == json.dumps(GOOD, separators=(",", ":"))


def test_the_stored_text_is_one_line() -> None:
    event = parse(" \r\n" + json.dumps(GOOD, indent=2).replace("\n", "\r\n") + "\n\t")
    assert "\n" not in event.text and "\r" not in event.text
    assert event.text[0] == "{" and event.text[-1] == "}"
    assert parse(event.text).digest == event.digest == parse(TEXT).digest


def test_a_decoded_object_is_parsed_like_its_text() -> None:
    for wrong in ({1: 2, "1": 3}, {"a": float("nan")}, {"a": 2**60}, {"a": "\ud800"}, {"a": {1, 2}}, {"a": 10**5000}):
        with pytest.raises(MalformedPayload):
            parse({**GOOD, "data": wrong})
    assert parse({**GOOD, "data": {"pair": (1, 2)}}).data == {"pair": [1, 2]}


class RaisingMapping(Mapping[str, Any]):
    """A mapping whose every method raises."""

    def __getitem__(self, key: str) -> Any:
        raise OSError("no")

    def __iter__(self) -> Iterator[str]:
        raise OSError("no")

    def __len__(self) -> int:
        raise OSError("no")


@pytest.mark.parametrize(
    "wrong", [None, 1, 1.5, [], [1], object(), RaisingMapping(), {}, {"a": RaisingMapping()}], ids=type
)
def test_values_that_are_not_a_payload(wrong: Any) -> None:
    with pytest.raises(MalformedPayload):
        parse(wrong)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300) | st.text(st.characters(), max_size=300))
def test_arbitrary_bytes_and_text(payload: bytes | str) -> None:
    with pytest.raises((MalformedPayload, UnsupportedVersion)):
        parse(payload)


arbitrary = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=9) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from([*GOOD, "data.attempt", "data.hmac_kid", "data.hmac_sig", "data.x", "x"]), arbitrary)
def test_arbitrary_values_in_any_field(place: str, value: Any) -> None:
    payload = json.loads(TEXT)
    *outer, name = place.split(".")
    (payload["data"] if outer else payload)[name] = value
    try:
        event = parse(payload)
    except MalformedPayload as refusal:
        assert 0 < len(refusal.reason) <= 120
    except UnsupportedVersion as refusal:
        assert name == "schema_version" and refusal.job_id == "abc12345"
    else:
        assert parse(event.text) == event


def test_nesting_beyond_any_stack() -> None:
    for levels in (65, 500, 5_000, 100_000):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            if levels * len(opening + closing) < MAX_PAYLOAD_BYTES:
                with pytest.raises(MalformedPayload):
                    parse(opening * levels + "1" + closing * levels)
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(MalformedPayload):
        parse({**GOOD, "data": {"deep": deep}})


def test_size_is_counted_in_bytes() -> None:
    def sized(char: str, size: int) -> str:
        empty = json.dumps({**GOOD, "data": {"bulk": ""}}, ensure_ascii=False)
        count, rest = divmod(size - len(empty), len(char.encode()))
        return json.dumps({**GOOD, "data": {"bulk": char * count + "x" * rest}}, ensure_ascii=False)

    for char in ("x", "\u00e9", "\U0001f389"):
        fits, spills = sized(char, MAX_PAYLOAD_BYTES), sized(char, MAX_PAYLOAD_BYTES + 1)
        assert parse(fits).digest == parse(fits.encode()).digest
        for form in (spills, spills.encode()):
            with pytest.raises(MalformedPayload, match="larger"):
                parse(form)
    assert len(parse({**GOOD, "detail": "\U0001f389" * 60_000}).detail) == 60_000
    with pytest.raises(MalformedPayload, match="detail"):
        parse({**GOOD, "detail": "x" * (MAX_DETAIL_CHARS + 1)})


def test_another_version() -> None:
    with pytest.raises(UnsupportedVersion) as caught:
        parse({**GOOD, "schema_version": 2})
    assert (caught.value.version, caught.value.job_id) == (2, "abc12345")
    with pytest.raises(UnsupportedVersion) as caught:
        parse({"schema_version": 2, "job_id": "../x"})
    assert caught.value.job_id is None
    with pytest.raises(MalformedPayload):
        parse('{"schema_version":2,"a":NaN}')


def test_a_refusal_repeats_nothing_of_the_payload() -> None:
    secret = "s3cr3t-hunter2"
    texts = [
        TEXT.replace("abc12345", secret + "/"),
        TEXT.replace('"progress"', f'"{secret}"'),
        TEXT.replace("2026-06-19T09:32:00Z", secret),
        TEXT.replace('"pct"', f'"{secret}": 1, "{secret}"'),
        TEXT.replace('"pct"', f'"{secret}\n"'),
        TEXT[:-1] + secret,
    ]
    for text in texts:
        with pytest.raises(MalformedPayload) as caught:
            parse(text)
        error: BaseException | None = caught.value
        assert error is not None and error.__cause__ is None
        assert error.__suppress_context__ or error.__context__ is None
        assert secret not in str(error) and secret not in repr(error)


def test_repr_shows_neither_signature_nor_content() -> None:
    shown = repr(parse({**GOOD, "detail": "private words"}))
    assert "ab" * 32 not in shown and "private words" not in shown
    assert "abc12345" in shown and "seq=7" in shown
