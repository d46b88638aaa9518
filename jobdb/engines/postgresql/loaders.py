"""The values of a query's rows: text, numbers, bytes, booleans and NULL alone, as on SQLite.

The driver would make Python objects of dates, intervals, UUIDs, arrays and JSON, which no output format has, and refuse
what Python cannot hold, such as the year 10000. So all of them stay as the server writes them.
"""

from __future__ import annotations

from math import isinf

import psycopg
from psycopg.adapt import AdaptersMap, Buffer, Loader
from psycopg.types.string import TextLoader

_NATIVE_TYPES = frozenset({"bool", "bytea", "int2", "int4", "int8", "oid", "float4", "float8", "numeric"})
_MAX_INTEGER_DIGITS = 300
"""More is text: converting takes a time that grows with the square."""


class NumberLoader(Loader):
    """Load ``numeric`` as SQLite has it: a whole number as an integer, another as a double."""

    def load(self, data: Buffer) -> int | float | str:
        text = bytes(data).decode("ascii")
        if text.lstrip("-").isdigit():
            return int(text) if len(text) <= _MAX_INTEGER_DIGITS else text
        value = float(text)
        return text if isinf(value) and text[-1].isdigit() else value


def register_plain_loaders(adapters: AdaptersMap) -> None:
    """Let a cursor load plain values only.

    Args:
        adapters: the cursor's own.
    """
    for kind in psycopg.adapters.types:
        if kind.name not in _NATIVE_TYPES:
            adapters.register_loader(kind.oid, TextLoader)
        if kind.array_oid:
            adapters.register_loader(kind.array_oid, TextLoader)
    adapters.register_loader("numeric", NumberLoader)
