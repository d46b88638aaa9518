"""Test that a duration is shown in one unit, precisely enough."""

from __future__ import annotations

import pytest

from jobdb.system.durations import format_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (90, "90s"),
        (120, "2m"),
        (3600, "1h"),
        (5400, "90m"),
        (7200, "2h"),
        (90_000, "25h"),
        (200_000, "2d"),
    ],
)
def test_a_duration_is_shown_in_one_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
