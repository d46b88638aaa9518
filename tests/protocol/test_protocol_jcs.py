"""Test the canonical form: the fast path against a reference implementation of RFC 8785, and values without a form."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from jobdb.core.protocol import MAX_DEPTH, MAX_PAYLOAD_BYTES, MAX_SEQ, MalformedPayload, canonical

integers = st.integers(-MAX_SEQ, MAX_SEQ)
doubles = st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 2**64 - 1).map(
    lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0]
).filter(lambda number: number - number == 0)
# Characters on which code points and UTF-16 code units disagree, and those that are escaped, more often than by chance.
strings = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\/\x00\x1f\x7f\ue000\uffff\U00010000'))
ascii_keys = st.text(st.characters(max_codepoint=127), max_size=5)


def trees(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    values = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    )
    return st.dictionaries(keys, values, max_size=5)


plain_leaves = st.none() | st.booleans() | integers | strings


@settings(max_examples=400, deadline=None)
@given(trees(plain_leaves, ascii_keys))
def test_the_fast_path_equals_the_reference(payload: dict[str, Any]) -> None:
    assert canonical({"data": payload, "hmac_sig": 1}) == rfc8785.dumps({"data": _without(payload), "hmac_sig": 1})


@settings(max_examples=400, deadline=None)
@given(trees(plain_leaves | doubles, strings))
def test_any_payload_is_canonicalized_as_by_the_reference(payload: dict[str, Any]) -> None:
    assert canonical({"data": payload}) == rfc8785.dumps({"data": _without(payload)})


@settings(max_examples=200, deadline=None)
@given(trees(plain_leaves, strings))
def test_canonicalization_keeps_the_meaning_and_is_idempotent(payload: dict[str, Any]) -> None:
    form = canonical(payload)
    if "hmac_sig" not in (payload.get("data") or {}):
        assert json.loads(form) == payload
    assert canonical(json.loads(form)) == form


def _without(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != "hmac_sig"}


def test_only_the_signature_in_data_is_left_out() -> None:
    payload = {"hmac_sig": "a", "data": {"x": {"hmac_sig": "b"}, "hmac_sig": "c"}}
    assert canonical(payload) == b'{"data":{"x":{"hmac_sig":"b"}},"hmac_sig":"a"}'
    assert payload["data"] == {"x": {"hmac_sig": "b"}, "hmac_sig": "c"}, "the payload itself is not changed"


def nested(levels: int) -> dict[str, Any]:
    """Return an object of that many levels, itself included."""
    inner: Any = 1
    for _ in range(levels - 1):
        inner = [inner]
    return {"a": inner}


def test_the_nesting_depth_is_bounded() -> None:
    assert canonical(nested(MAX_DEPTH)).count(b"[") == MAX_DEPTH - 1
    with pytest.raises(MalformedPayload, match="deeper"):
        canonical(nested(MAX_DEPTH + 1))
    with pytest.raises(MalformedPayload, match="deeper"):
        canonical(nested(100_000))


def test_a_structure_that_contains_itself() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(MalformedPayload):
        canonical({"a": ring})
    bush: list[Any] = []
    bush += [bush] * 10
    with pytest.raises(MalformedPayload, match=str(MAX_PAYLOAD_BYTES)):
        canonical({"a": bush})


@pytest.mark.parametrize(
    "value",
    [
        MAX_SEQ + 1,
        -MAX_SEQ - 1,
        float("nan"),
        float("inf"),
        -float("inf"),
        "\ud800",
        "\udc00\ud800",
        {"\udfff": 1},
        {"\udfff": 1.5},
        {1: 2},
        {None: 2},
        (1, 2),
        b"bytes",
        {1, 2},
        1j,
        object(),
    ],
    ids=lambda value: repr(value) if type(value) is not object else "object",
)
def test_values_without_a_canonical_form(value: Any) -> None:
    for payload in ({"a": value}, {"a": [{"b": [value]}]}, {"a": value, "\u00e9": 0.5}):
        with pytest.raises(MalformedPayload):
            canonical(payload)
