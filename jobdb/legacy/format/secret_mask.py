"""The masks of secrets in kept lines: a mark with the secret's name in the place of the secret.

Called by the normalization (`mask`), by the rebuilding of logs (`unmask`) and by the reader of logs, which takes no
line as an event that holds a secret in clear (`needles`). Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

MIN_SECRET_CHARS = 4
"""Shorter ones protect nothing, and would be found in every other line."""

_MARK_BEGINS = b"\0{jobdb:"
_UNESCAPED = re.compile(r"[ !#-\[\]-~]*")
"""A text that JSON writes as it is."""

_ANY_MARK = re.compile(rb"\0\{jobdb:[a-z_.]+:[0-9]\}\0")


def mask(raw: bytes, secrets: Mapping[str, str | None]) -> bytes:
    """Return a kept line with a mark, which names the secret, in the place of each secret that it holds in clear."""
    for name, secret in secrets.items():
        if secret and len(secret) >= MIN_SECRET_CHARS:
            for number, needle in enumerate(needles(secret)):
                raw = raw.replace(needle, _mark(name, number))
    return raw


def unmask(raw: bytes, secrets: Mapping[str, str | None]) -> bytes:
    """Return the line as it was; in the place of a secret that is not given (None) it says "(left out)"."""
    if _MARK_BEGINS not in raw:
        return raw
    for name, secret in secrets.items():
        if secret is not None:
            for number, needle in enumerate(needles(secret)):
                raw = raw.replace(_mark(name, number), needle)
    return _ANY_MARK.sub(b"(left out)", raw)


def needles(secret: str) -> list[bytes]:
    """Return a secret as it may stand in a line: as it is, and as JSON writes it with and without ASCII escapes."""
    if _UNESCAPED.fullmatch(secret):
        return [secret.encode("ascii")]
    forms = dict.fromkeys((secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]))
    return [form.encode("utf-8") for form in forms]


def _mark(name: str, number: int) -> bytes:
    return _MARK_BEGINS + f"{name}:{number}}}".encode("ascii") + b"\0"
