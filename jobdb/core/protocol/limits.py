"""The limits of a wire event, in numbers and patterns, and the two errors for a payload that is not one.

Used by every module of the protocol, and by the registry, which allocates ids and reads refusals. Calls nothing.
docs/job-protocol.md and schema/event.schema.json state the same limits; a test compares them.
"""

from __future__ import annotations

SCHEMA_VERSION = 1
"""The ``schema_version`` that is read and written."""

MAX_PAYLOAD_BYTES = 262_144
"""The longest payload, in bytes of UTF-8 as received."""

MAX_SEQ = 2**53 - 1
"""The largest seq and attempt, and the largest magnitude of any integer (RFC 7493, section 2.2)."""

MAX_KID = 2**31 - 1
"""The largest key version."""

MAX_DEPTH = 64
"""The maximum nesting depth of objects and arrays; the payload itself is level 1, ``data`` level 2."""

MAX_VALUES = 10_000
"""The maximum number of values in a payload: objects, arrays, strings, numbers, literals; the payload counts as one.

A payload of 256 KiB can hold a hundred thousand values, each of which becomes a Python object: it then takes forty
times its size in memory and a hundred times as long as a text of that size. See :func:`has_more_values`."""

MAX_JOB_ID_CHARS = 128
MAX_DETAIL_CHARS = 65_536
"""In code points; ``MAX_PAYLOAD_BYTES`` bounds the payload as a whole."""

JOB_ID_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,127}"
"""The pattern of a job id, which names a file, a topic level and a row.

ASCII, no slash, no wildcard, no leading dot or dash."""

TIMESTAMP_PATTERN = (
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
"""The pattern of a date-time by the grammar of RFC 3339, section 5.6, with capital T and Z.

Each part is checked by itself, so that every language can use this pattern; the day need not exist in its month.
Nothing is decided from a timestamp."""


class MalformedPayload(Exception):
    """The payload is not a wire event.

    Attributes:
        reason: one sentence for people. It never repeats the content of the payload.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnsupportedVersion(Exception):
    """The payload is JSON of another ``schema_version``.

    Attributes:
        version: the version that it names.
        job_id: the job that it names; None when that could not be read.
    """

    def __init__(self, version: int, job_id: str | None) -> None:
        super().__init__(f"schema_version is {version}; this jobdb reads version {SCHEMA_VERSION}")
        self.version = version
        self.job_id = job_id


def has_more_values(text: str, limit: int) -> bool:
    """Return whether a JSON text has more than ``limit`` values: objects, arrays, strings, numbers, literals.

    The keys of objects do not count; the text as a whole is one value. The values are counted in the text, by searches
    that run in C, before anything is built from it. For a text that is not JSON the answer is undefined.
    """
    if len(text) <= limit:
        return False
    # Each value except the first follows a comma or opens its container. Strings may contain commas as well.
    if 1 + text.count(",") + text.count("[") + text.count("{") <= limit:
        return False
    bare = text.replace("\\\\", "").replace('\\"', "")  # every quotation mark that is left begins or ends a string
    if bare.count('"') > 4 * limit:  # a string is a key or a value, and there are not more keys than values
        return True
    outside = "s".join(bare.split('"')[::2])
    for blank in " \t\r\n":
        outside = outside.replace(blank, "")
    first = sum(map(outside.count, "[{")) - outside.count("[]") - outside.count("{}")
    return 1 + outside.count(",") + first > limit
