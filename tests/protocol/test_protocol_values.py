"""Test the cost of a small payload: the number of its values is bounded, and counted without building them."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from jobdb.core.protocol import MAX_VALUES, MalformedPayload, build, canonical, parse
from jobdb.core.protocol.limits import has_more_values
from jobdb.errors import InvalidInput
from jobdb.model import EventKind

_TEXTS = st.text(alphabet='[]{},":\\ \n\u00e9a', max_size=12)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_TEXTS, inner, max_size=5),
    max_leaves=40,
)
_EVENT = {
    "schema_version": 1,
    "seq": 1,
    "job_id": "j",
    "event": "progress",
    "timestamp": "2026-06-19T09:32:00Z",
    "detail": "",
}


def count_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(count_of, inner))


@given(value=_JSON, blanks=st.sampled_from([None, 1, "\t"]), ascii_only=st.booleans())
def test_the_count_is_exact(value: Any, blanks: Any, ascii_only: bool) -> None:
    text = json.dumps(value, indent=blanks, ensure_ascii=ascii_only)
    values = count_of(value)
    assert has_more_values(text, values - 1) or values == len(text) == 1
    assert not has_more_values(text, values)


@given(text=st.text(alphabet='[]{},:" \\1'), most=st.integers(0, 30))
def test_text_that_is_not_json_is_counted_without_an_error(text: str, most: int) -> None:
    assert has_more_values(text, most) in (True, False)


@pytest.mark.parametrize("item", ["0", "1.5", '""', "[]", "{}", "[[[]]]", '{"":0}', "null", " [ ] "])
def test_too_many_values_are_malformed(item: str) -> None:
    """They are within the byte limit, which used to be the only one."""
    data = f'{{"x":[{",".join([item] * (MAX_VALUES - 5))}]}}'
    text = json.dumps(_EVENT)[:-1] + f',"data":{data}}}'
    with pytest.raises(MalformedPayload, match="more than 10000 values"):
        parse(text.encode())


def test_too_many_values_are_refused_before_sending() -> None:
    for data in ({"x": [0] * MAX_VALUES}, {"x": (0,) * MAX_VALUES}, {str(key): 0 for key in range(MAX_VALUES)}):
        with pytest.raises(InvalidInput, match="more than 10000 values"):
            build(
                job_id="j",
                seq=1,
                event=EventKind.PROGRESS,
                timestamp="2026-06-19T09:32:00Z",
                detail="",
                data=data,
                attempt=None,
                kid=None,
                token=None,
            )


@given(bits=st.integers(0, 2**64 - 1))
def test_every_double_is_written_as_in_rfc8785(bits: int) -> None:
    (number,) = struct.unpack("<d", struct.pack("<Q", bits))
    if number == number and abs(number) != float("inf"):
        assert canonical({"n": number}) == rfc8785.dumps({"n": number})


@given(mantissa=st.integers(-(10**17), 10**17), power=st.integers(-30, 24))
def test_doubles_around_the_exponents_where_the_forms_differ(mantissa: int, power: int) -> None:
    number = float(f"{mantissa}e{power}")
    assert canonical({"n": [number, -number]}) == rfc8785.dumps({"n": [number, -number]})
