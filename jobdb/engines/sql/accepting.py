"""The verb accept (FW-N7): verify, check for replay, record and apply a wire event, in one transaction.

The checks that need no database (is it a payload at all) are the protocol's; those that need one are made here, on one
row that holds all they depend on; the replay rules are :mod:`jobdb.replay`'s.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from ... import model
from ...model import JobStatus, Verdict, from_ms
from ...protocol import MalformedPayload, UnsupportedVersion, WireEvent, parse, verify
from ...replay import ReplayFacts, judge
from .events import event_of, event_row, move_job
from .rows import shorten, token_binding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...model import Acceptance, Arrival, Refusal
    from ...vault import Vault
    from .transaction import Row, Store, Transaction

REFUSALS_PER_JOB = 64
REFUSALS_IN_ALL = 10_000
_REFUSED_PAYLOAD_CHARS = 2048


class _State(NamedTuple):
    """The row ``accept_state``: a job, the event's token, the subscriber, the stored event."""

    job: int
    status: str
    job_last_seq: int
    terminal_seq: int | None
    attempt: int
    kid: int
    topic_prefix: str
    sealed: bytes | None
    imported: int | None
    expires_ms: int | None
    revoked_ms: int | None
    subscription: int | None
    start_seq: int | None
    last_seq: int | None
    handled_seq: int | None
    digest: bytes | None
    recorded_ms: int | None


class AcceptVerbs:
    """Verbs about events that come in over the wire."""

    store: Store
    vault: Vault

    def accept(self, arrivals: Sequence[Arrival], *, subscriber: str, window: int, start: str) -> list[Acceptance]:
        """Gives each arrival its verdict and acts on it; the whole batch is one transaction."""
        parsed = [_parse(arrival) for arrival in arrivals]
        with self.store.write() as tx:
            tx.lock_jobs(wire.job_id for wire in parsed if isinstance(wire, WireEvent))
            refused: Counter[tuple[int, str]] = Counter()
            answers = []
            for wire, arrival in zip(parsed, arrivals, strict=True):
                if isinstance(wire, WireEvent):
                    job, answer = self._accept_one(tx, wire, arrival.topic, subscriber, window, start)
                else:
                    job, answer = 0, wire
                if answer.verdict.refused:
                    refused[job, answer.verdict.value] += 1
                answers.append(answer)
            # Last and in one order: the counters of job 0 are the only rows here that other jobs' writers want too.
            for (job, verdict), count in sorted(refused.items()):
                tx.run("count_verdict", job=job, verdict=verdict, count=count, now=tx.now_ms)
            return answers

    def _accept_one(
        self, tx: Transaction, wire: WireEvent, topic: str | None, subscriber: str, window: int, start: str
    ) -> tuple[int, Acceptance]:
        """The number of the job (0: there is none) and the answer."""
        row = tx.one("accept_state", job_id=wire.job_id, kid=wire.kid, subscriber=subscriber, seq=wire.seq)
        if row is None:
            return 0, _answer(wire, Verdict.UNKNOWN_JOB, "no such job in this database")
        state = _State(*row)
        refused = self._unauthentic(state, wire, topic, tx.now_ms)
        if refused is not None:
            return state.job, refused
        facts = self._facts(tx, state, wire, window, start)
        verdict, reason = judge(facts)
        if verdict is Verdict.ACCEPTED:
            return state.job, self._apply(tx, state, facts, wire, subscriber)
        if verdict is Verdict.DUPLICATE:
            event = event_of(wire, state.recorded_ms or tx.now_ms)
            return state.job, model.Acceptance(verdict, wire.job_id, wire.seq, event, reason=reason)
        if state.subscription is None and start == "now":
            # "now" is this moment. It must not move on with every event that is refused for being recorded already.
            tx.one(
                "insert_subscription", job=state.job, subscriber=subscriber, start_seq=facts.start_seq, now=tx.now_ms
            )
        _record_refusal(tx, state.job, subscriber, wire, verdict, reason)
        return state.job, _answer(wire, verdict, reason)

    def _unauthentic(self, state: _State, wire: WireEvent, topic: str | None, now_ms: int) -> Acceptance | None:
        """The refusal of an event that does not prove that it is its job's; None when it does."""
        if topic is not None and topic != state.topic_prefix + "/events":
            return _answer(wire, Verdict.WRONG_TOPIC, "it came on a topic that is not its job's")
        if not state.kid:
            return None
        if wire.signature is None:
            return _answer(wire, Verdict.UNSIGNED, "the job has a token and the event no signature")
        if state.sealed is None:
            return _answer(wire, Verdict.REVOKED_KEY, f"the job has no key {wire.kid}")
        if state.revoked_ms is not None or (state.expires_ms is not None and state.expires_ms <= now_ms):
            return _answer(wire, Verdict.REVOKED_KEY, f"key {wire.kid} is revoked or its overlap is over")
        token = self.vault.unseal(state.sealed, bound_to=token_binding(wire.job_id, wire.kid))
        if not verify(wire, token, legacy=bool(state.imported)):
            return _answer(wire, Verdict.BAD_SIGNATURE, f"the signature does not verify with key {wire.kid}")
        return None

    @staticmethod
    def _facts(tx: Transaction, state: _State, wire: WireEvent, window: int, start: str) -> ReplayFacts:
        if state.subscription is None:
            start_seq = last_seq = state.job_last_seq if start == "now" else 0
        else:
            assert state.start_seq is not None and state.last_seq is not None
            start_seq, last_seq = state.start_seq, state.last_seq
        skipped = False
        if start_seq < wire.seq <= last_seq:
            skipped = tx.one("gap_that_holds", subscription=state.subscription, seq=wire.seq) is not None
        return ReplayFacts(
            seq=wire.seq,
            event_is_terminal=wire.event.terminal,
            attempt=wire.attempt,
            same=None if state.digest is None else state.digest == wire.digest,
            start_seq=start_seq,
            last_seq=last_seq,
            skipped=skipped,
            window=window,
            status=JobStatus(state.status),
            terminal_seq=state.terminal_seq,
            job_attempt=state.attempt,
        )

    @staticmethod
    def _apply(tx: Transaction, state: _State, facts: ReplayFacts, wire: WireEvent, subscriber: str) -> Acceptance:
        now = tx.now_ms
        missing = advance_subscriber(tx, state, facts, subscriber, now)
        recorded_ms = state.recorded_ms
        if recorded_ms is None:
            recorded_ms = now
            tx.run("insert_event", **event_row(state.job, wire, now))
            if not facts.status.terminal:
                _move(tx, state, facts, wire, now)
        return model.Acceptance(Verdict.ACCEPTED, wire.job_id, wire.seq, event_of(wire, recorded_ms), missing)

    def refusals(self, *, job_id: str | None, below: int, limit: int) -> list[Refusal]:
        """Recorded refusals, newest first."""
        with self.store.read() as tx:
            rows = tx.all("list_refusals", job_id=job_id, below=below, limit=limit)
        return [_refusal(row) for row in rows]

    def verdict_counts(self, job_id: str | None = None) -> dict[Verdict, int]:
        """How often each refusal was given, for one job or in all."""
        with self.store.read() as tx:
            rows = tx.all("verdict_totals") if job_id is None else tx.all("verdict_counts_of_job", job_id=job_id)
        return {Verdict(verdict): int(count) for verdict, count, _last_ms in rows}


