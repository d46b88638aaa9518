"""Test the replay rules against a model of a few lines: random schedules of accept, on every engine.

The model keeps naive sets. A machine of hypothesis reorders, repeats and forges events, with two subscribers, windows,
claims that are taken over, cancellations and registries that are reopened. A job may begin as one that was imported
as ended without its log.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from jobdb import AttemptRequired
from tests.support.clocks import DatabaseClock
from tests.support.databases import ENGINES, PostgresDatabase, SqliteDatabase
from tests.support.keys import TOKEN
from tests.support.wire_events import signed

EXAMPLES = int(os.environ.get("JOBDB_MODEL_EXAMPLES", "60"))
SUBSCRIBERS = ("one", "two")


class Model:
    """The expected replay state of one job, in naive sets."""

    def __init__(self):
        self.stored = {}
        self.accepted = {name: set() for name in SUBSCRIBERS}
        self.start = dict.fromkeys(SUBSCRIBERS)
        self.attempt = 0
        self.status = "pending"
        self.last = 0
        self.end = None
        self.leased = False
        self.expired = False

    def verdict(self, seq, kind, attempt, line, subscriber, window, start):
        """Return the verdict that this event must get, and apply it to the model."""
        mine, known = self.accepted[subscriber], self.stored.get(seq)
        begin = self.start[subscriber]
        if begin is None:
            begin = self.last if start == "now" else 0
        top = max(mine, default=begin)
        terminal = kind in ("completed", "error")
        if seq in mine and known == line:
            return "duplicate"
        if start == "now":
            self.start[subscriber] = begin
        the_end = (kind, seq) == (self.status, self.end)
        if known not in (None, line) or (terminal and self.end is not None and known is None and not the_end):
            return "conflict"
        if seq <= begin or (seq <= top and seq < top - window):
            return "replayed"
        if known is None:
            if self._stale(attempt):
                return "stale_attempt"
            if self.end is not None and seq > self.end:
                return "after_terminal"
        self.start[subscriber] = begin
        mine.add(seq)
        if known is None:
            self._record(seq, kind, line)
        return "accepted"

    def _stale(self, attempt):
        if self.end is not None:
            return self.attempt > 1 if attempt is None else attempt != self.attempt
        working = self.status == "running" or self.attempt == 0
        if attempt is None:
            return self.attempt > 1 or not working
        return attempt != self.attempt or not working

    def _record(self, seq, kind, line):
        self.stored[seq] = line
        if self.end is not None:
            return
        if kind in ("completed", "error"):
            self.status, self.last, self.end, self.leased = kind, max(self.last, seq), seq, False
        elif seq >= self.last:
            self.status, self.last = "running", seq


class AcceptMachine(RuleBasedStateMachine):
    database = None

    def __init__(self):
        super().__init__()
        self.model = Model()
        self.live = self.make()
        self.clock = DatabaseClock(self.live)
        self.registry = self.live.open()
        self.job_id = self.registry.register(
            agent="a", prompt="", auth_token=TOKEN, timeout_sec=0, max_attempts=10**6
        ).job_id

    events = Bundle("events")

    @initialize(
        target=events,
        imported=st.sampled_from((None, None, None, ("completed", 3), ("error", 6), ("cancelled", 4))),
    )
    def first(self, imported):
        if imported is None:
            return (1, "started", None, "")
        status, end = imported
        self.registry.close()
        self.live.sql(
            f"UPDATE jobs SET status = '{status}', last_seq = {end}, terminal_seq = {end}, finished_ms = updated_ms"
        )
        self.registry = self.live.open()
        self.model.status, self.model.last, self.model.end = status, end, end
        return (end, "error" if status == "error" else "completed", None, "")

    @rule(
        target=events,
        seq=st.integers(1, 9),
        kind=st.sampled_from(("started", "progress", "progress", "progress", "completed", "error")),
        attempt=st.sampled_from((None, None, 1, 2)),
        detail=st.sampled_from(("", "", "x")),
    )
    def make_event(self, seq, kind, attempt, detail):
        return (seq, kind, attempt, detail)

    def _accept(self, event, subscriber, window, start):
        seq, kind, attempt, detail = event
        line = signed(self.job_id, seq, kind, token=TOKEN, attempt=attempt, detail=detail)
        before = set(self.model.accepted[subscriber])
        begin = self.model.start[subscriber]
        expected = self.model.verdict(seq, kind, attempt, line, subscriber, window, start)
        result = self.registry.accept(line, subscriber=subscriber, window=window, start=start)
        assert result.verdict == expected, (event, subscriber, window, start)
        if expected == "accepted":
            top = max(before, default=self.model.start[subscriber] if begin is None else begin)
            assert list(result.missing) == list(range(top + 1, seq))

    @rule(
        event=events,
        subscriber=st.sampled_from(SUBSCRIBERS),
        window=st.sampled_from((0, 0, 1, 3, 20)),
        start=st.sampled_from(("beginning", "beginning", "now")),
    )
    def accept(self, event, subscriber, window, start):
        self._accept(event, subscriber, window, start)

    @rule(
        batch=st.lists(events, min_size=1, max_size=5),
        subscriber=st.sampled_from(SUBSCRIBERS),
        window=st.sampled_from((0, 3)),
    )
    def accept_batch(self, batch, subscriber, window):
        lines = [signed(self.job_id, s, k, token=TOKEN, attempt=a, detail=d) for s, k, a, d in batch]
        expected = [
            self.model.verdict(s, k, a, line, subscriber, window, "beginning")
            for (s, k, a, d), line in zip(batch, lines, strict=True)
        ]
        found = self.registry.accept_many(lines, subscriber=subscriber, window=window)
        assert [result.verdict for result in found] == expected

    @rule(event=events, subscriber=st.sampled_from(SUBSCRIBERS))
    def forge(self, event, subscriber):
        seq, kind, attempt, detail = event
        line = signed(self.job_id, seq, kind, token=TOKEN[::-1], attempt=attempt, detail=detail)
        assert self.registry.accept(line, subscriber=subscriber, window=20).verdict == "bad_signature"

    @rule()
    def claim(self):
        """A claim takes the job if it is pending, or if its lease has expired and nobody has noticed yet."""
        free = self.model.status == "pending" or (self.model.leased and self.model.expired)
        found = self.registry.claim(worker="w", lease_sec=60)
        assert (found is not None) == free
        if found is not None:
            assert found.attempt == self.model.attempt + 1
            self.model.attempt, self.model.status = found.attempt, "running"
            self.model.leased, self.model.expired = True, False

    @rule()
    def expire(self):
        """Time passes: until somebody claims or reaps, the old worker still holds the job."""
        self.clock.advance(61)
        self.model.expired = True

    @rule()
    def reap(self):
        expected = [self.job_id] if self.model.leased and self.model.expired else []
        assert [one.job_id for one in self.registry.reap()] == expected
        if expected:
            self.model.status, self.model.leased = "pending", False

    @rule()
    def publish(self):
        """The worker's own event, which a job under a lease takes with its attempt only."""
        if self.model.leased:
            with pytest.raises(AttemptRequired):
                self.registry.publish(self.job_id, "progress")
            event = self.registry.publish(self.job_id, "progress", attempt=self.model.attempt)
            self.model.stored[event.seq] = event.payload
            self.model.last = event.seq

    @rule()
    def release(self):
        if self.model.status == "running" and self.model.attempt:
            self.registry.release(self.job_id, attempt=self.model.attempt)
            self.model.status, self.model.leased = "pending", False

    @rule(really=st.integers(0, 7))
    def cancel(self, really):
        if not really and self.model.end is None:
            self.registry.cancel(self.job_id)
            self.model.status, self.model.end, self.model.leased = "cancelled", self.model.last, False

    @rule()
    def reopen(self):
        self.registry.close()
        self.registry = self.live.open()

    @invariant()
    def database_matches_model(self):
        job = self.registry.get(self.job_id)
        assert (job.status, job.last_seq, job.attempt) == (self.model.status, self.model.last, self.model.attempt)
        stored = {event.seq: event.payload for event in self.registry.events(self.job_id)}
        assert stored == self.model.stored
        for subscription in self.registry.subscriptions(job_id=self.job_id):
            mine = self.model.accepted[subscription.subscriber]
            assert subscription.last_seq == max(mine, default=self.model.start[subscription.subscriber])

    def teardown(self):
        with contextlib.suppress(AttributeError):
            self.registry.close()
            self.discard(self.live)


@pytest.mark.parametrize("engine", ENGINES)
def test_accept_agrees_with_the_model_on_random_schedules(engine, request):
    server = request.getfixturevalue("postgres_server") if engine == "postgresql" else None

    class Machine(AcceptMachine):
        @staticmethod
        def make():
            if server is not None:
                return PostgresDatabase(server)
            return SqliteDatabase(Path(tempfile.mkdtemp(prefix="jobdb-model-")), shared=engine == "sqlite-delete")

        @staticmethod
        def discard(database):
            if server is not None:
                database.recycle()
            else:
                shutil.rmtree(database.path.parent)

    fewer = 1 if engine == "sqlite-wal" else 4
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=max(1, EXAMPLES // fewer),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
