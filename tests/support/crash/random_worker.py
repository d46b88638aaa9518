"""A worker that calls all verbs at random until it is killed, and logs every call and answer.

``checker.py`` compares the log with the database. Each entry has the call's number, the worker, a monotonic time (one
clock for all processes of the machine) and either ``verb`` with its arguments, ``answer`` with the answer, or
``refused`` with the error's name. A call without an answer may or may not have happened.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from jobdb import Registry
from jobdb.errors import JobdbError, SyncFailed, UnknownJob, Unusable
from jobdb.model import Claim, Event, EventKind, GiveBack, NewEvent, NewJob, WorkBatch
from tests.support.ack_log import AckLog
from tests.support.registries import Journal, open_registry
from tests.support.worker_records import worker_info

MAX_FAILURES = 30
"""A worker gives up after this many consecutive failures of its disk."""
SUBSCRIBERS = ("watcher", "archive")
Answer = dict[str, Any]


@dataclass(frozen=True)
class WorkerPlan:
    """The settings of a worker; plain data, so that it can be handed to another process."""

    database: Path
    ack_log: Path
    seed: int
    worker: int
    journal: Journal = "wal"
    durability: str = "full"
    checkpoint_pages: int = 20
    calls: int = 1_000_000
    lease_sec: float = 0.3


class RandomWorker:
    """One worker's calls.

    Args:
        plan: seed, names and limits.
    """

    def __init__(self, plan: WorkerPlan) -> None:
        self.plan = plan
        self.registry = self._open()
        self.random = Random(plan.seed)
        self.ack_log = AckLog(plan.ack_log)
        self.claims: list[Claim] = []
        self.number = 0

    def run(self) -> None:
        verbs: list[tuple[int, Callable[[], None]]] = [
            (8, self.register),
            (14, self.claim),
            (30, self.publish),
            (10, self.end),
            (6, self.renew),
            (4, self.release),
            (12, self.batch),
            (1, self.add_worker),
            (2, self.cancel),
            (16, self.accept),
            (6, self.follow),
            (2, self.reap),
            (1, self.prune),
            (2, self.rotate),
        ]
        weights, calls = zip(*verbs, strict=True)
        failures = 0
        for _ in range(self.plan.calls):
            try:
                self.random.choices(calls, weights)[0]()
                failures = 0
            except Unusable as error:
                failures += 1
                if failures == MAX_FAILURES:
                    raise
                if isinstance(error, SyncFailed):  # its message says to reopen and read the state
                    self.registry.close()
                    self.registry = self._open()
        self.registry.close()

    def _open(self) -> Registry:
        return open_registry(
            self.plan.database,
            journal=self.plan.journal,
            durability=self.plan.durability,
            checkpoint_pages=self.plan.checkpoint_pages,
        )

    def _call(self, verb: str, action: Callable[[], Answer], **arguments: Any) -> Answer | None:
        self.number += 1
        key = {"worker": self.plan.worker, "number": self.number, "seed": self.plan.seed}
        self.ack_log.write(**key, at=time.monotonic_ns(), verb=verb, **arguments)
        try:
            answer = action()
        except JobdbError as error:
            self.ack_log.write(**key, at=time.monotonic_ns(), refused=type(error).__name__, why=str(error)[:300])
            if isinstance(error, Unusable):
                raise
            return None
        self.ack_log.write(**key, at=time.monotonic_ns(), answer=answer)
        return answer

    # --- verbs

    def register(self) -> None:
        count = self.random.choice((1, 1, 1, 5))
        keys = [f"{self.plan.seed}-{self.number + 1}-{index}" for index in range(count)]
        jobs = [
            NewJob(agent=self.random.choice(("codex", "human")), prompt="p" * 200, idempotency_key=key) for key in keys
        ]

        def action() -> Answer:
            return {"jobs": [job.job_id for job in self.registry.register_many(jobs)]}

        self._call("register", action)

    def claim(self) -> None:
        lease_sec = self.random.choice((self.plan.lease_sec, 60.0, None))

        def action() -> Answer:
            claim = self.registry.claim(worker=f"worker {self.plan.worker}", lease_sec=lease_sec)
            if claim is None:
                return {"job": None}
            self.claims = [*self.claims[-7:], claim]
            return _claim_answer(claim)

        self._call("claim", action)

    def _some_claim(self) -> tuple[str, int] | None:
        if not self.claims:
            return None
        claim = self.random.choice(self.claims)
        return claim.job_id, claim.attempt

    def _publish(self, kinds: list[EventKind]) -> None:
        claim = self._some_claim()
        if claim is None:
            return
        job_id, attempt = claim
        detail = f"{self.plan.seed}.{self.number + 1}"
        events = [NewEvent(job_id=job_id, event=kind, detail=detail, attempt=attempt) for kind in kinds]

        def action() -> Answer:
            published = self.registry.publish_many(events)
            return {"events": [_event_answer(event) for event in published]}

        self._call("publish", action, job=job_id, attempt=attempt, kinds=[kind.value for kind in kinds])

    def publish(self) -> None:
        self._publish([EventKind.PROGRESS] * self.random.choice((1, 1, 1, 4)))

    def end(self) -> None:
        self._publish([self.random.choice((EventKind.COMPLETED, EventKind.ERROR))])

    def renew(self) -> None:
        if (claim := self._some_claim()) is not None:
            job_id, attempt = claim
            lease_sec = self.random.choice((self.plan.lease_sec, 60.0))
            self._call(
                "renew",
                lambda: _claim_answer(self.registry.renew(job_id, attempt=attempt, lease_sec=lease_sec)),
                job=job_id,
                attempt=attempt,
            )

    def release(self) -> None:
        if (claim := self._some_claim()) is not None:
            job_id, attempt = claim
            self._call(
                "release",
                lambda: {"status": self.registry.release(job_id, attempt=attempt).status.value},
                job=job_id,
                attempt=attempt,
            )

    def add_worker(self) -> None:
        info = worker_info(f"w{self.plan.worker}")

        def action() -> Answer:
            self.registry.add_worker(info)
            return {}

        self._call("add_worker", action)

    def batch(self) -> None:
        """Report some claims and take new ones, as a worker with several slots does."""
        chosen = {claim for claim in (self._some_claim() for _ in range(3)) if claim is not None}
        reports = {claim: self.random.choice(("progress", "completed", "back", "try", "renew")) for claim in chosen}
        detail = f"{self.plan.seed}.{self.number + 1}"
        lease_sec = self.random.choice((self.plan.lease_sec, 60.0))
        batch = WorkBatch(
            worker_id=f"w{self.plan.worker}",
            worker=f"worker {self.plan.worker}",
            events=tuple(
                NewEvent(job_id=job_id, event=EventKind(report), detail=detail, attempt=attempt)
                for (job_id, attempt), report in reports.items()
                if report in ("progress", "completed")
            ),
            give_back=tuple(
                GiveBack(job_id=job_id, attempt=attempt, reason=detail, counts=report == "try")
                for (job_id, attempt), report in reports.items()
                if report in ("back", "try")
            ),
            renew=tuple(claim for claim, report in reports.items() if report == "renew"),
            claim=self.random.randrange(4),
            lease_sec=lease_sec,
            announce=self.random.random() < 0.3,
            heartbeat=True,
        )

        def action() -> Answer:
            asked_at = time.time()
            result = self.registry.work_batch(batch)
            self.claims = [*self.claims, *result.claims][-8:]
            return {
                "claims": [_claim_answer(claim) for claim in result.claims],
                "refused": list(result.refused),
                "returned": [(*key, action) for key, action in result.returned.items()],
                "renewed_until": asked_at + lease_sec,
            }

        self._call("batch", action, detail=detail, reports=[(*claim, report) for claim, report in reports.items()])

    def _some_job(self) -> str | None:
        if self.claims and self.random.random() < 0.7:
            return self.random.choice(self.claims).job_id
        jobs = self.registry.jobs(limit=40)
        return self.random.choice(jobs).job_id if jobs else None

    def cancel(self) -> None:
        if (job_id := self._some_job()) is not None:
            self._call("cancel", lambda: {"status": self.registry.cancel(job_id).status.value}, job=job_id)

    def _some_events(self) -> list[Event]:
        job_id = self._some_job()
        try:
            return [] if job_id is None else self.registry.events(job_id)
        except UnknownJob:
            return []  # pruned by another worker meanwhile

    def accept(self) -> None:
        """Accept the next events in order, an old one again, or one with forged bytes."""
        events = self._some_events()
        if not events:
            return
        start = self.random.randrange(len(events))
        chosen = events[start : start + self.random.choice((1, 1, 3))]
        forged = self.random.random() < 0.15
        payloads = [event.payload for event in chosen]
        if forged:
            payloads = [payload.replace('"detail":"', '"detail":"forged ') for payload in payloads]
        subscriber = self.random.choice(SUBSCRIBERS)

        def action() -> Answer:
            answers = self.registry.accept_many(payloads, subscriber=subscriber, window=self.random.choice((0, 8)))
            return {"verdicts": [(answer.job_id, answer.seq, answer.verdict.value) for answer in answers]}

        self._call("accept", action, subscriber=subscriber, forged=forged)

    def follow(self) -> None:
        """Do a step of ``subscribe`` without its waiting."""
        if (job_id := self._some_job()) is None:
            return
        subscriber = "follower"

        def accepted() -> Answer:
            followed = self.registry.engine.follow(job_id, subscriber=subscriber, start="beginning", limit=5)
            return {"seqs": [event.seq for event in followed.events]}

        answer = self._call("follow", accepted, job=job_id, subscriber=subscriber)
        if answer and answer["seqs"]:
            seq = answer["seqs"][-1]

            def handled() -> Answer:
                self.registry.engine.mark_handled(job_id, subscriber=subscriber, seq=seq)
                return {}

            self._call("handled", handled, job=job_id, subscriber=subscriber, seq=seq)

    def reap(self) -> None:
        def action() -> Answer:
            return {"reaped": [(reaped.job_id, reaped.action) for reaped in self.registry.reap(limit=5)]}

        self._call("reap", action)

    def prune(self) -> None:
        self._call("prune", lambda: {"jobs": self.registry.prune(older_than_sec=2.0, limit=3)})

    def rotate(self) -> None:
        if (job_id := self._some_job()) is not None:
            self._call("rotate", lambda: {"kid": self.registry.tokens.rotate(job_id)}, job=job_id)


def _claim_answer(claim: Claim) -> Answer:
    until = None if claim.lease_expires_at is None else claim.lease_expires_at.timestamp()
    return {"job": claim.job_id, "attempt": claim.attempt, "until": until, "now": time.time()}


def _event_answer(event: Event) -> tuple[int, str, int | None, str]:
    return event.seq, event.event.value, event.attempt, event.payload


def work(plan: WorkerPlan) -> None:
    """Run one worker until it is killed, has made its calls, or its disk is gone."""
    try:
        RandomWorker(plan).run()
    except JobdbError as error:
        AckLog(plan.ack_log).write(worker=plan.worker, stopped=type(error).__name__, why=str(error)[:300])
    except Exception:
        AckLog(plan.ack_log).write(worker=plan.worker, crashed=traceback.format_exc(limit=-6))
