"""The transaction of the verb accept: it checks authenticity and replay, and records and applies wire events.

Checks made before the lock was requested (:mod:`.precheck`) are not repeated; whatever may have changed since is
checked here, from one row that holds everything it depends on. The rules are in :mod:`jobdb.core.authenticity` and
:mod:`jobdb.core.replay`. Called by the accept verbs only.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ... import model
from ...core.authenticity import SenderCredentials, check_authenticity
from ...core.lifecycle import next_status
from ...core.replay import ReplayFacts, check_replay
from ...model import Verdict
from .job_updates import JobUpdates, event_from_wire, event_row, run_each, run_job_updates
from .precheck import open_sealed_token
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
_CREDENTIAL_COLUMNS = len(SenderCredentials._fields)


class _AcceptState:
    """A job and the subscriber's numbers for it while a batch is being accepted: read once, written once.

    Attributes:
        credentials: the job's credentials with each token that the batch names, by token version.
        recorded: digest and time (Unix milliseconds) of the events that the batch has looked up or recorded, by seq.
        rows: the events to record.
        updates: the changes that the events make to the job.
        advanced: the subscriber's last_seq must be written.
    """

    __slots__ = (
        "advanced",
        "attempt",
        "credentials",
        "last_accepted",
        "last_seq",
        "number",
        "recorded",
        "rows",
        "start_seq",
        "status",
        "subscription",
        "terminal_seq",
        "updates",
    )

    def __init__(self, row: Row, wire: WireEvent, start: str) -> None:
        """Initialize the state from the row of ``accept_state`` that was read for a wire event."""
        found = SenderCredentials._make(row[:_CREDENTIAL_COLUMNS])
        (
            status,
            self.last_seq,
            self.terminal_seq,
            self.attempt,
            self.subscription,
            self.start_seq,
            self.last_accepted,
            digest,
            recorded_ms,
        ) = row[_CREDENTIAL_COLUMNS:]
        self.number = found.job
        self.status = STATUSES[status]
        if self.subscription is None:
            self.start_seq = self.last_accepted = self.last_seq if start == "now" else 0
        self.credentials: dict[int, SenderCredentials] = {wire.kid: found}
        self.recorded: dict[int, tuple[bytes, int] | None] = {
            wire.seq: None if digest is None else (digest, recorded_ms)
        }
        self.rows: list[dict[str, Any]] = []
        self.updates = JobUpdates()
        self.advanced = False

    def apply(self, wire: WireEvent, now: int) -> None:
        """Record a new event and update the job's status, never backwards."""
        self.rows.append(event_row(self.number, wire, now))
        self.recorded[wire.seq] = (self.rows[-1]["digest"], now)
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
    """One transaction of accept: the jobs that it touches, and the rows to write at its end."""

    def __init__(self, tx: Transaction, vault: Vault, subscriber: str, window: int, start: str) -> None:
        self._tx = tx
        self._open_token = partial(open_sealed_token, vault)
        self._subscriber = subscriber
        self._window = window
        self._start = start
        self._now = tx.now_ms
        self._jobs: dict[str, _AcceptState | None] = {}
        self._refused: dict[tuple[int, str], int] = {}
        self._ended_overlaps: set[tuple[int, int]] = set()

    def accept(self, prechecked: PrecheckedArrival) -> Acceptance:
        """Decide on one event, with the checks in their documented order."""
        wire = prechecked.wire
        if wire is None:
            assert prechecked.refusal is not None
            self._note_refused_key(prechecked.job, prechecked.kid, prechecked.refusal.verdict)
            return self._count_refusal(prechecked.job, prechecked.refusal)
        job = self._load_state(wire)
        credentials = None if job is None else job.credentials[wire.kid]
        failure = check_authenticity(
            wire,
            prechecked.topic,
            credentials,
            self._open_token,
            now_ms=self._now,
            verified_with=prechecked.verified_with,
        )
        if failure is not None or job is None:
            assert failure is not None
            number = 0 if job is None else job.number
            self._note_refused_key(number, wire.kid, failure.verdict)
            return self._refuse(number, wire, *failure)
        recorded_digest, recorded_ms = job.recorded[wire.seq] or (None, self._now)
        verdict, reason = check_replay(self._replay_facts(job, wire, recorded_digest))
        if verdict is Verdict.ACCEPTED:
            missing = self._advance(job, wire.seq)
            if recorded_digest is None:
                job.apply(wire, self._now)
            return model.Acceptance(verdict, wire.job_id, wire.seq, event_from_wire(wire, recorded_ms), missing)
        if verdict is Verdict.DUPLICATE:
            event = event_from_wire(wire, recorded_ms)
            return model.Acceptance(verdict, wire.job_id, wire.seq, event, reason=reason)
        if self._start == "now":
            # "now" is the current time. It must not move with every event that is refused as already recorded.
            self._ensure_subscription(job)
        _record_refusal(self._tx, job.number, self._subscriber, wire, verdict, reason)
        return self._refuse(job.number, wire, verdict, reason)

    def _count_refusal(self, job: int, answer: Acceptance) -> Acceptance:
        """Count a refusal; return it."""
        key = job, answer.verdict.value
        self._refused[key] = self._refused.get(key, 0) + 1
        return answer

    def _note_refused_key(self, job: int, kid: int, verdict: Verdict) -> None:
        """Remember a refused key: if its overlap is over, that is recorded at the end."""
        if verdict is Verdict.REVOKED_KEY and kid:
            self._ended_overlaps.add((job, kid))

    def _refuse(self, job: int, wire: WireEvent, verdict: Verdict, reason: str) -> Acceptance:
        return self._count_refusal(job, model.Acceptance(verdict, wire.job_id, wire.seq, reason=reason))

    # -- reading

    def _load_state(self, wire: WireEvent) -> _AcceptState | None:
        """Return the job, with the token and the recorded event that the wire event names; None without such a job."""
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
            job = self._jobs[wire.job_id] = _AcceptState(row, wire, self._start)
            return job
        if wire.seq not in job.recorded:
            job.recorded[wire.seq] = self._tx.one(ACCEPT.stored_event, job=job.number, seq=wire.seq)
        if wire.kid not in job.credentials:
            found = self._tx.one(ACCEPT.sender_credentials, job_id=wire.job_id, kid=wire.kid)
            assert found is not None
            job.credentials[wire.kid] = SenderCredentials._make(found)
        return job

    def _replay_facts(self, job: _AcceptState, wire: WireEvent, recorded_digest: bytes | None) -> ReplayFacts:
        skipped = False
        if job.start_seq < wire.seq <= job.last_accepted:
            skipped = self._tx.one(ACCEPT.gap_containing_seq, subscription=job.subscription, seq=wire.seq) is not None
        return ReplayFacts(
            seq=wire.seq,
            event_is_terminal=wire.event.terminal,
            attempt=wire.attempt,
            matches_recorded=None if recorded_digest is None else recorded_digest == wire.digest,
            matches_recorded_end=(
                recorded_digest is None and wire.seq == job.terminal_seq and wire.event._value_ == job.status._value_
            ),
            start_seq=job.start_seq,
            last_seq=job.last_accepted,
            skipped=skipped,
            window=self._window,
            status=job.status,
            terminal_seq=job.terminal_seq,
            job_attempt=job.attempt,
        )

    # -- writing

    def _ensure_subscription(self, job: _AcceptState) -> int:
        """Return the id of the subscription's row; begin it if the subscriber sees the job for the first time."""
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
        """Record an acceptance; return the seqs that were skipped."""
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
        """Write the collected rows, each job once. The jobs are locked already, so their order does not matter."""
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
        # Last, and in a fixed order: the counters of job 0 are the only rows here that writers of other jobs also need.
        for (number, verdict), count in sorted(self._refused.items()):
            self._tx.run(ACCEPT.add_verdict_count, job=number, verdict=verdict, count=count, now=self._now)


def _fill_gap(tx: Transaction, subscription: int, seq: int) -> None:
    """Remove one seq from the skipped range that contains it."""
    row = tx.one(ACCEPT.gap_containing_seq, subscription=subscription, seq=seq)
    assert row is not None
    first, last = row
    tx.run(ACCEPT.delete_gap, subscription=subscription, first_seq=first)
    if first < seq:
        tx.run(ACCEPT.insert_gap, subscription=subscription, first_seq=first, last_seq=seq - 1)
    if seq < last:
        tx.run(ACCEPT.insert_gap, subscription=subscription, first_seq=seq + 1, last_seq=last)


def _record_refusal(tx: Transaction, job: int, subscriber: str, wire: WireEvent, verdict: Verdict, reason: str) -> None:
    """Record the evidence, within bounds: a holder of the key cannot fill the database with refused events."""
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
