"""jobdb: the job registry of multi-agent systems.

Imported by applications, which begin with :class:`Registry`; the command line reads only the version here. It keeps
jobs, their signed events, their tokens and the position of each subscriber in one transactional database. Names are
imported when they are first used, so that ``import jobdb`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .crypto.vault import Vault
    from .errors import (
        AlreadyAnswered,
        AlreadyExists,
        AttemptRequired,
        Busy,
        DatabaseMissing,
        DatabaseReplaced,
        ForkedRegistry,
        IllegalTransition,
        InvalidInput,
        JobdbError,
        KeyProblem,
        MovedOrCopied,
        NotAJobdbDatabase,
        Refused,
        SchemaMismatch,
        StaleAttempt,
        StorageFailed,
        SyncFailed,
        TimedOut,
        Unavailable,
        UnknownJob,
        UnknownQuestion,
        UnsafeFileSystem,
        UntrustedDatabase,
        Unusable,
    )
    from .model import (
        Acceptance,
        Arrival,
        Attempt,
        AuthMode,
        Broker,
        Claim,
        Durability,
        Event,
        EventKind,
        EventName,
        GiveBack,
        Job,
        JobStatus,
        NewEvent,
        NewJob,
        Page,
        Question,
        Reaped,
        Refusal,
        StartPoint,
        StatusName,
        Subscription,
        TokenInfo,
        Verdict,
        WorkBatch,
        WorkerInfo,
        WorkerRecord,
        WorkResult,
    )
    from .registry import AsyncRegistry, Registry

__version__ = "0.1.0"

__all__ = [
    "Acceptance",
    "AlreadyAnswered",
    "AlreadyExists",
    "Arrival",
    "AsyncRegistry",
    "Attempt",
    "AttemptRequired",
    "AuthMode",
    "Broker",
    "Busy",
    "Claim",
    "DatabaseMissing",
    "DatabaseReplaced",
    "Durability",
    "Event",
    "EventKind",
    "EventName",
    "ForkedRegistry",
    "GiveBack",
    "IllegalTransition",
    "InvalidInput",
    "Job",
    "JobStatus",
    "JobdbError",
    "KeyProblem",
    "MovedOrCopied",
    "NewEvent",
    "NewJob",
    "NotAJobdbDatabase",
    "Page",
    "Question",
    "Reaped",
    "Refusal",
    "Refused",
    "Registry",
    "SchemaMismatch",
    "StaleAttempt",
    "StartPoint",
    "StatusName",
    "StorageFailed",
    "Subscription",
    "SyncFailed",
    "TimedOut",
    "TokenInfo",
    "Unavailable",
    "UnknownJob",
    "UnknownQuestion",
    "UnsafeFileSystem",
    "UntrustedDatabase",
    "Unusable",
    "Vault",
    "Verdict",
    "WorkBatch",
    "WorkResult",
    "WorkerInfo",
    "WorkerRecord",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = {"AsyncRegistry": "registry", "Registry": "registry", "Vault": "crypto.vault"}.get(name)
    if home is None:
        home = "errors" if hasattr(import_module(".errors", __name__), name) else "model"
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value
