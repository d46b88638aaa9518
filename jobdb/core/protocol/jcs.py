"""The canonical form of a payload: RFC 8785 (JCS) of everything except ``data.hmac_sig``.

Called by ``wire``, when an event is built or parsed, and by ``signature``; calls only ``json``, whose
``dumps(sort_keys=True)`` differs from RFC 8785 in only two ways: the format of floating-point numbers, and the order of
keys beyond ASCII (RFC 8785 sorts by UTF-16 code units, Python by code points). A payload that has neither takes the
fast path; both escape the same characters in the same way. A flat ``data`` has an even faster path. Payloads with
floats are serialized here and not by the ``rfc8785`` package, which takes three times as long; the tests compare the
two.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring
from math import isfinite
from typing import TYPE_CHECKING, Any

from .limits import MAX_DEPTH, MAX_PAYLOAD_BYTES, MAX_SEQ, MalformedPayload

if TYPE_CHECKING:
    from collections.abc import Mapping

# No check for cycles: _validate has already refused them.
_SORTED = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
)


def canonical(payload: Mapping[str, Any]) -> bytes:
    """Return the bytes that are signed.

    Args:
        payload: the whole event; ``hmac_sig`` in its ``data`` is omitted.

    Returns:
        UTF-8 without a final newline.

    Raises:
        MalformedPayload: it has no canonical form: it contains a value that JSON cannot represent, a key that is not a
            string, an integer beyond ±(2**53 - 1), NaN or infinity, a lone surrogate, or too many levels.

    Source: RFC 8785, section 3.2.
    """
    signed = without_signature(payload)
    has_fast_path = _validate(signed)
    try:
        return (_SORTED.encode(signed) if has_fast_path else _serialize(signed)).encode()
    except UnicodeEncodeError:
        raise MalformedPayload("a string contains a lone surrogate") from None


def canonical_flat(data: dict[str, Any]) -> str | None:
    """Return the canonical form of an object that contains only strings, integers, booleans and null.

    Nearly every event's ``data`` is such an object; this takes a single pass over it. Lone surrogates are not detected
    here: encoding finds them.

    Args:
        data: the ``data`` of a payload; ``hmac_sig`` is omitted.

    Returns:
        The canonical form; None if it is not such an object or may have no canonical form: ``canonical`` decides.
    """
    parts = []
    try:
        for key in sorted(data):
            value = data[key]
            kind = type(value)
            if kind is str:
                text = encode_basestring(value)
            elif kind is int:
                if not -MAX_SEQ <= value <= MAX_SEQ:
                    return None
                text = str(value)
            elif kind is bool:
                text = "true" if value else "false"
            elif value is None:
                text = "null"
            else:
                return None
            if type(key) is not str or not key.isascii():
                return None
            if key == "hmac_sig":
                continue
            parts.append(f"{encode_basestring(key)}:{text}")
    except TypeError:  # keys that cannot be sorted
        return None
    return "{" + ",".join(parts) + "}"


def without_signature(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a shallow copy of the payload whose ``data`` has no ``hmac_sig``."""
    copy = dict(payload)
    data = copy.get("data")
    if type(data) is dict and "hmac_sig" in data:
        copy["data"] = data = data.copy()
        del data["hmac_sig"]
    return copy


def _serialize(value: Any) -> str:
    """Return the canonical form of a value that passed ``_validate`` and so is not too deep for recursion."""
    kind = type(value)
    if kind is float:
        return _number(value)
    if kind is str:
        return encode_basestring(value)
    if kind is list:
        return "[" + ",".join(map(_serialize, value)) + "]"
    if kind is dict:
        names = sorted(value) if all(map(str.isascii, value)) else sorted(value, key=_utf16)
        return "{" + ",".join([f"{encode_basestring(name)}:{_serialize(value[name])}" for name in names]) + "}"
    if kind is int:
        return str(value)
    return "null" if value is None else "true" if value else "false"


def _utf16(name: str) -> bytes:
    return name.encode("utf-16be")


def _number(value: float) -> str:
    """Return a double in ECMAScript's format. Source: ECMA-262, Number::toString.

    Python's ``repr`` has the same digits, the shortest that round-trip. It differs in when it uses an exponent, in the
    exponent's format, and in the ``.0`` of whole numbers.
    """
    text = repr(value)
    mantissa, has_exponent, power = text.partition("e")
    if not has_exponent:
        return (text[:-2] if value else "0") if text.endswith(".0") else text
    exponent = int(power)
    if exponent >= 21 or exponent <= -7:
        return f"{mantissa}e{exponent:+d}"
    sign, digits = ("-" if value < 0 else ""), mantissa.lstrip("-").replace(".", "")
    if exponent > 0:
        return sign + digits.ljust(exponent + 1, "0")
    return f"{sign}0.{digits.rjust(len(digits) - exponent - 1, '0')}"


def _validate(payload: dict[str, Any]) -> bool:
    """Return whether the payload has neither floats nor keys beyond ASCII; iterate level by level, without recursion.

    Raises:
        MalformedPayload: see ``canonical``.
    """
    has_fast_path = True
    seen = 0
    depth = 0
    level: list[dict[str, Any] | list[Any]] = [payload]
    while level:
        depth += 1
        seen += len(level)
        if depth > MAX_DEPTH:
            raise MalformedPayload(f"it is nested deeper than {MAX_DEPTH} levels")
        if seen > MAX_PAYLOAD_BYTES:
            # More objects than bytes: the structure contains itself.
            raise MalformedPayload(f"it is larger than {MAX_PAYLOAD_BYTES} bytes")
        below: list[dict[str, Any] | list[Any]] = []
        for container in level:
            values: Any = container
            if type(container) is dict:
                values = container.values()
                for key in container:
                    if type(key) is not str:
                        raise MalformedPayload("an object's key is not a string")
                    if not key.isascii():
                        has_fast_path = False
            for value in values:
                kind = type(value)
                if kind is str or kind is bool or value is None:
                    continue
                if kind is int:
                    if not -MAX_SEQ <= value <= MAX_SEQ:
                        raise MalformedPayload("an integer is beyond ±(2^53 - 1)")
                elif kind is dict or kind is list:
                    below.append(value)
                elif kind is float:
                    if not isfinite(value):
                        raise MalformedPayload("a number is not finite")
                    has_fast_path = False
                else:
                    raise MalformedPayload("it contains a value that JSON cannot represent")
        level = below
    return has_fast_path
