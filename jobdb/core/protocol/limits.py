"""The limits of a wire event, as numbers and patterns, and the two errors for an invalid payload.

Used by every module of the protocol, and by the registry, which allocates ids and reads refusals. Calls nothing.
docs/job-protocol.md and schema/event.schema.json state the same limits; a test compares them.
"""

from __future__ import annotations

SCHEMA_VERSION = 1
"""The supported ``schema_version``."""

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

A payload of 256 KiB can contain a hundred thousand values, each of which becomes a Python object: parsing it takes
forty times its size in memory and a hundred times as long as a string of that size. See :func:`has_more_values`."""

MAX_JOB_ID_CHARS = 128
MAX_DETAIL_CHARS = 65_536
"""The maximum length of ``detail``, in code points; ``MAX_PAYLOAD_BYTES`` bounds the payload as a whole."""

JOB_ID_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,127}"
"""The pattern of a job id, which is used as a file name, a topic level and a key.

ASCII, no slash, no wildcard, no leading dot or dash."""

TIMESTAMP_PATTERN = (
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
"""The pattern of a date-time in the grammar of RFC 3339, section 5.6, with capital T and Z.

Each part is checked separately, so that every language can use this pattern; the day need not exist in its month.
No decision depends on a timestamp."""


class MalformedPayload(Exception):
    """Raised when a payload is not a wire event.

    Attributes:
        reason: one sentence for people. It never quotes the payload.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnsupportedVersion(Exception):
    """Raised when a payload is JSON of another ``schema_version``.

    Attributes:
        version: the version that it names.
        job_id: the job that it names; None if that could not be read.
    """

    def __init__(self, version: int, job_id: str | None) -> None:
        super().__init__(f"schema_version is {version}; this jobdb reads version {SCHEMA_VERSION}")
        self.version = version
        self.job_id = job_id


def has_more_values(text: str, limit: int) -> bool:
    """Return whether a JSON text has more than ``limit`` values: objects, arrays, strings, numbers, literals.

    The keys of objects do not count; the text as a whole is one value. The values are counted by string searches, which
    run in C, before the text is parsed. For a text that is not JSON the result is undefined.
    """
    if len(text) <= limit:
        return False
    # Each value except the first follows a comma or opens its container. Strings may contain commas as well.
    if 1 + text.count(",") + text.count("[") + text.count("{") <= limit:
        return False
    bare = text.replace("\\\\", "").replace('\\"', "")  # each remaining quotation mark begins or ends a string
    if bare.count('"') > 4 * limit:  # a string is a key or a value, and there are no more keys than values
        return True
    outside = "s".join(bare.split('"')[::2])
    for blank in " \t\r\n":
        outside = outside.replace(blank, "")
    first = sum(map(outside.count, "[{")) - outside.count("[]") - outside.count("{}")
    return 1 + outside.count(",") + first > limit
