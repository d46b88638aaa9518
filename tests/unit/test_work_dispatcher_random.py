"""Test the dispatcher with random events, clocks, lost claims and database errors: each attempt ends once, in time."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jobdb import Busy, EventKind, GiveBack, JobStatus, NewEvent, Unavailable
from jobdb.model import AttemptKey
from jobdb.work.outcomes import Deferred, Failed, Stopped, Succeeded, Vanished
from jobdb.work.transitions import Ended, Lost, Returned
from tests.support.fake_work import Bench

LEASE_SEC = 60.0
ALLOWED_SEC = 50.0


class Story:
    """One random run of a dispatcher, with the checks that hold after every step."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.bench = Bench(concurrency=self.random.randint(1, 4), lease_sec=LEASE_SEC, drain_sec=100)
        self.granted: dict[AttemptKey, float] = {}
        self.said: dict[AttemptKey, list[str]] = {}
        self.jobs = 0
        self._watch_grants()

    def _watch_grants(self) -> None:
        """Note when each lease was last granted, as the database counts it."""
        registry, record = self.bench.registry, self.bench.registry.work_batch

        def work_batch(batch: Any) -> Any:
            if self.random.random() < 0.1:
                self.bench.clock.now += self.random.choice([0.5, 30.0, 100.0])  # before it is sent, or on its way
            result = record(batch)
            for key in [*batch.renew, *((claim.job_id, claim.attempt) for claim in result.claims)]:
                if key not in result.refused:
                    self.granted[key] = self.bench.clock.now
            if self.random.random() < 0.05:
                self.bench.clock.now += 100.0
            return result

        registry.work_batch = work_batch  # type: ignore[method-assign]

    def step(self) -> None:
        bench, rnd = self.bench, self.random
        running = list(bench.runner.running)
        what = rnd.random()
        if what < 0.2:
            self.jobs += 1
            bench.registry.add(f"job-{self.jobs}")
            bench.mailbox.note_change()
        elif what < 0.4 and running:
            key = rnd.choice(running)
            self.said.setdefault(key, []).append(str(len(self.said.get(key, []))))
            bench.runner.hear(key, self.said[key][-1])
        elif what < 0.7 and running:
            reports = [Succeeded(), Failed(reason="f"), Deferred(reason="d"), Vanished(reason="v"), Stopped()]
            bench.runner.finish(rnd.choice(running), rnd.choice(reports))
        elif what < 0.75 and running:
            job_id, _attempt = rnd.choice(running)
            if bench.registry.jobs[job_id].status is JobStatus.RUNNING:
                rnd.choice([bench.registry.cancel, bench.registry.take_away])(job_id)
        elif what < 0.85:
            error = Busy("locked", waited_sec=1.0) if rnd.random() < 0.5 else Unavailable("no server")
            bench.registry.failures += [error] * rnd.randint(1, 5)
        bench.round(after=rnd.choice([0.0, 0.0, 0.01, 0.3, 2.0, 15.0]))
        self.check()

    def check(self) -> None:
        bench = self.bench
        for key, deadline in bench.runner.running.items():
            assert deadline <= self.granted[key] + ALLOWED_SEC
        active = [key for key in bench.runner.running if not bench.runner.stops.get(key)]
        assert len(active) <= bench.dispatcher._settings.concurrency
        assert all(count == 1 for count in Counter(key for key, _deadline in bench.runner.started).values())
        for job in bench.registry.jobs.values():
            ended: set[int] = set()
            for _what, attempt, value in job.log:
                assert attempt not in ended, "nothing follows the end of an attempt"
                if isinstance(value, GiveBack) or value.event.terminal:
                    ended.add(attempt)

    def finish(self) -> None:
        """Drain with a database that works, and check what became of every attempt."""
        bench = self.bench
        bench.registry.failures.clear()
        bench.dispatcher.drain()
        for key in list(bench.runner.running):
            bench.runner.finish(key, Succeeded())
        for _ in range(50):
            bench.round(after=2.0)
            for key in list(bench.runner.running):
                bench.runner.finish(key, Succeeded())
        assert bench.dispatcher.is_done
        outcomes = Counter(
            (each.job_id, each.attempt) for each in bench.transitions if isinstance(each, Ended | Returned | Lost)
        )
        claimed = {(event.job_id, event.attempt) for event in bench.transitions if type(event).__name__ == "Claimed"}
        assert outcomes == Counter(claimed), "each attempt ends once"
        for key, said in self.said.items():
            recorded = [
                value.detail
                for _what, attempt, value in bench.registry.jobs[key[0]].log
                if attempt == key[1] and isinstance(value, NewEvent) and value.event is EventKind.PROGRESS
            ]
            lost = any(isinstance(each, Lost) and (each.job_id, each.attempt) == key for each in bench.transitions)
            stopped = bench.runner.stops.get(key)
            assert recorded == said[: len(recorded)] and (lost or stopped or recorded == said)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_happens_each_attempt_ends_once_and_in_its_lease(seed: int) -> None:
    story = Story(seed)
    for _ in range(80):
        story.step()
    story.finish()
