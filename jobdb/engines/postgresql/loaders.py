"""The conversion of a query's values: only text, numbers, bytes, booleans and NULL, as on SQLite.

Called by ``query``, for the cursor of one ad-hoc query. Changes no connection's settings: verbs load values as before.

The driver would convert dates, intervals, UUIDs, arrays and JSON to Python objects, which no output format has, and
refuse values that Python cannot represent, such as the year 10000. So all of these stay text as the server writes it.
"""

from __future__ import annotations

from math import isinf

import psycopg
from psycopg.adapt import AdaptersMap, Buffer, Loader
from psycopg.types.string import TextLoader

_NATIVE_TYPES = frozenset({"bool", "bytea", "int2", "int4", "int8", "oid", "float4", "float8", "numeric"})
_MAX_INTEGER_DIGITS = 300
"""Longer integers stay text: the time of a conversion grows with the square of the length."""


class NumberLoader(Loader):
    """A loader of ``numeric`` values as on SQLite: whole numbers as integers, others as doubles."""

    def load(self, data: Buffer) -> int | float | str:
        text = bytes(data).decode("ascii")
        if text.lstrip("-").isdigit():
            return int(text) if len(text) <= _MAX_INTEGER_DIGITS else text
        value = float(text)
        return text if isinf(value) and text[-1].isdigit() else value


def register_plain_loaders(adapters: AdaptersMap) -> None:
    """Make a cursor load plain values only.

    Args:
        adapters: the cursor's adapters.
    """
    for kind in psycopg.adapters.types:
        if kind.name not in _NATIVE_TYPES:
            adapters.register_loader(kind.oid, TextLoader)
        if kind.array_oid:
            adapters.register_loader(kind.array_oid, TextLoader)
    adapters.register_loader("numeric", NumberLoader)
