"""Test building a wire event: what is sent, what is signed, and what is refused before it is sent."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobdb.core.protocol import MAX_KID, MAX_SEQ, WireEvent, build, parse, verify
from jobdb.errors import InvalidInput
from jobdb.model import EventKind

TOKEN = "a-token-of-some-length-0123456789abcdef"


def make(**changes: Any) -> WireEvent:
    arguments: dict[str, Any] = {
        "job_id": "abc12345",
        "seq": 7,
        "event": EventKind.PROGRESS,
        "timestamp": "2026-06-19T09:32:00Z",
        "detail": "step 3 of 10",
        "data": {"pct": 30},
        "attempt": 1,
        "kid": 1,
        "token": TOKEN,
    }
    return build(**{**arguments, **changes})


def test_the_payload_is_one_line_in_the_documented_form() -> None:
    event = make()
    assert event.text == (
        '{"schema_version":1,"seq":7,"job_id":"abc12345","event":"progress","timestamp":"2026-06-19T09:32:00Z",'
        f'"detail":"step 3 of 10","data":{{"attempt":1,"hmac_kid":1,"pct":30,"hmac_sig":"{event.signature}"}}}}'
    )
    assert parse(event.text) == event
    assert verify(event, TOKEN)
    assert TOKEN not in event.text


def test_without_token_attempt_and_kid() -> None:
    event = make(token=None, kid=None, attempt=None, data={})
    assert (event.data, event.signature, event.attempt, event.kid) == ({}, None, None, 1)
    assert verify(make(kid=None), TOKEN) and "hmac_kid" not in make(kid=None).data


def test_the_callers_data_is_not_changed() -> None:
    data = {"pct": 30}
    make(data=data)
    assert data == {"pct": 30}


def test_reserved_names() -> None:
    assert make(data={"attempt": 1, "hmac_kid": 1}).data["attempt"] == 1
    for data in (
        {"attempt": 2},
        {"attempt": True},
        {"attempt": "1"},
        {"hmac_kid": 2},
        {"hmac_kid": 1.0},
        {"hmac_sig": "0" * 64},
        {"hmac_sig": None},
    ):
        with pytest.raises(InvalidInput, match="leave it out"):
            make(data=data)
    with pytest.raises(InvalidInput, match="attempt"):
        make(attempt=None, data={"attempt": 1})
    with pytest.raises(InvalidInput, match="without a token"):
        make(token=None)


def test_values_with_a_json_form_of_their_own_are_sent_as_that() -> None:
    class Colour(StrEnum):
        RED = "red"

    event = make(data={"pair": (1, 2), "colour": Colour.RED, 3: "three"})
    assert event.data["pair"] == [1, 2] and event.data["3"] == "three"
    assert parse(event.text) == event
    assert verify(event, TOKEN)


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": 0},
        {"seq": MAX_SEQ + 1},
        {"seq": True},
        {"seq": 1.0},
        {"job_id": ""},
        {"job_id": "a/b"},
        {"job_id": "a" * 129},
        {"timestamp": "yesterday"},
        {"detail": "x" * 65_537},
        {"detail": "a\0b"},
        {"detail": "\ud800"},
        {"detail": None},
        {"attempt": 0},
        {"attempt": MAX_SEQ + 1},
        {"kid": 0},
        {"kid": MAX_KID + 1},
        {"data": {"x": float("nan")}},
        {"data": {"x": 2**53}},
        {"data": {"x": b"bytes"}},
        {"data": {"x": "x" * 262_144}},
        {"data": {1: 1, "1": 2}},
    ],
    ids=lambda changes: repr(changes)[:40],
)
def test_values_outside_the_protocol_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        make(**changes)
    assert TOKEN not in str(caught.value) and len(str(caught.value)) < 400


def test_data_that_contains_itself() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(InvalidInput, match="itself"):
        make(data={"ring": ring})


@pytest.mark.parametrize("token", ["", "\ud800"])
def test_tokens_that_are_not_secret_are_refused(token: str) -> None:
    with pytest.raises(InvalidInput, match="token"):
        make(token=token)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_SEQ, MAX_SEQ)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
free_names = st.text(max_size=9).filter(lambda name: name not in ("attempt", "hmac_kid", "hmac_sig"))


@settings(max_examples=300, deadline=None)
@given(
    data=st.dictionaries(free_names, json_values, max_size=4),
    detail=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50),
    seq=st.integers(1, MAX_SEQ),
    kind=st.sampled_from(EventKind),
    attempt=st.none() | st.integers(1, MAX_SEQ),
    kid=st.none() | st.integers(1, MAX_KID),
    legacy=st.booleans(),
)
def test_a_built_event_is_parsed_unchanged(
    data: dict[str, Any], detail: str, seq: int, kind: EventKind, attempt: int | None, kid: int | None, legacy: bool
) -> None:
    event = make(data=data, detail=detail, seq=seq, event=kind, attempt=attempt, kid=kid)
    read = parse(event.text.encode())
    assert read == event
    assert verify(read, TOKEN, legacy=legacy)
    assert not verify(read, TOKEN + "x", legacy=legacy)
    # A broker or agent that decodes and encodes again changes nothing that matters.
    again = parse(json.dumps(json.loads(event.text), indent=1, sort_keys=True))
    assert again.digest == event.digest and verify(again, TOKEN)
