"""What accept decides before it asks for the write lock: whether a payload is an event, and whether it is its job's.

Parsing and verifying cost what their sender likes, within the protocol's limits, and no other writer shall wait for
that. So they come first; under the lock it is only looked whether the token is still the one that an event was verified
with. An event that proves nothing is refused here, and its content dropped: a batch of them takes no memory.

A few small events are verified under the lock all the same, from the row that is read there anyway. That takes less
than the transaction that it would take to read their tokens beforehand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ... import model
from ...core.protocol import MalformedPayload, UnsupportedVersion, parse, verify
from ...model import Verdict
from .rows import overlap_is_over
from .sealer import token_binding
from .statements import ACCEPT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...core.protocol import WireEvent
    from ...crypto.vault import Vault
    from ...model import Acceptance, Arrival
    from ..store import Store

SMALL_BATCH_BYTES = 32_768
"""Batches of at most so many bytes are verified under the lock."""

CHUNK_BYTES = 1_048_576
"""So many bytes are parsed before what proves nothing among them is dropped."""


class SenderCredentials(NamedTuple):
    """What a job's row and a token's say about who may speak for the job.

    Attributes:
        job: jobs.id.
        kid: the version of the job's current token; 0: it has none, and needs no signatures.
        topic_prefix: where its events come from.
        updated_ms: when the job was changed last, Unix milliseconds.
        sealed: the token that an event names, sealed; None: there is none of that version.
        imported: it comes from the old registry.
        revoked_ms: since when it is revoked, Unix milliseconds; None: it is not.
        expires_ms: until when it is valid, Unix milliseconds; None: no end.
        overlap_ms: how long that was to be, in milliseconds; None: it is not known.
        ended_ms: when it was first seen to be over; None: it was not.
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


class PrecheckedArrival(NamedTuple):
    """An arrival, and what is known of it without the write lock.

    Attributes:
        wire: the event; None where it is refused.
        topic: the topic it came on, where there was one.
        refused: its verdict, where that stands already.
        job: jobs.id of the job that the refusal counts for; 0: of none.
        authentic: whether it was looked at and is its job's; otherwise that is still to be found out.
        sealed: the sealed token that it was verified with.
        kid: the version of the token that a refused event names; 0: none.
    """

    wire: WireEvent | None
    topic: str | None
    refused: Acceptance | None = None
    job: int = 0
    authentic: bool = False
    sealed: bytes | None = None
    kid: int = 0

    @property
    def job_id(self) -> str | None:
        """The job that it names; None where it names none that could be read."""
        named = self.wire or self.refused
        return named.job_id if named else None


def precheck(store: Store, vault: Vault, arrivals: Sequence[Arrival]) -> list[PrecheckedArrival]:
    """Parse a batch and, unless it is small, verify it.

    Raises:
        KeyProblem: a token cannot be unsealed.
    """
    prechecked: list[PrecheckedArrival] = []
    looked = size = 0
    total = 0
    known: dict[tuple[str, int], SenderCredentials | None] = {}
    for arrival in arrivals:
        each = _parsed(arrival)
        prechecked.append(each)
        if each.wire is not None:
            size += len(each.wire.message)
            if size >= CHUNK_BYTES:
                _verify(store, vault, prechecked, looked, known)
                looked, total, size = len(prechecked), total + size, 0
    if total + size > SMALL_BATCH_BYTES:
        _verify(store, vault, prechecked, looked, known)
    return prechecked


def check_authenticity(
    wire: WireEvent,
    topic: str | None,
    sender: SenderCredentials,
    vault: Vault,
    now: int,
    *,
    verified: bytes | None = None,
) -> tuple[Verdict, str] | None:
    """Return why an event does not prove that it is its job's; None when it does.

    Args:
        wire: the event.
        topic: the topic it came on; None: not known.
        sender: who may speak for its job.
        vault: opens the token.
        now: Unix milliseconds.
        verified: the sealed token that the signature is known to verify with.

    Raises:
        KeyProblem: the token cannot be unsealed.
    """
    if topic is not None and topic != sender.topic_prefix + "/events":
        return Verdict.WRONG_TOPIC, "it came on a topic that is not its job's"
    if not sender.kid:
        return None
    if wire.signature is None:
        return Verdict.UNSIGNED, "the job has a token and the event no signature"
    sealed = sender.sealed
    if sealed is None:
        return Verdict.REVOKED_KEY, f"the job has no key {wire.kid}"
    over = sender.expires_ms is not None and overlap_is_over(
        sender.expires_ms, sender.overlap_ms, sender.ended_ms, now_ms=now, updated_ms=sender.updated_ms
    )
    if over or sender.revoked_ms is not None:
        return Verdict.REVOKED_KEY, f"key {wire.kid} is revoked or its overlap is over"
    if sealed != verified:
        token = vault.unseal(sealed, bound_to=token_binding(wire.job_id, wire.kid))
        if not verify(wire, token, legacy=bool(sender.imported)):
            return Verdict.BAD_SIGNATURE, f"the signature does not verify with key {wire.kid}"
    return None


def _parsed(arrival: Arrival) -> PrecheckedArrival:
    try:
        return PrecheckedArrival(parse(arrival.payload), arrival.topic)
    except MalformedPayload as error:
        refused = model.Acceptance(Verdict.MALFORMED, reason=error.reason)
    except UnsupportedVersion as error:
        refused = model.Acceptance(
            Verdict.UNSUPPORTED_VERSION, job_id=error.job_id, reason="another schema_version than 1"
        )
    return PrecheckedArrival(None, arrival.topic, refused)


def _verify(
    store: Store,
    vault: Vault,
    prechecked: list[PrecheckedArrival],
    first: int,
    known: dict[tuple[str, int], SenderCredentials | None],
) -> None:
    """Verify what stands in the list from a place on; what proves nothing is replaced by its refusal."""
    token_keys = {(each.wire.job_id, each.wire.kid) for each in prechecked[first:] if each.wire is not None}
    now = _read_senders(store, token_keys - known.keys(), known)
    for index in range(first, len(prechecked)):
        wire, topic, *_ = prechecked[index]
        if wire is None:
            continue
        sender = known[wire.job_id, wire.kid]
        if sender is None:
            failure: tuple[Verdict, str] | None = (Verdict.UNKNOWN_JOB, "no such job in this database")
        else:
            failure = check_authenticity(wire, topic, sender, vault, now)
        number = sender.job if sender else 0
        if failure is None:
            assert sender is not None
            prechecked[index] = PrecheckedArrival(wire, topic, None, number, True, sender.sealed)
        else:
            refused = model.Acceptance(failure[0], wire.job_id, wire.seq, reason=failure[1])
            prechecked[index] = PrecheckedArrival(None, topic, refused, number, kid=wire.kid)


def _read_senders(
    store: Store, token_keys: Iterable[tuple[str, int]], known: dict[tuple[str, int], SenderCredentials | None]
) -> int:
    with store.read() as tx:
        for job_id, kid in token_keys:
            row = tx.one(ACCEPT.sender_credentials, job_id=job_id, kid=kid)
            known[job_id, kid] = None if row is None else SenderCredentials(*row)
        return tx.now_ms
