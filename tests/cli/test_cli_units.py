"""Test the helpers of the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from jobdb.cli import inputs
from jobdb.cli.param_conversion import PlainConverter

from jobdb.errors import InvalidInput
from jobdb.system.durations import format_duration
from jobdb.system.terminal import is_displayable, sanitize


@given(st.text())
def test_sanitized_text_has_no_control_character(text: str) -> None:
    shown = sanitize(text)
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in shown)
    assert len(shown.splitlines()) <= 1
    assert all(map(is_displayable, shown))
    if all(map(is_displayable, text)):  # a printable character may be invisible, such as U+034F
        assert shown == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202e\u2028", "\\u202e\\u2028"),
        ("é 日 \xa0", "é 日 \xa0"),
    ],
)
def test_sanitize_escapes_control_characters(text: str, shown: str) -> None:
    assert sanitize(text) == shown
    assert sanitize("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 2_592_000), ("12h", 43_200), ("1.5m", 90), ("45s", 45), ("2w", 1_209_600), ("0", 0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert inputs.parse_duration(text, option="--older-than") == seconds


@given(st.text(max_size=8))
def test_an_invalid_duration_is_refused_with_the_options_name(text: str) -> None:
    try:
        assert inputs.parse_duration(text, option="--older-than") >= 0
    except InvalidInput as refused:
        assert "--older-than" in str(refused)


@given(st.text(max_size=40))
def test_invalid_json_is_refused_with_the_options_name(text: str) -> None:
    if text.startswith("@"):
        return
    try:
        assert isinstance(inputs.parse_json_object(text, option="--data"), dict)
    except InvalidInput as refused:
        assert "--data" in str(refused)


def test_reading_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    assert inputs.read_bytes(str(tmp_path / "file"), label="prompt", max_size=100) == b"x" * 100
    with pytest.raises(InvalidInput, match="longer than 99"):
        inputs.read_bytes(str(tmp_path / "file"), label="prompt", max_size=99)
    with pytest.raises(InvalidInput, match="cannot read"):
        inputs.read_bytes("a\0b", label="prompt", max_size=99)


@pytest.mark.parametrize(("seconds", "text"), [(-3, "0s"), (59.9, "59s"), (60, "1m"), (7200, "2h"), (200_000, "2d")])
def test_durations_are_shown_in_one_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
    now = datetime.now(UTC)
    assert format_duration(((now + timedelta(seconds=seconds)) - now).total_seconds()) == text


PARAMETER: Any = SimpleNamespace(multiple=False, nargs=1)
REPEATED: Any = SimpleNamespace(multiple=True, nargs=1)


def test_converted_values() -> None:
    assert PlainConverter(int).coerce("7", PARAMETER, None) == 7
    assert PlainConverter(float).coerce("7.5", PARAMETER, None) == 7.5
    assert PlainConverter(str).coerce("7", PARAMETER, None) == "7"
    assert PlainConverter(str).coerce(None, PARAMETER, None) is None
    assert PlainConverter(bool).coerce(None, PARAMETER, None) is None
    assert PlainConverter(bool).coerce(True, PARAMETER, None) is True
    assert list(PlainConverter(list[str]).coerce(("a", "b"), REPEATED, None)) == ["a", "b"]
    assert list(PlainConverter(list[str]).coerce(None, REPEATED, None)) == []


@pytest.mark.parametrize(
    ("kind", "text"), [(int, "x"), (int, "1.5"), (int, ""), (float, "x"), (int, "-1"), (int, "11")]
)
def test_values_that_are_refused(kind: type, text: str) -> None:
    with pytest.raises(typer.BadParameter):
        PlainConverter(kind, 0, 10).coerce(text, PARAMETER, None)
