"""What the verb accept does in its transaction: check for replay, record and apply wire events.

What could be found out before it asked for the lock (:mod:`.verifying`) is not done again; what may have changed since
is looked at here, on one row that holds all it depends on. The replay rules are :mod:`jobdb.core.replay`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ... import model
from ...core.lifecycle import next_status
from ...core.replay import ReplayFacts, check_replay
from ...model import Verdict
from .job_updates import JobUpdates, event_from_wire, event_row, run_each, run_job_updates
from .precheck import SenderCredentials, check_authenticity
from .rows import STATUSES, shorten
from .statements import ACCEPT, EVENTS, TOKENS

if TYPE_CHECKING:
    from ...core.protocol import WireEvent
    from ...crypto.vault import Vault
    from ...model import Acceptance
    from ..store import Row, Transaction
    from .precheck import PrecheckedArrival

MAX_REFUSALS_PER_JOB = 64
MAX_REFUSALS = 10_000
_REFUSED_PAYLOAD_CHARS = 2048


class _AcceptState:
    """One job and the subscriber's numbers for it while a batch is being accepted: read once, written once.

    Attributes:
        keys: who may speak for it with the tokens that the batch names, by version.
        stored: digest and moment of the events that the batch has looked up or recorded, by seq.
        rows: events to be recorded.
        updates: the events that the job is moved by.
        advanced: the subscriber's last_seq has to be written.
    """

    __slots__ = (
        "advanced",
        "attempt",
        "keys",
        "kid",
        "last_accepted",
        "last_seq",
        "number",
        "rows",
        "start_seq",
        "status",
        "stored",
        "subscription",
        "terminal_seq",
        "topic_prefix",
        "updated_ms",
        "updates",
    )

    def __init__(self, row: Row, start: str) -> None:
        (
            self.number,
            status,
            self.last_seq,
            self.terminal_seq,
            self.attempt,
            self.kid,
            self.topic_prefix,
            self.updated_ms,
            self.subscription,
            self.start_seq,
            self.last_accepted,
        ) = row
        self.status = STATUSES[status]
        if self.subscription is None:
            self.start_seq = self.last_accepted = self.last_seq if start == "now" else 0
        self.keys: dict[int, SenderCredentials] = {}
        self.stored: dict[int, tuple[bytes, int] | None] = {}
        self.rows: list[dict[str, Any]] = []
        self.updates = JobUpdates()
        self.advanced = False

    def key(self, kid: int, row: Row | None) -> None:
        """Note a token: sealed, imported, revoked_ms, expires_ms, overlap_ms, ended_ms; None: there is none."""
        self.keys[kid] = SenderCredentials(
            self.number, self.kid, self.topic_prefix, self.updated_ms, *(row or (None,) * 6)
        )

    def apply(self, wire: WireEvent, now: int) -> None:
        """Records a new event and moves the job, never backwards."""
        self.rows.append(event_row(self.number, wire, now))
        self.stored[wire.seq] = (self.rows[-1]["digest"], now)
        if self.status.terminal or (wire.seq < self.last_seq and not wire.event.terminal):
            return
        self.last_seq = max(wire.seq, self.last_seq)
        self.updates.add(self.status, wire, self.last_seq)
        target = next_status(self.status, wire.event)
        assert target is not None
        self.status = target
        if target.terminal:
            self.terminal_seq = wire.seq


class AcceptBatch:
    """One transaction of accept: the jobs that it touches, and what is left to write at its end."""

    def __init__(self, tx: Transaction, vault: Vault, subscriber: str, window: int, start: str) -> None:
        self._tx = tx
        self._vault = vault
        self._subscriber = subscriber
        self._window = window
        self._start = start
        self._now = tx.now_ms
        self._jobs: dict[str, _AcceptState | None] = {}
        self._refused: dict[tuple[int, str], int] = {}
        self._ended_overlaps: set[tuple[int, int]] = set()

    def accept(self, prechecked: PrecheckedArrival) -> Acceptance:
        """The verdict on one event, in the order of the documented checks."""
        wire = prechecked.wire
        if wire is None:
            assert prechecked.refused is not None
            self._note_refused_key(prechecked.job, prechecked.kid, prechecked.refused.verdict)
            return self._count_refusal(prechecked.job, prechecked.refused)
        job = self._load_state(wire)
        if job is None:
            return self._refuse(0, wire, Verdict.UNKNOWN_JOB, "no such job in this database")
        problem = check_authenticity(
            wire, prechecked.topic, job.keys[wire.kid], self._vault, self._now, verified=prechecked.sealed
        )
        if problem is not None:
            self._note_refused_key(job.number, wire.kid, problem[0])
            return self._refuse(job.number, wire, *problem)
        stored = job.stored[wire.seq]
        verdict, reason = check_replay(self._replay_facts(job, wire, stored))
        if verdict is Verdict.ACCEPTED:
            missing = self._advance(job, wire.seq)
            if stored is None:
                job.apply(wire, self._now)
                return model.Acceptance(verdict, wire.job_id, wire.seq, event_from_wire(wire, self._now), missing)
            return model.Acceptance(verdict, wire.job_id, wire.seq, event_from_wire(wire, stored[1]), missing)
        if verdict is Verdict.DUPLICATE:
            event = event_from_wire(wire, stored[1] if stored else self._now)
            return model.Acceptance(verdict, wire.job_id, wire.seq, event, reason=reason)
        if self._start == "now":
            # "now" is this moment. It must not move on with every event that is refused for being recorded already.
            self._ensure_subscription(job)
        _record_refusal(self._tx, job.number, self._subscriber, wire, verdict, reason)
        return self._refuse(job.number, wire, verdict, reason)

    def _count_refusal(self, job: int, answer: Acceptance) -> Acceptance:
        """Counts a refusal."""
        key = job, answer.verdict.value
        self._refused[key] = self._refused.get(key, 0) + 1
        return answer

    def _note_refused_key(self, job: int, kid: int, verdict: Verdict) -> None:
        """Remember a key that was refused: if its overlap is over, that is noted at the end."""
        if verdict is Verdict.REVOKED_KEY and kid:
            self._ended_overlaps.add((job, kid))

    def _refuse(self, job: int, wire: WireEvent, verdict: Verdict, reason: str) -> Acceptance:
        return self._count_refusal(job, model.Acceptance(verdict, wire.job_id, wire.seq, reason=reason))

    # -- what is decided from

    def _load_state(self, wire: WireEvent) -> _AcceptState | None:
        """The job, with the key and the stored event that the wire event names."""
        job = self._jobs.get(wire.job_id)
        if job is None:
            if wire.job_id in self._jobs:
                return None
            row = self._tx.one(
                ACCEPT.accept_state, job_id=wire.job_id, kid=wire.kid, subscriber=self._subscriber, seq=wire.seq
            )
            if row is None:
                self._jobs[wire.job_id] = None
                return None
            job = self._jobs[wire.job_id] = _AcceptState(row[:11], self._start)
            digest, recorded_ms = row[17:]
            job.key(wire.kid, row[11:17])
            job.stored[wire.seq] = None if digest is None else (digest, recorded_ms)
            return job
        if wire.seq not in job.stored:
            job.stored[wire.seq] = self._tx.one(ACCEPT.stored_event, job=job.number, seq=wire.seq)
        if wire.kid not in job.keys:
            job.key(wire.kid, self._tx.one(ACCEPT.token_state, job=job.number, kid=wire.kid))
        return job

    def _replay_facts(self, job: _AcceptState, wire: WireEvent, stored: tuple[bytes, int] | None) -> ReplayFacts:
        skipped = False
        if job.start_seq < wire.seq <= job.last_accepted:
            skipped = self._tx.one(ACCEPT.gap_containing_seq, subscription=job.subscription, seq=wire.seq) is not None
        return ReplayFacts(
            seq=wire.seq,
            event_is_terminal=wire.event.terminal,
            attempt=wire.attempt,
            matches_recorded=None if stored is None else stored[0] == wire.digest,
            matches_recorded_end=(
                stored is None and wire.seq == job.terminal_seq and wire.event._value_ == job.status._value_
            ),
            start_seq=job.start_seq,
            last_seq=job.last_accepted,
            skipped=skipped,
            window=self._window,
            status=job.status,
            terminal_seq=job.terminal_seq,
            job_attempt=job.attempt,
        )

    # -- what is written

    def _ensure_subscription(self, job: _AcceptState) -> int:
        """The number of the subscription, made now if this is the first that its subscriber sees of the job."""
        if job.subscription is None:
            row = self._tx.one(
                ACCEPT.insert_subscription,
                job=job.number,
                subscriber=self._subscriber,
                start_seq=job.start_seq,
                now=self._now,
            )
            assert row is not None
            job.subscription = row[0]
        return int(job.subscription)

    def _advance(self, job: _AcceptState, seq: int) -> range:
        """Notes an acceptance; returns the seqs that were skipped over."""
        subscription = self._ensure_subscription(job)
        if seq <= job.last_accepted:
            _fill_gap(self._tx, subscription, seq)
            self._tx.run(ACCEPT.rewind_handled, subscription=subscription, seq=seq, now=self._now)
            return range(0)
        missing = range(job.last_accepted + 1, seq)
        if missing:
            self._tx.run(ACCEPT.insert_gap, subscription=subscription, first_seq=missing[0], last_seq=missing[-1])
        job.last_accepted = seq
        job.advanced = True
        return missing

    def write(self) -> None:
        """What was gathered, each job's rows once. The jobs are locked already, so their order is of no matter."""
        jobs = [job for job in self._jobs.values() if job is not None]
        run_each(self._tx, EVENTS.insert_event, [row for job in jobs for row in job.rows])
        advanced = [
            {"subscription": job.subscription, "seq": job.last_accepted, "now": self._now}
            for job in jobs
            if job.advanced
        ]
        run_each(self._tx, ACCEPT.advance_subscription, advanced)
        run_job_updates(
            self._tx, (update for job in jobs for update in job.updates.rows(job.number, job.attempt, self._now))
        )
        for number, kid in sorted(self._ended_overlaps):
            self._tx.run(TOKENS.end_overlap, job=number, kid=kid, now=self._now)
        # Last and in one order: the counters of job 0 are the only rows here that other jobs' writers want too.
        for (number, verdict), count in sorted(self._refused.items()):
            self._tx.run(ACCEPT.add_verdict_count, job=number, verdict=verdict, count=count, now=self._now)


def _fill_gap(tx: Transaction, subscription: int, seq: int) -> None:
    """Takes one seq out of the skipped range that holds it."""
    row = tx.one(ACCEPT.gap_containing_seq, subscription=subscription, seq=seq)
    assert row is not None
    first, last = row
    tx.run(ACCEPT.delete_gap, subscription=subscription, first_seq=first)
    if first < seq:
        tx.run(ACCEPT.insert_gap, subscription=subscription, first_seq=first, last_seq=seq - 1)
    if seq < last:
        tx.run(ACCEPT.insert_gap, subscription=subscription, first_seq=seq + 1, last_seq=last)


def _record_refusal(tx: Transaction, job: int, subscriber: str, wire: WireEvent, verdict: Verdict, reason: str) -> None:
    """Keeps the evidence, within bounds: a holder of the key cannot fill the database with refused events."""
    row = tx.one(
        ACCEPT.insert_refusal,
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
        tx.run(ACCEPT.trim_refusals_of_job, job=job, keep=MAX_REFUSALS_PER_JOB)
        tx.run(ACCEPT.trim_refusals, newest=row[0], keep=MAX_REFUSALS)
