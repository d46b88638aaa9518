"""jobdb: the job registry of multi-agent systems.

Jobs, their signed events, their tokens and each subscriber's ``last_seq`` in one transactional database.
Begin with :class:`Registry`.
"""

from .errors import (
    AlreadyExists,
    Busy,
    DatabaseMissing,
    ForkedRegistry,
    IllegalTransition,
    InvalidInput,
    JobdbError,
    KeyProblem,
    NotAJobdbDatabase,
    Refused,
    SchemaMismatch,
    StaleAttempt,
    StorageFailed,
    SyncFailed,
    TimedOut,
    Unavailable,
    UnknownJob,
    UnsafeFileSystem,
    Unusable,
)
from .model import (
    Acceptance,
    Arrival,
    Broker,
    Claim,
    Event,
    EventKind,
    Job,
    JobStatus,
    NewEvent,
    NewJob,
    Reaped,
    Refusal,
    Subscription,
    TokenInfo,
    Verdict,
)
from .registry import Registry
from .vault import Vault

__version__ = "0.1.0"

__all__ = [
    "Acceptance",
    "AlreadyExists",
    "Arrival",
    "Broker",
    "Busy",
    "Claim",
    "DatabaseMissing",
    "Event",
    "EventKind",
    "ForkedRegistry",
    "IllegalTransition",
    "InvalidInput",
    "Job",
    "JobStatus",
    "JobdbError",
    "KeyProblem",
    "NewEvent",
    "NewJob",
    "NotAJobdbDatabase",
    "Reaped",
    "Refusal",
    "Refused",
    "Registry",
    "SchemaMismatch",
    "StaleAttempt",
    "StorageFailed",
    "Subscription",
    "SyncFailed",
    "TimedOut",
    "TokenInfo",
    "Unavailable",
    "UnknownJob",
    "UnsafeFileSystem",
    "Unusable",
    "Vault",
    "Verdict",
]
