"""What a wire event may be, in numbers and patterns, and the two ways in which it can be none.

Used by every module of the protocol; by the registry, which gives out ids and reads refusals. Calls nothing.
docs/job-protocol.md and schema/event.schema.json state the same limits; a test compares them.
"""

from __future__ import annotations

SCHEMA_VERSION = 1
"""The ``schema_version`` that this protocol reads and writes."""

MAX_PAYLOAD_BYTES = 262_144
"""The longest payload, in bytes of UTF-8 as received."""

MAX_SEQ = 2**53 - 1
"""The largest seq and attempt, and the largest magnitude of any integer (RFC 7493, section 2.2)."""

MAX_KID = 2**31 - 1
"""The largest key version."""

MAX_DEPTH = 64
"""How deep objects and arrays may nest; the payload itself is level 1, ``data`` level 2."""

MAX_VALUES = 10_000
"""How many values a payload may hold: objects, arrays, strings, numbers, literals; the payload itself is one."""

MAX_JOB_ID_CHARS = 128
MAX_DETAIL_CHARS = 65_536
"""In code points; the payload as a whole is bounded by ``MAX_PAYLOAD_BYTES``."""

JOB_ID_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,127}"
"""A job id names a file, a topic level and a row: ASCII, no slash, no wildcard, no leading dot or dash."""

TIMESTAMP_PATTERN = (
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
"""A date-time by the grammar of RFC 3339, section 5.6, with capital T and Z: each part for itself, so that every
language can check it with this pattern. The day need not exist in its month. Nothing is decided from it."""


class MalformedPayload(Exception):
    """The payload is not a wire event.

    Attributes:
        reason: one sentence for a person. It never repeats what the payload holds.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnsupportedVersion(Exception):
    """The payload is JSON of another ``schema_version``.

    Attributes:
        version: the version it names.
        job_id: the job it names, where that could be read.
    """

    def __init__(self, version: int, job_id: str | None) -> None:
        super().__init__(f"schema_version is {version}; this jobdb reads version {SCHEMA_VERSION}")
        self.version = version
        self.job_id = job_id
