"""Test which characters are escaped for a terminal, and how."""

from __future__ import annotations

import json
import os
import pty
import unicodedata

from jobdb.core.protocol import build
from jobdb.model import EventKind
from jobdb.system.terminal import SanitizingStream, is_displayable, sanitize, sanitize_json, wrap_terminal

CONTROLS = [chr(number) for number in (*range(0x20), *range(0x7F, 0xA0))]
BIDI_CONTROLS = list("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
INVISIBLE = list("\xad\u034f\u115f\u1160\u180e\u200b\u200c\u200d\u2060\u2061\u2064\u206f\u3164\ufeff\uffa0\ufff9")
FAR = [chr(number) for number in (0xE0001, 0xE0041, 0xE007F, 0xE0100, 0xE01EF, 0x1D173, 0x110BD)]
PLAIN = "a~ é ß 中 日本語 ابج עברית \u3000\xa0 😀 ❤\ufe0f ∀ e\u0301 \\x1b"


def test_control_bidirectional_and_invisible_characters_are_escaped() -> None:
    for one in (*CONTROLS, *BIDI_CONTROLS, *INVISIBLE, *FAR, "\u2028", "\u2029", "\ud800"):
        assert not is_displayable(one), f"U+{ord(one):04X}"
        shown = sanitize(f"a{one}b")
        assert shown.isascii() and shown.isprintable() and shown != "ab"
    assert sanitize(PLAIN) == PLAIN


def test_no_character_of_the_escaped_categories_passes_unescaped() -> None:
    for number in range(0x110000):
        if unicodedata.category(chr(number)) in ("Cc", "Cf", "Cs", "Zl", "Zp", "Cn", "Co"):
            assert not is_displayable(chr(number)), f"U+{number:04X}"


def test_each_kind_of_character_has_its_own_escape() -> None:
    assert sanitize("\x1b\n\t\r\x9b\u202e\U000e0041") == r"\x1b\n\t\r\x9b\u202e\U000e0041"
    assert sanitize("a\nb\tc\x07", keep="\n\t") == "a\nb\tc\\x07"


def test_sanitized_json_keeps_its_value() -> None:
    value = {"k" + "".join(BIDI_CONTROLS): "".join((*CONTROLS, *INVISIBLE, *FAR)), "p": PLAIN}
    text = sanitize_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert all(map(is_displayable, text)) and PLAIN.split("\\")[0] in text


def test_a_sanitized_payload_still_verifies() -> None:
    from jobdb.core.protocol import parse, verify

    token = "x" * 40
    detail = "".join((*CONTROLS[1:], *BIDI_CONTROLS, *INVISIBLE, *FAR))
    event = build(
        job_id="j", seq=1, event=EventKind.PROGRESS, timestamp="2026-06-19T09:32:00Z", detail=detail, data={},
        attempt=1, kid=1, token=token,
    )  # fmt: skip
    shown = sanitize_json(event.text)
    assert shown != event.text and all(map(is_displayable, shown))
    assert verify(parse(shown.encode()), token) and json.loads(shown) == json.loads(event.text)


def test_only_streams_to_a_terminal_are_sanitized(tmp_path) -> None:
    ours, theirs = pty.openpty()
    with open(theirs, "w", encoding="utf-8", newline="\n") as raw, open(tmp_path / "file", "w") as file:
        assert wrap_terminal(file) is file
        stream = wrap_terminal(raw)
        assert isinstance(stream, SanitizingStream) and stream.isatty() and wrap_terminal(stream) is stream
        assert stream.write("a\x9b\x1b[31m\n") == 8
        stream.writelines(["\u202e", "\tb\n"])
        print("c\rd", file=stream)
        stream.flush()
        seen = b""
        while seen.count(b"\n") < 3:  # a terminal returns what it has so far
            seen += os.read(ours, 1000)
        assert seen == b"a\\x9b\\x1b[31m\r\n\\u202e\tb\r\nc\\rd\r\n"
    os.close(ours)
