"""The wire protocol of job events (docs/job-protocol.md): pure functions over bytes, text and dictionaries.

Called by the registry, accept, tickets and the import. Uses no database, clock, file or network. From the bottom up:
``limits`` and ``event``, ``jcs`` (the canonical form), ``signature``, ``wire`` (parse and build); and ``topics``.
"""

from .event import WireEvent
from .jcs import canonical
from .limits import (
    JOB_ID_PATTERN,
    MAX_DEPTH,
    MAX_DETAIL_CHARS,
    MAX_JOB_ID_CHARS,
    MAX_KID,
    MAX_PAYLOAD_BYTES,
    MAX_SEQ,
    MAX_VALUES,
    SCHEMA_VERSION,
    TIMESTAMP_PATTERN,
    MalformedPayload,
    UnsupportedVersion,
)
from .signature import sign, verify
from .wire import build, decode, parse

__all__ = [
    "JOB_ID_PATTERN",
    "MAX_DEPTH",
    "MAX_DETAIL_CHARS",
    "MAX_JOB_ID_CHARS",
    "MAX_KID",
    "MAX_PAYLOAD_BYTES",
    "MAX_SEQ",
    "MAX_VALUES",
    "SCHEMA_VERSION",
    "TIMESTAMP_PATTERN",
    "MalformedPayload",
    "UnsupportedVersion",
    "WireEvent",
    "build",
    "canonical",
    "decode",
    "parse",
    "sign",
    "verify",
]
