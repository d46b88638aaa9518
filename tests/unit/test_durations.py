"""A duration is shown in one unit, rounded down for an overview or exact for a limit."""

from __future__ import annotations

import pytest

from jobdb.system.durations import format_duration


@pytest.mark.parametrize(
    ("seconds", "text", "precise"),
    [
        (-3, "0s", "0s"),
        (59.9, "59s", "1m"),
        (60, "1m", "1m"),
        (90, "1m", "90s"),
        (120, "2m", "2m"),
        (5400, "1h", "90m"),
        (7200, "2h", "2h"),
        (90_000, "1d", "25h"),
        (200_000, "2d", "2d"),
    ],
)
def test_one_unit(seconds: float, text: str, precise: str) -> None:
    assert format_duration(seconds) == text
    assert format_duration(seconds, precise=True) == precise
