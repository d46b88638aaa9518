"""The part of accept that runs before the write lock is requested: it parses each payload and verifies large batches.

The sender decides, within the protocol's limits, what parsing and verifying cost, and no other writer should wait for
that. Under the lock it is only checked that the token is still the one that an event was verified with. An event that
is not authentic is refused here and its content dropped, so that a batch of such events takes no memory.

The few events of a small batch are verified under the lock instead, from the row that is read there anyway. That takes
less time than an earlier transaction that reads their tokens. Called by the accept verbs; calls the protocol and
:mod:`jobdb.core.authenticity`, which holds the rules.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ... import model
from ...core.authenticity import SenderCredentials, check_authenticity
from ...core.protocol import MalformedPayload, UnsupportedVersion, parse
from ...model import Verdict
from .sealer import token_binding
from .statements import ACCEPT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ...core.protocol import WireEvent
    from ...crypto.vault import Vault
    from ...model import Acceptance, Arrival
    from ..store import Store

SMALL_BATCH_BYTES = 32_768
"""The largest batch that is verified under the lock, in bytes."""

CHUNK_BYTES = 1_048_576
"""The number of bytes that are parsed before their events are verified, and those that are not authentic dropped."""


class PrecheckedArrival(NamedTuple):
    """An arrival, and the result of the checks made without the write lock.

    Attributes:
        wire: the event; None if it is refused.
        topic: the topic on which it arrived; None if unknown.
        refusal: its verdict, if it is already refused.
        job: the job (jobs.id) for which the refusal is counted; 0 for none.
        authentic: it was verified; otherwise it is verified under the lock.
        verified_with: the sealed token with which it was verified; None also for a job without a token.
        kid: the token version that a refused event names; 0 for none.
    """

    wire: WireEvent | None
    topic: str | None
    refusal: Acceptance | None = None
    job: int = 0
    authentic: bool = False
    verified_with: bytes | None = None
    kid: int = 0

    @property
    def job_id(self) -> str | None:
        """The id of the job that it names; None if that could not be parsed."""
        named = self.wire or self.refusal
        return named.job_id if named else None


def precheck(store: Store, vault: Vault, arrivals: Sequence[Arrival]) -> list[PrecheckedArrival]:
    """Parse a batch and, unless it is small, verify it.

    Raises:
        KeyProblem: a token cannot be decrypted.
    """
    verifier = _Verifier(store, vault)
    done: list[PrecheckedArrival] = []
    chunk: list[PrecheckedArrival] = []
    size = total = 0
    for arrival in arrivals:
        parsed = _parse(arrival)
        chunk.append(parsed)
        if parsed.wire is not None:
            size += len(parsed.wire.message)
            if size >= CHUNK_BYTES:
                done += verifier.verify(chunk)
                chunk, total, size = [], total + size, 0
    return done + (verifier.verify(chunk) if total + size > SMALL_BATCH_BYTES else chunk)


def verify_prechecked(store: Store, vault: Vault, prechecked: Sequence[PrecheckedArrival]) -> list[PrecheckedArrival]:
    """Verify what ``precheck`` has left to be verified; return all arrivals, with those not authentic as refusals.

    Raises:
        KeyProblem: a token cannot be decrypted.
    """
    return _Verifier(store, vault).verify(prechecked)


def open_sealed_token(vault: Vault, wire: WireEvent, credentials: SenderCredentials) -> str:
    """Return the token that an event names, unsealed.

    Raises:
        KeyProblem: it cannot be decrypted.
    """
    assert credentials.sealed is not None
    return vault.unseal(credentials.sealed, bound_to=token_binding(wire.job_id, wire.kid))


def _parse(arrival: Arrival) -> PrecheckedArrival:
    try:
        return PrecheckedArrival(parse(arrival.payload), arrival.topic)
    except MalformedPayload as error:
        refusal = model.Acceptance(Verdict.MALFORMED, reason=error.reason)
    except UnsupportedVersion as error:
        refusal = model.Acceptance(
            Verdict.UNSUPPORTED_VERSION, job_id=error.job_id, reason="another schema_version than 1"
        )
    return PrecheckedArrival(None, arrival.topic, refusal)


class _Verifier:
    """A verifier of arrivals, with one read transaction per call, which remembers the credentials that it has read."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        self._credentials: dict[tuple[str, int], SenderCredentials | None] = {}

    def verify(self, arrivals: Sequence[PrecheckedArrival]) -> list[PrecheckedArrival]:
        """Verify arrivals; those that are already refused or verified are returned unchanged."""
        open_events = [each.wire for each in arrivals if each.wire is not None and not each.authentic]
        if not open_events:
            return list(arrivals)
        now_ms = self._read_credentials({(wire.job_id, wire.kid) for wire in open_events})
        open_token = partial(open_sealed_token, self._vault)
        return [
            each if each.wire is None or each.authentic else self._verify(each.wire, each.topic, open_token, now_ms)
            for each in arrivals
        ]

    def _verify(
        self,
        wire: WireEvent,
        topic: str | None,
        open_token: Callable[[WireEvent, SenderCredentials], str],
        now_ms: int,
    ) -> PrecheckedArrival:
        credentials = self._credentials[wire.job_id, wire.kid]
        failure = check_authenticity(wire, topic, credentials, open_token, now_ms=now_ms)
        if failure is None:
            assert credentials is not None
            return PrecheckedArrival(wire, topic, None, credentials.job, True, credentials.sealed)
        refusal = model.Acceptance(failure.verdict, wire.job_id, wire.seq, reason=failure.reason)
        return PrecheckedArrival(None, topic, refusal, credentials.job if credentials else 0, kid=wire.kid)

    def _read_credentials(self, token_keys: Iterable[tuple[str, int]]) -> int:
        """Read the credentials that are not known yet; return the time of the read, Unix milliseconds."""
        with self._store.read() as tx:
            for job_id, kid in token_keys:
                if (job_id, kid) not in self._credentials:
                    row = tx.one(ACCEPT.sender_credentials, job_id=job_id, kid=kid)
                    self._credentials[job_id, kid] = None if row is None else SenderCredentials(*row)
            return tx.now_ms
