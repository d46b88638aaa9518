"""Test the fast path for log lines: what it reads as an event, the wire protocol's parser reads equally."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobdb.core.protocol import parse
from jobdb.legacy.format.log_line import match_flat_line
from jobdb.legacy.importing.gc_threshold import GC_THRESHOLD, raised_gc_threshold

JOB = "00db5c14"
COMPACT, SPACED, MIXED = (",", ":"), (", ", ": "), (", ", ":")
SIGNED = {"pct": 32, "hmac_sig": "b75be0f3"}

VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [
        0,
        1,
        -1,
        5,
        10**15,
        -0.0,
        1.5,
        True,
        False,
        None,
        "",
        "x",
        "é",
        "a, b",
        "\n",
        '"',
        "\\",
        "{",
        "]",
        [1],
        {},
        "\x7f",
    ]
)
KEYS = st.sampled_from(["pct", "hmac_sig", "attempt", "hmac_kid", "é", "a,b", 'k"', "x:y", ""])


def line(separators: tuple[str, str] = COMPACT, **fields: Any) -> str:
    payload = {
        "schema_version": 1,
        "seq": 2,
        "job_id": JOB,
        "event": "progress",
        "timestamp": "2026-07-08T23:48:59Z",
        "detail": "step 2 of 6",
        "data": SIGNED,
    }
    return json.dumps(payload | fields, separators=separators, ensure_ascii=False)


def matches_parser(text: str) -> bool:
    """Return whether the fast path reads the line, after checking that the parser agrees."""
    event = match_flat_line(text, JOB)
    if event is None:
        return False
    wire = parse(text.encode())
    assert wire.job_id == JOB
    assert event[:3] == (wire.seq, wire.event.value, wire.attempt)
    assert (event.digest, event.payload, event.detail) == (wire.digest, wire.text, wire.detail)
    return True


@given(
    st.sampled_from([COMPACT, SPACED, MIXED]),
    st.dictionaries(KEYS, VALUES, max_size=4),
    st.integers(0, 300),
    st.sampled_from(["", "", '"', ",", " ", "{", "}", "0", "-", "\\", '"pct":1,']),
)
def test_an_altered_line_is_read_as_by_the_parser_or_not_at_all(
    separators: tuple[str, str], data: dict[str, Any], place: int, inserted: str
) -> None:
    text = line(separators, data=data)
    matches_parser(text[:place] + inserted + text[place:])


@pytest.mark.parametrize("separators", [COMPACT, SPACED])
@pytest.mark.parametrize(
    "data",
    [
        {},
        SIGNED,
        {"attempt": 3, **SIGNED},
        {"attempt": 3, "hmac_sig": "b75be0f3"},
        {"hmac_kid": 2, "hmac_sig": "b75be0f3"},
        {"note": "é", "hmac_sig": "b75be0f3"},
        {"hmac_kid": 2, "note": "é", "done": True},
    ],
)
def test_the_lines_of_the_old_scripts_are_matched(separators: tuple[str, str], data: dict[str, Any]) -> None:
    assert matches_parser(line(separators, data=data))


@pytest.mark.parametrize(
    "text",
    [
        line(job_id="other"),
        line(event="unknown"),
        line(timestamp="2026-02-30T00:00:00Z"),
        line(seq=0),
        line(data={"attempt": 0}),
        line(data={"attempt": 0, "hmac_sig": "b75be0f3"}),
        line(data={"hmac_kid": 0, "hmac_sig": "b75be0f3"}),
        line(data={"hmac_sig": 1}),
        line(data={"pct": 32, "hmac_sig": 1}),
        line(data={"é": 32, "hmac_sig": "b75be0f3"}),
        line().replace('"pct":32', '"hmac_sig":"b75be0f3"'),
        line().replace('"pct":32', '"pct":32,"pct":33'),
        line(detail="x" * 300_000),
    ],
)
def test_every_other_line_is_left_to_the_parser(text: str) -> None:
    assert match_flat_line(text, JOB) is None


def test_the_garbage_collectors_thresholds_are_restored() -> None:
    before = gc.get_threshold()
    with pytest.raises(RuntimeError), raised_gc_threshold():
        assert gc.get_threshold()[0] == GC_THRESHOLD
        raise RuntimeError
    assert gc.get_threshold() == before
