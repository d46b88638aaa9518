"""Authenticity (FW-N5): the check that a wire event really comes from its job, decided from a few facts.

Called by the engine: by ``precheck`` before the write lock is requested and by ``accept_batch`` under the lock, so both
apply the same rule. Pure: no database, clock, file, network or vault; the engine reads the facts and opens the token.
The order of the checks is that of docs/job-protocol.md: ``unknown_job``, ``wrong_topic``, ``unsigned``,
``revoked_key``, ``bad_signature``. A payload that is not an event never gets here: :func:`jobdb.core.protocol.parse`
refuses it. The verdict on an authentic event comes from :mod:`jobdb.core.replay`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..model import Verdict
from .protocol import verify
from .protocol.topics import events_topic

if TYPE_CHECKING:
    from collections.abc import Callable

    from .protocol import WireEvent

CLOCK_SLACK_MS = 60_000
"""The maximum time by which a timestamp may be ahead, in milliseconds: hosts' clocks differ, and are set back."""


class SenderCredentials(NamedTuple):
    """The facts about a job, and about the token that an event names, that decide its authenticity.

    Attributes:
        job: the job's row (jobs.id); not used in the decision.
        kid: the version of the job's current token; 0: the job has no token, and its events need no signature.
        topic_prefix: the prefix of the topic of the job's events.
        updated_ms: when the job was last changed, Unix milliseconds.
        sealed: the token of the version that the event names, encrypted; None: the job has no token of that version.
        imported: True if that token comes from the old registry, whose agents sign another form.
        revoked_ms: when it was revoked, Unix milliseconds; None: it is not revoked.
        expires_ms: when its overlap ends, Unix milliseconds; None: it has no end.
        overlap_ms: the length of the overlap, in milliseconds; None: unknown.
        ended_ms: when the overlap was first seen to be over, Unix milliseconds; None: never.
    """

    job: int
    kid: int
    topic_prefix: str
    updated_ms: int
    sealed: bytes | None
    imported: int | None
    revoked_ms: int | None
    expires_ms: int | None
    overlap_ms: int | None
    ended_ms: int | None


class AuthenticityFailure(NamedTuple):
    """The verdict on an event that is not authentic, and the reason as a sentence."""

    verdict: Verdict
    reason: str


def check_authenticity(
    wire: WireEvent,
    topic: str | None,
    credentials: SenderCredentials | None,
    open_token: Callable[[WireEvent, SenderCredentials], str],
    *,
    now_ms: int,
    verified_with: bytes | None = None,
) -> AuthenticityFailure | None:
    """Return why an event is not authentic, or None if it is.

    Args:
        wire: the event.
        topic: the topic that it arrived on; None: unknown, and not checked.
        credentials: the job's, with the token of the version ``wire.kid``; None: there is no such job.
        open_token: returns that token in clear text, given the event and the credentials. Called at most once, and only
            if every other check passes: an event that is refused for another reason costs no decryption, and a token
            that cannot be opened does not hide that refusal.
        now_ms: the current time, Unix milliseconds.
        verified_with: the encrypted token with which the signature was verified before; if it is still the job's token,
            the signature is not verified again.

    Raises:
        Exception: whatever ``open_token`` raises.

    Example:
        >>> check_authenticity(wire, "elsewhere/events", credentials, open_token, now_ms=now_ms).verdict
        <Verdict.WRONG_TOPIC: 'wrong_topic'>
    """
    if credentials is None:
        return AuthenticityFailure(Verdict.UNKNOWN_JOB, "no such job in this database")
    if topic is not None and topic != events_topic(credentials.topic_prefix):
        return AuthenticityFailure(Verdict.WRONG_TOPIC, "it came on a topic that is not its job's")
    if not credentials.kid:
        return None
    if wire.signature is None:
        return AuthenticityFailure(Verdict.UNSIGNED, "the job has a token and the event no signature")
    if credentials.sealed is None:
        return AuthenticityFailure(Verdict.REVOKED_KEY, f"the job has no key {wire.kid}")
    if credentials.revoked_ms is not None or (credentials.expires_ms is not None and _is_expired(credentials, now_ms)):
        return AuthenticityFailure(Verdict.REVOKED_KEY, f"key {wire.kid} is revoked or its overlap is over")
    if credentials.sealed != verified_with and not verify(
        wire, open_token(wire, credentials), legacy=bool(credentials.imported)
    ):
        return AuthenticityFailure(Verdict.BAD_SIGNATURE, f"the signature does not verify with key {wire.kid}")
    return None


def _is_expired(credentials: SenderCredentials, now_ms: int) -> bool:
    return is_overlap_over(
        credentials.expires_ms,
        credentials.overlap_ms,
        credentials.ended_ms,
        now_ms=now_ms,
        updated_ms=credentials.updated_ms,
    )


def is_overlap_over(
    expires_ms: int | None, overlap_ms: int | None, ended_ms: int | None, *, now_ms: int, updated_ms: int
) -> bool:
    """Return whether the overlap of a rotated token is over.

    Args:
        expires_ms: the end of the overlap, Unix milliseconds; None: it has none.
        overlap_ms: the length of the overlap, in milliseconds. An end that is later than now plus this length is void:
            a clock was ahead when it was computed.
        ended_ms: when the overlap was first seen to be over, Unix milliseconds; None: never.
        now_ms: the current time, Unix milliseconds.
        updated_ms: when the job was last changed, Unix milliseconds. An overlap that had ended by then stays over,
            whatever the clock says now.
    """
    if expires_ms is None:
        return False
    if ended_ms is not None or expires_ms <= max(now_ms, updated_ms):
        return True
    return overlap_ms is not None and expires_ms - overlap_ms > now_ms + CLOCK_SLACK_MS