def _parse(arrival: Arrival) -> WireEvent | Acceptance:
    try:
        return parse(arrival.payload)
    except MalformedPayload as error:
        return model.Acceptance(Verdict.MALFORMED, reason=error.reason)
    except UnsupportedVersion as error:
        return model.Acceptance(
            Verdict.UNSUPPORTED_VERSION, job_id=error.job_id, reason="another schema_version than 1"
        )


def _answer(wire: WireEvent, verdict: Verdict, reason: str) -> Acceptance:
    return model.Acceptance(verdict, wire.job_id, wire.seq, reason=reason)


def _record_refusal(tx: Transaction, job: int, subscriber: str, wire: WireEvent, verdict: Verdict, reason: str) -> None:
    """Keeps the evidence, within bounds: a holder of the key cannot fill the database with refused events."""
    row = tx.one(
        "insert_refusal",
        job=job,
        subscriber=subscriber,
        verdict=verdict.value,
        seq=wire.seq,
        now=tx.now_ms,
        digest=wire.digest,
        reason=reason,
        payload=shorten(wire.text, _REFUSED_PAYLOAD_CHARS),
    )
    if row is not None:
        tx.run("trim_refusals_of_job", job=job, keep=REFUSALS_PER_JOB)
        tx.run("trim_refusals", newest=row[0], keep=REFUSALS_IN_ALL)


def advance_subscriber(tx: Transaction, state: _State, facts: ReplayFacts, subscriber: str, now: int) -> range:
    """Notes the acceptance; returns the seqs that were skipped over."""
    subscription = state.subscription
    if subscription is None:
        row = tx.one("insert_subscription", job=state.job, subscriber=subscriber, start_seq=facts.start_seq, now=now)
        assert row is not None
        subscription = row[0]
    if facts.seq <= facts.last_seq:
        fill_gap(tx, subscription, facts.seq)
        tx.run("rewind_handled", subscription=subscription, seq=facts.seq, now=now)
        return range(0)
    missing = range(facts.last_seq + 1, facts.seq)
    if missing:
        tx.run("insert_gap", subscription=subscription, first_seq=missing[0], last_seq=missing[-1])
    tx.run("advance_subscription", subscription=subscription, seq=facts.seq, now=now)
    return missing


def fill_gap(tx: Transaction, subscription: int, seq: int) -> None:
    """Takes one seq out of the skipped range that holds it."""
    row = tx.one("gap_that_holds", subscription=subscription, seq=seq)
    assert row is not None
    first, last = row
    tx.run("delete_gap", subscription=subscription, first_seq=first)
    if first < seq:
        tx.run("insert_gap", subscription=subscription, first_seq=first, last_seq=seq - 1)
    if seq < last:
        tx.run("insert_gap", subscription=subscription, first_seq=seq + 1, last_seq=last)


def _move(tx: Transaction, state: _State, facts: ReplayFacts, wire: WireEvent, now: int) -> None:
    """Applies a new event to its living job, never backwards."""
    if wire.seq < state.job_last_seq and not wire.event.terminal:
        return
    last_seq = max(wire.seq, state.job_last_seq)
    move_job(tx, state.job, wire, facts.status, state.attempt, last_seq=last_seq, now=now)


def _refusal(row: Row) -> Refusal:
    number, job_id, subscriber, verdict, seq, recorded_ms, reason = row
    recorded_at = from_ms(recorded_ms)
    assert recorded_at is not None
    return model.Refusal(number, job_id, subscriber, Verdict(verdict), seq, recorded_at, reason)
