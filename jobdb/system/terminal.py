"""The escaping of untrusted text for a terminal: control characters, bidirectional controls, invisible characters.

Called by the command line and the doctor. Prompts, details and names come from agents and from files. A control
character in one could set a terminal's title, write to its clipboard or overwrite a line
(https://www.openwall.com/lists/oss-security/2003/02/24/3); a bidirectional control or an invisible character makes a
line appear to contain something else (https://trojansource.codes/trojan-source.pdf). `is_displayable` alone decides
which characters are safe. Output for programs stays exact; in JSON the characters can be escaped without changing the
value.
"""

from __future__ import annotations

import io
import re
from typing import Any

# Spaces of other widths: harmless, although str.isprintable counts them with the controls.
_SPACES = frozenset("\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000")
# Letters and marks without a glyph (Unicode's Default_Ignorable_Code_Point outside the control categories), except the
# two variation selectors that choose between the text form and the emoji form of a character.
_INVISIBLE = (  # compiled when needed: that takes a third of a millisecond, and most text is ASCII
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]"
)
_BLANK_BRAILLE = "\u2800"
"""The blank Braille pattern: a printable character that shows nothing."""
_SHORT_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def is_displayable(character: str) -> bool:
    """Return whether a character is visible on a terminal and has no other effect.

    Not a control (C0, DEL, C1), a format character (bidirectional, zero-width, tags), a line separator, a lone
    surrogate or an unassigned code point.
    """
    return (character.isprintable() or character in _SPACES) and not re.search(_INVISIBLE, character)


def _all_displayable(text: str) -> bool:
    return text.isprintable() and (text.isascii() or not re.search(_INVISIBLE, text))


def has_visible_text(text: str) -> bool:
    """Return whether any character of the text is visible."""
    return any(
        is_displayable(character) and not character.isspace() and character != _BLANK_BRAILLE for character in text
    )


def sanitize(text: str, *, keep: str = "") -> str:
    r"""Return ``text`` with every character that is not displayable escaped, as in ``\x1b`` and ``\u202e``.

    Args:
        text: the untrusted text.
        keep: characters to keep, such as the newline.
    """
    if _all_displayable(text):
        return text
    return "".join(
        character if is_displayable(character) or character in keep else _escape(character) for character in text
    )


def sanitize_json(text: str) -> str:
    """Return JSON text with every character that is not displayable as a JSON escape; the value stays the same."""
    if _all_displayable(text):
        return text
    return "".join(character if is_displayable(character) else _json_escape(character) for character in text)


def _escape(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return _SHORT_ESCAPES.get(character) or f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _json_escape(character: str) -> str:
    number = ord(character)
    if number < 0x10000:
        return f"\\u{number:04x}"
    number -= 0x10000
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"


class SanitizingStream(io.TextIOWrapper):
    """A stream to a terminal that escapes all characters that are not displayable.

    Args:
        stream: the process's own stream; it stays open, and its buffer is flushed first.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        stream.flush()
        super().__init__(stream.buffer, encoding="utf-8", errors="backslashreplace", line_buffering=True)

    def write(self, text: str) -> int:
        super().write(sanitize(text.replace("\r\n", "\n"), keep="\n\t"))  # the line ends of CSV
        return len(text)


def wrap_terminal(stream: Any) -> Any:
    """Wrap the stream in a `SanitizingStream` if it leads to a terminal; otherwise return it unchanged.

    The caller keeps a reference to the original stream: garbage collection would close it.
    """
    if isinstance(stream, io.TextIOWrapper) and not isinstance(stream, SanitizingStream) and stream.isatty():
        return SanitizingStream(stream)
    return stream
