"""Kill, stop and drain workers and keepers at random while hostile agents work, and check what became of each job.

Used by the short test in tests/work and the long one in tests/torture. What must hold: every job ends once, and as it
should; an attempt acts once; attempts of a job never overlap; in the end, no process is left.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from jobdb import JobdbError, JobStatus, NewJob, Registry
from jobdb.model import Job
from tests.support.agent.fleet import Fleet, WorkerProcess
from tests.support.agent.journal import check_journal, read_journal
from tests.support.agent.process_table import Process, ProcessTable, descendants, process_table

LEASE_SEC = 3
DRAIN_SEC = 1
SETTLE_SEC = 5
SLOTS = 4
WORKERS = 2
AGENT = "hostile"
_STATUSES = {
    "completes": {JobStatus.COMPLETED, JobStatus.CANCELLED},
    "hangs": {JobStatus.ERROR, JobStatus.CANCELLED},
    "fails": {JobStatus.ERROR, JobStatus.CANCELLED},
}
_WAYS = (
    "",
    "setsid",
    "double-fork",
    "ignore-sigterm",
    "setsid close-fds",
    "flood=2",
    "fork-bomb=6",
    "clear-environment",
    "double-fork clear-environment close-fds ignore-sigterm fork-bomb=4",
    "setsid abandon fork-bomb=2",
    "first:kill-parent setsid fork-bomb=2",
    "first:crash",
)


@dataclass
class Report:
    """The record of a run, and the broken promises."""

    seed: int
    jobs: int
    strikes: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    duration_sec: float = 0.0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"JOBDB_TORTURE_SEED={self.seed}: {self.jobs} jobs, {self.attempts} attempts that acted, "
            f"{self.strikes.total()} strikes, {self.duration_sec:.0f} s, {len(self.violations)} broken promises",
            f"  ended as {dict(self.statuses)}",
            *(f"  {count:5} × {name}" for name, count in self.strikes.most_common() if count),
            *(f"  BROKEN {sentence}" for sentence in self.violations[:40]),
        ]
        return "\n".join(lines)


def make_jobs(rng: Random, count: int, *, longest_sec: float) -> list[NewJob]:
    """Return jobs for the hostile agent: most complete, in every way that it has; some hang, some fail."""
    jobs = []
    for number in range(count):
        fate = "hangs" if number % 20 == 19 else "fails" if number % 20 == 9 else "completes"
        way = rng.choice(_WAYS)
        act = {"hangs": "hang", "fails": "act=0.1 exit=3", "completes": f"act={rng.uniform(0, longest_sec):.2f}"}[fate]
        jobs.append(
            NewJob(
                agent=AGENT,
                prompt=f"{way.replace('abandon ', '') if fate == 'hangs' else way} {act}",
                job_id=f"{fate}-{number:04}",
                max_attempts=500 if fate == "completes" else 2,
                timeout_sec=2 if fate == "hangs" else 3600,
            )
        )
    return jobs


class Striker:
    """Does something bad to a fleet, at random.

    Args:
        fleet: the workers.
        registry: where jobs are cancelled.
        rng: chooses.
        cancellations: how many jobs are cancelled at most.
    """

    def __init__(self, fleet: Fleet, registry: Registry, rng: Random, *, cancellations: int) -> None:
        self._fleet = fleet
        self._registry = registry
        self._rng = rng
        self._cancellations = cancellations
        self._resumptions: list[tuple[float, WorkerProcess]] = []
        self._fallen: defaultdict[WorkerProcess, list[Process]] = defaultdict(list)
        self.strikes: Counter[str] = Counter()

    def strike(self) -> None:
        """Do one of the bad things, if its target is there."""
        running = self._fleet.running()
        if not running:
            return
        worker = self._rng.choice(running)
        table = process_table()
        names = ("worker", "keeper", "server", "worker+keeper", "keeper+server", "worker+server")
        name = self._rng.choices(
            (*names, "pause", "pause keeper", "drain", "drain twice", "cancel"),
            weights=(5, 6, 4, 3, 3, 3, 2, 2, 2, 1, 2),
        )[0]
        if name in names:
            done = self._kill(name.split("+"), worker, table)
        elif name == "cancel":
            done = self._cancel()
        elif name == "pause":
            done = self._pause(worker)
        elif name == "pause keeper":
            done = self._pause_keeper(worker, table)
        else:
            worker.send(signal.SIGTERM)
            if name == "drain twice":
                time.sleep(self._rng.uniform(0, 0.2))
                worker.send(signal.SIGTERM)
            done = True
        self.strikes[name] += done

    def revive(self) -> None:
        """Start the workers that have ended, and resume those that were stopped for long enough."""
        for when, worker in list(self._resumptions):
            if time.monotonic() >= when:
                self._resumptions.remove((when, worker))
                worker.send(signal.SIGCONT)
        for worker in self._fleet.workers:
            if not worker.is_running():
                worker.start()

    def rest(self) -> None:
        """Resume what is stopped."""
        for _, worker in self._resumptions:
            worker.send(signal.SIGCONT)
        self._resumptions.clear()

    def _kill(self, kinds: Sequence[str], worker: WorkerProcess, table: ProcessTable) -> bool:
        """Kill one of each kind, in a random order; return whether all of them were there.

        Worker, server and keeper are never all killed at once: nobody could find an agent then that has cleared its
        environment, and nobody would look for one whose job has no further attempt. A killed keeper without a server
        leaves its agent to the worker, which lives on meanwhile.
        """
        if worker.pid not in table:  # drained, and over since
            return False
        keepers = self._fleet.keepers(table, worker)
        if "worker" in kinds:
            if self._falling(worker, table):
                return False
            keepers = [keeper for keeper in keepers if keeper.parent != worker.pid]
        victims: list[Process] = []
        for kind in kinds:
            found = {"worker": [table[worker.pid]], "keeper": keepers, "server": self._fleet.servers(table, worker)}[
                kind
            ]
            if not found:
                return False
            victims.append(self._rng.choice(found))
        self._rng.shuffle(victims)
        for victim in victims:
            if "worker" not in kinds:
                self._fallen[worker] += descendants(table, [victim.pid]) if victim in keepers else []
            with suppress(ProcessLookupError):
                os.kill(victim.pid, signal.SIGKILL)
        if "worker" in kinds:
            worker.wait(20)
            worker.start()
        return True

    def _falling(self, worker: WorkerProcess, table: ProcessTable) -> list[Process]:
        """Return the processes below killed and stopped keepers of a worker that are still alive."""
        alive = {(process.pid, process.started) for process in table.values()}
        return [process for process in self._fallen[worker] if (process.pid, process.started) in alive]

    def _pause(self, worker: WorkerProcess) -> bool:
        """Stop a worker past its lease, if none is stopped."""
        if self._resumptions:
            return False
        worker.send(signal.SIGSTOP)
        self._resumptions.append((time.monotonic() + LEASE_SEC * self._rng.uniform(0.5, 1.5), worker))
        return True

    def _pause_keeper(self, worker: WorkerProcess, table: ProcessTable) -> bool:
        """Stop a keeper, and leave it to its server and its worker to go on; one of them lives on meanwhile."""
        keepers = self._fleet.keepers(table, worker)
        if not keepers:
            return False
        keeper = self._rng.choice(keepers)
        self._fallen[worker] += [keeper, *descendants(table, [keeper.pid])]
        with suppress(ProcessLookupError):
            os.kill(keeper.pid, signal.SIGSTOP)
        return True

    def _cancel(self) -> bool:
        running = self._registry.jobs(status=JobStatus.RUNNING)
        if not running or self._cancellations <= 0:
            return False
        try:
            self._registry.cancel(self._rng.choice(running).job_id)
        except JobdbError:  # it has ended meanwhile
            return False
        self._cancellations -= 1
        return True


def run_chaos(
    folder: Path,
    registry: Registry,
    environment: dict[str, str],
    *,
    jobs: int,
    strikes: int,
    seed: int,
    longest_sec: float,
    limit_sec: float,
    work: Sequence[str] = (),
) -> Report:
    """Let a fleet do jobs while it is struck, evenly over the time that the jobs take; return what was found.

    Args:
        folder: an empty folder.
        registry: an empty registry.
        environment: the workers' environment, with its JOBDB_URL.
        jobs: how many jobs.
        strikes: how many bad things happen; about as many, if their targets are rare.
        seed: makes the choices repeatable; the moments are the machine's.
        longest_sec: the longest time that an agent acts by itself.
        limit_sec: the time after which the run is given up.
        work: another worker than ``jobdb work``.
    """
    rng = Random(seed)
    report = Report(seed, jobs)
    began = time.monotonic()
    registry.register_many(make_jobs(rng, jobs, longest_sec=longest_sec))
    options = ["--agent", AGENT, "-c", SLOTS, "--lease-sec", LEASE_SEC, "--drain-sec", DRAIN_SEC, "--grace-sec", 1]
    options += ["--log-dir", folder / "logs"]
    with Fleet(folder, environment, options, workers=WORKERS, work=work) as fleet:
        striker = Striker(fleet, registry, rng, cancellations=jobs // 20)
        next_at = 0.0
        while True:
            ended = sum(count for status, count in registry.count_by_status().items() if status.terminal)
            if ended == jobs:
                break
            if time.monotonic() > began + limit_sec:
                report.violations.append(f"after {limit_sec} s, {jobs - ended} of {jobs} jobs have not ended")
                break
            striker.revive()
            due = strikes * (ended + 1) / (jobs * 0.75)
            if striker.strikes.total() < min(strikes, due) and time.monotonic() >= next_at:
                striker.strike()
                next_at = time.monotonic() + rng.uniform(0, 0.3)
            time.sleep(0.02)
        striker.rest()
        left = _end(fleet)
    report.strikes = striker.strikes
    report.duration_sec = time.monotonic() - began
    _check_jobs(report, list(registry.all_jobs()), registry, fleet)
    report.violations += left
    return report


def _end(fleet: Fleet) -> list[str]:
    """Drain the workers; return what was wrong with that, and what is left."""
    wrong = []
    for worker in fleet.workers:
        worker.send(signal.SIGTERM)
    for worker in fleet.workers:
        # One that was started this moment does not know the signal yet, and dies of it.
        if worker.is_running() and worker.wait(30) not in (0, -signal.SIGTERM):
            wrong.append(f"a worker with nothing to do was told to end, and did with exit code {worker.ended[-1]}")
        if "Traceback" in worker.output.read_text("utf-8", "replace"):
            wrong.append(f"a traceback in {worker.output}")
    deadline = time.monotonic() + SETTLE_SEC
    while fleet.left_processes() and time.monotonic() < deadline:
        time.sleep(0.02)
    return wrong + [f"left: {process}" for process in fleet.left_processes()]


def _check_jobs(report: Report, jobs: Sequence[Job], registry: Registry, fleet: Fleet) -> None:
    """Compare what the registry says with what the agents did."""
    journal = read_journal(fleet.agents)
    report.attempts = sum(entry.kind == "start" for entry in journal)
    report.statuses = Counter(str(job.status) for job in jobs)
    wrong = check_journal(journal)
    acted = {(entry.job_id, entry.attempt) for entry in journal if entry.kind == "start"}
    finished = {(entry.job_id, entry.attempt) for entry in journal if entry.kind == "end"}
    for job in jobs:
        fate = job.job_id.partition("-")[0]
        if job.status not in _STATUSES[fate]:
            wrong.append(f"{job!r} ended as {job.status}: {job.detail}")
        last = [event for event in registry.all_events(job.job_id) if event.event.terminal]
        if len(last) != (job.status != JobStatus.CANCELLED):
            wrong.append(f"{job.job_id} ended {len(last)} times")
        if job.status == JobStatus.COMPLETED and "abandon" not in job.prompt:
            key = (job.job_id, job.attempt)
            if key not in finished:
                wrong.append(f"{key} completed, but its agent did not")
        known = {(job.job_id, attempt.attempt) for attempt in registry.attempts(job.job_id)}
        wrong += [f"{key} acted, and is no attempt" for key in acted - known if key[0] == job.job_id]
    report.violations += wrong
