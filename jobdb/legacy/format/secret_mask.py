"""The masking of secrets in kept lines: each secret is replaced by a mark with its name.

Called by the normalization (`mask`), by the rebuilding of logs (`unmask`) and by the reader of logs, which accepts no
line as an event that contains a secret in clear text (`needles`). Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

MIN_SECRET_CHARS = 4
"""The minimum length of a masked secret: shorter ones protect nothing, and would match in many lines."""

_MARK_BEGINS = b"\0{jobdb:"
_UNESCAPED = re.compile(r"[ !#-\[\]-~]*")
"""A string that JSON does not escape."""

_ANY_MARK = re.compile(rb"\0\{jobdb:[a-z_.]+:[0-9]\}\0")


def mask(raw: bytes, secrets: Mapping[str, str | None]) -> bytes:
    """Replace each secret that a kept line contains in clear text by a mark with the secret's name."""
    for name, secret in secrets.items():
        if secret and len(secret) >= MIN_SECRET_CHARS:
            for number, needle in enumerate(needles(secret)):
                raw = raw.replace(needle, _mark(name, number))
    return raw


def unmask(raw: bytes, secrets: Mapping[str, str | None]) -> bytes:
    """Return the original line; a secret that is not given (None) is replaced by "(left out)"."""
    if _MARK_BEGINS not in raw:
        return raw
    for name, secret in secrets.items():
        if secret is not None:
            for number, needle in enumerate(needles(secret)):
                raw = raw.replace(_mark(name, number), needle)
    return _ANY_MARK.sub(b"(left out)", raw)


def needles(secret: str) -> list[bytes]:
    """Return the forms in which a secret may occur in a line: plain, and as JSON with and without ASCII escapes."""
    if _UNESCAPED.fullmatch(secret):
        return [secret.encode("ascii")]
    forms = dict.fromkeys((secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]))
    return [form.encode("utf-8") for form in forms]


def _mark(name: str, number: int) -> bytes:
    return _MARK_BEGINS + f"{name}:{number}}}".encode("ascii") + b"\0"
