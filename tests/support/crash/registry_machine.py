"""A state machine for hypothesis: every verb, on two connections in turn, against the plain model, with one clock."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from jobdb import GiveBack, JobdbError, NewEvent, Registry, WorkBatch
from tests.support.crash.registry_model import Model, ModelJob, Refused
from tests.support.keys import vault
from tests.support.worker_records import worker_info

CONNECTIONS = st.integers(0, 1)
SUBSCRIBERS = st.sampled_from(("watcher", "archive"))
KINDS = st.sampled_from(("started", "progress", "permission_required", "completed", "error"))
TIMEOUTS = st.sampled_from((0, 20, 200))
IDLE_TIMEOUTS = st.sampled_from((0, 5, 5, 50))
AGENTS = st.sampled_from((None, None, "a", "b"))
WORKERS = ("w1", "w2")
REPORTS = st.sampled_from(("progress", "permission_required", "completed", "back", "delay", "try", "last try", "renew"))


class RegistryMachine(RuleBasedStateMachine):
    """Two registries on one database, and the model that predicts each verb's answer."""

    jobs: Bundle[str] = Bundle("jobs")
    claims: Bundle[tuple[str, int]] = Bundle("claims")
    payloads: Bundle[str] = Bundle("payloads")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="machine"))
        self.model = Model()
        self.numbers = itertools.count(1)
        self.registries = [self._open(create=True), self._open()]
        for worker in WORKERS:
            self.registries[0].add_worker(worker_info(worker))

    def _open(self, create: bool = False) -> Registry:
        return Registry.open(
            self.folder / "jobs.db",
            create=create,
            durability="normal",
            vault=vault(),
            clock=lambda: self.model.now,
            checkpoint_pages=5,
        )

    def teardown(self) -> None:
        for registry in self.registries:
            registry.close()
        shutil.rmtree(self.folder)

    def _check_same_outcome(self, predicted: Callable[[], Any], real: Callable[[], Any]) -> Any:
        """Call both; both must answer, or refuse with the same error. Return the real answer, or None if refused."""
        try:
            expected = predicted()
        except Refused as refusal:
            try:
                answer = real()
            except JobdbError as error:
                assert type(error).__name__ == refusal.args[0], error
                return None
            raise AssertionError(f"expected {refusal.args[0]}, got {answer!r}") from None
        return expected, real()

    @initialize(target=jobs)
    def register_some(self) -> Any:
        """Begin with jobs of every kind, so that few steps are spent on nothing."""
        limits = ((0, 5, None), (20, 0, None), (0, 0, 1), (200, 5, 4))
        return multiple(*(self.register(0, number % 2, "a", *each) for number, each in enumerate(limits)))

    @rule(
        target=jobs,
        which=CONNECTIONS,
        priority=st.integers(-1, 1),
        agent=st.sampled_from("ab"),
        timeout=TIMEOUTS,
        idle=IDLE_TIMEOUTS,
        tries=st.sampled_from((None, None, 1, 2, 4)),
    )
    def register_one(self, which: int, priority: int, agent: str, timeout: int, idle: int, tries: int | None) -> str:
        return self.register(which, priority, agent, timeout, idle, tries)

    def register(self, which: int, priority: int, agent: str, timeout: int, idle: int, tries: int | None) -> str:
        key = f"key {next(self.numbers)}"
        options: dict[str, Any] = {
            "agent": agent,
            "prompt": key,
            "priority": priority,
            "timeout_sec": timeout,
            "idle_timeout_sec": idle,
            "max_attempts": tries,
            "idempotency_key": key,
        }
        job = self.registries[which].register(**options)
        assert self.registries[1 - which].register(**options).job_id == job.job_id
        self.model.register(
            job.job_id,
            priority=priority,
            agent=agent,
            timeout_sec=timeout,
            idle_sec=idle,
            max_attempts=tries,
        )
        return str(job.job_id)

    @rule(
        target=claims,
        which=CONNECTIONS,
        agent=AGENTS,
        lease=st.sampled_from((None, 2, 20)),
    )
    def claim(self, which: int, agent: str | None, lease: int | None) -> Any:
        expected = self.model.claim(agent, None if lease is None else lease * 1000)
        claim = self.registries[which].claim(worker="w", agent=agent, lease_sec=lease)
        assert [(job.job_id, job.attempt) for job in expected] == ([(claim.job_id, claim.attempt)] if claim else [])
        return multiple(*([(claim.job_id, claim.attempt)] if claim else []))

    @rule(target=claims, which=CONNECTIONS, job_id=jobs, lease=st.sampled_from((None, 2, 20)))
    def claim_named(self, which: int, job_id: str, lease: int | None) -> Any:
        done = self._check_same_outcome(
            lambda: self.model.claim_named(job_id, None if lease is None else lease * 1000),
            lambda: self.registries[which].claim(worker="w", job_id=job_id, lease_sec=lease),
        )
        if done is None:
            return multiple()
        assert done[0].attempt == done[1].attempt
        return job_id, done[1].attempt

    @rule(
        target=claims,
        which=CONNECTIONS,
        worker=st.sampled_from(WORKERS),
        reports=st.lists(st.tuples(claims, REPORTS), max_size=4),
        count=st.integers(0, 3),
        agent=AGENTS,
        lease=st.sampled_from((2, 20)),
        announce=st.booleans(),
    )
    def work_batch(
        self,
        which: int,
        worker: str,
        reports: list[tuple[tuple[str, int], str]],
        count: int,
        agent: str | None,
        lease: int,
        announce: bool,
    ) -> Any:
        """A worker reports several jobs, some of which it has lost, and claims more."""
        events = tuple(
            NewEvent(job_id=job_id, event=report, attempt=attempt)  # type: ignore[arg-type]
            for (job_id, attempt), report in reports
            if report in ("progress", "permission_required", "completed")
        )
        returns = tuple(
            GiveBack(
                job_id=job_id,
                attempt=attempt,
                reason=report,
                delay_sec=7 if report == "delay" else 0,
                counts="try" in report,
                limit=1 if report == "last try" else 3,
            )
            for (job_id, attempt), report in reports
            if report in ("back", "delay", "try", "last try")
        )
        renewals = tuple(claim for claim, report in reports if report == "renew")
        refused, returned = self._predict_reports(events, returns, renewals, lease * 1000)
        expected = self.model.claim(agent, lease * 1000, count) if count else []
        for job in expected:
            job.made_by[job.attempt] = worker
            if announce:
                self.model.publish(job.job_id, "started", job.attempt)
        result = self.registries[which].work_batch(
            WorkBatch(
                worker_id=worker,
                worker=worker,
                events=events,
                give_back=returns,
                renew=renewals,
                claim=count,
                agent=agent,
                lease_sec=lease,
                announce=announce,
            )
        )
        assert [(claim.job_id, claim.attempt) for claim in result.claims] == [
            (job.job_id, job.attempt) for job in expected
        ]
        assert {key: type(error).__name__ for key, error in result.refused.items()} == refused
        assert result.returned == returned
        return multiple(*((claim.job_id, claim.attempt) for claim in result.claims))

    def _predict_reports(
        self,
        events: tuple[NewEvent, ...],
        returns: tuple[GiveBack, ...],
        renewals: tuple[tuple[str, int], ...],
        lease_ms: int,
    ) -> tuple[dict[tuple[str, int], str], dict[tuple[str, int], str]]:
        """Apply what a worker reports to the model; return what is refused, and what becomes of the returns."""
        refused: dict[tuple[str, int], str] = {}
        returned: dict[tuple[str, int], str] = {}
        for event in events:
            try:
                self.model.publish(event.job_id, str(event.event), event.attempt)
            except Refused as refusal:
                refused.setdefault((event.job_id, event.attempt or 0), refusal.args[0])
        for back in returns:
            key = (back.job_id, back.attempt)
            try:
                delay_ms = round(back.delay_sec * 1000)
                returned[key] = self.model.give_back(*key, delay_ms=delay_ms, counts=back.counts, limit=back.limit)
            except Refused as refusal:
                refused.setdefault(key, refusal.args[0])
        for key in renewals:
            try:
                self.model.renew(*key, lease_ms)
            except Refused as refusal:
                refused.setdefault(key, refusal.args[0])
        return refused, returned

    @rule(which=CONNECTIONS, claim=claims, lease=st.integers(1, 30))
    def renew(self, which: int, claim: tuple[str, int], lease: int) -> None:
        self._check_same_outcome(
            lambda: self.model.renew(*claim, lease * 1000),
            lambda: self.registries[which].renew(claim[0], attempt=claim[1], lease_sec=lease),
        )

    @rule(which=CONNECTIONS, claim=claims, delay=st.sampled_from((0, 0, 7)))
    def release(self, which: int, claim: tuple[str, int], delay: int) -> None:
        self._check_same_outcome(
            lambda: self.model.release(*claim, delay * 1000),
            lambda: self.registries[which].release(claim[0], attempt=claim[1], delay_sec=delay),
        )

    @rule(target=payloads, which=CONNECTIONS, claim=claims, kind=KINDS)
    def publish(self, which: int, claim: tuple[str, int], kind: str) -> str:
        return self._publish(which, claim[0], kind, claim[1])

    @rule(target=payloads, which=CONNECTIONS, job_id=jobs, kind=KINDS)
    def publish_unclaimed(self, which: int, job_id: str, kind: str) -> str:
        return self._publish(which, job_id, kind, None)

    def _publish(self, which: int, job_id: str, kind: str, attempt: int | None) -> str:
        done = self._check_same_outcome(
            lambda: self.model.publish(job_id, kind, attempt),
            lambda: self.registries[which].publish(job_id, kind, attempt=attempt),
        )
        if done is None:
            return "not json"
        (seq, signed), event = done
        assert (event.seq, event.attempt or 0, event.event) == (seq, signed, kind)
        payload = event.payload
        assert isinstance(payload, str)
        return payload

    @rule(which=CONNECTIONS, job_id=jobs)
    def cancel(self, which: int, job_id: str) -> None:
        self._check_same_outcome(lambda: self.model.cancel(job_id), lambda: self.registries[which].cancel(job_id))

    @rule(seconds=st.sampled_from((1, 3, 10, 60)))
    def time_passes(self, seconds: int) -> None:
        self.model.now += seconds * 1000

    @rule(which=CONNECTIONS, strikes=st.integers(1, 3))
    def reap(self, which: int, strikes: int) -> None:
        expected = self.model.reap(strikes)
        reaped = self.registries[which].reap(strike_limit=strikes)
        assert sorted((found.job_id, found.action) for found in reaped) == expected

    @rule(which=CONNECTIONS, age=st.sampled_from((0, 5, 100)))
    def prune(self, which: int, age: int) -> None:
        expected = self.model.prune(age * 1000)
        assert sorted(self.registries[which].prune(older_than_sec=age)) == expected

    @rule(which=CONNECTIONS, payload=payloads, subscriber=SUBSCRIBERS, window=st.sampled_from((0, 1, 5)))
    def accept(self, which: int, payload: str, subscriber: str, window: int) -> None:
        answer = self.registries[which].accept(payload, subscriber=subscriber, window=window)
        if payload == "not json":
            assert answer.verdict == "malformed"
            return
        wire = json.loads(payload)
        verdict, missing = self.model.accept(wire["job_id"], wire["seq"], subscriber, window)
        assert (answer.verdict, list(answer.missing)) == (verdict, missing)

    @rule(which=CONNECTIONS, payload=payloads, subscriber=SUBSCRIBERS)
    def accept_forged(self, which: int, payload: str, subscriber: str) -> None:
        if payload != "not json":
            wire = json.loads(payload)
            wire["seq"] += 1
            answer = self.registries[which].accept(json.dumps(wire), subscriber=subscriber)
            assert answer.verdict == ("bad_signature" if wire["job_id"] in self.model.jobs else "unknown_job")

    @rule(which=CONNECTIONS, job_id=jobs)
    def rotate(self, which: int, job_id: str) -> None:
        done = self._check_same_outcome(
            lambda: self.model.rotate(job_id),
            lambda: self.registries[which].tokens.rotate(job_id, overlap_sec=10**6),
        )
        assert done is None or done[0] == done[1]

    @rule(which=CONNECTIONS)
    def reopen(self, which: int) -> None:
        self.registries[which].close()
        self.registries[which] = self._open()

    @invariant()
    def a_second_passes(self) -> None:
        """Time passes with every step, so that leases and limits end while other things happen."""
        self.model.now += 1000

    @invariant()
    def matches_model(self) -> None:
        for registry in self.registries:
            found = {job.job_id: job for job in registry.jobs(limit=1000)}
            assert found.keys() == self.model.jobs.keys()
            for job_id, expected in self.model.jobs.items():
                job = found[job_id]
                shown = (job.status.value, job.last_seq, job.strikes, job.attempt)
                if expected.status in ("completed", "error"):
                    expected.attempt = expected.attempts[-1]  # an end without a claim begins an attempt, too
                assert shown == (expected.status, len(expected.events), expected.strikes, expected.attempt)
                assert job.not_before == (
                    expected.not_before and datetime.fromtimestamp(expected.not_before / 1000, UTC)
                )
                held = {attempt.attempt: attempt.worker_id for attempt in registry.attempts(job_id)}
                assert held == expected.made_by
        self._compare_events()

    def _compare_events(self) -> None:
        for job_id, expected in self.model.jobs.items():
            if expected.events:
                events = self.registries[0].events(job_id)
                assert [event.event.value for event in events] == expected.events
                assert [event.attempt or 0 for event in events] == expected.attempts
        self._compare_subscriptions()

    def _compare_subscriptions(self) -> None:
        found = {(state.job_id, state.subscriber): state.last_seq for state in self.registries[1].subscriptions()}
        assert found == {
            (job.job_id, name): subscriber_state.last
            for job in self._watched()
            for name, subscriber_state in job.subscribers.items()
        }

    def _watched(self) -> list[ModelJob]:
        return list(self.model.jobs.values())
