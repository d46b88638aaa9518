"""Kill and restart every process on the path of events while they are in flight, and check what arrived.

Used by the short tests in tests/mqtt and the long ones in tests/torture.
"""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from jobdb import EventKind, JobStatus, NewEvent, NewJob
from jobdb.model import Broker, Job
from jobdb.mqtt import issue_ticket, write_ticket
from tests.support.ack_log import read_ack_log
from tests.support.mqtt.brokers import Mosquitto
from tests.support.mqtt.harness import BrokerHarness
from tests.support.processes import module_environment, python_module
from tests.support.waiting import wait_until

Action = Callable[[], object]


def worker_command(*arguments: str) -> list[str]:
    """Return the command that runs a role of `worker_program`; start it with `module_environment()`."""
    return python_module("tests.support.mqtt.worker_program", *arguments)


class RestartableProcess:
    """A worker process that can be killed and started again."""

    def __init__(self, errors: Path, *arguments: str) -> None:
        self._errors = errors
        self._command = worker_command(*arguments)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self._errors, "ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=module_environment(),
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def wait(self, limit_sec: float) -> int | None:
        """Wait for the end; return the exit code, or None if it was killed."""
        if self._process is None:
            return None
        return self._process.wait(limit_sec)


class RandomKiller:
    """A thread that kills one of several processes at random, and starts it again a little later.

    Args:
        targets: the functions that kill and start each of them.
        seed: makes the order repeatable; the moments are the machine's.
        every_sec: the mean pause between two kills.
    """

    def __init__(self, targets: Sequence[tuple[Action, Action]], *, seed: int, every_sec: float) -> None:
        self._targets = targets
        self._random = random.Random(seed)
        self._every_sec = every_sec
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._kill_loop)
        self.kills: Counter[int] = Counter()

    def __enter__(self) -> RandomKiller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _kill_loop(self) -> None:
        while not self._over.wait(self._random.uniform(0.2, 1.8) * self._every_sec):
            which = self._random.randrange(len(self._targets))
            kill, start = self._targets[which]
            kill()
            self.kills[which] += 1
            self._over.wait(self._random.uniform(0, 0.5) * self._every_sec)
            start()


def publish_all(harness: BrokerHarness, *, jobs: int, events: int, pause_sec: float, seed: int) -> list[Job]:
    """Publish ``events`` events of ``jobs`` jobs in turn: most complete, some fail, some are cancelled."""
    rng = random.Random(seed)
    record = Broker("127.0.0.1", harness.settings.port)
    made = harness.registry.register_many(
        [NewJob(agent="codex", prompt="sort", job_id=f"job{n:03}", broker=record) for n in range(jobs)]
    )
    each = events // jobs
    left = {job.job_id: each for job in made}
    for job in made:
        harness.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    while left:
        batch = []
        for job_id in rng.sample(sorted(left), min(len(left), 8)):
            left[job_id] -= 1
            kind = EventKind.PROGRESS
            if left[job_id] == 0:
                del left[job_id]
                number = int(job_id[3:])
                if number % 10 == 9:
                    harness.registry.publish_many(batch)
                    batch = []
                    harness.registry.cancel(job_id)
                    continue
                kind = EventKind.ERROR if number % 5 == 0 else EventKind.COMPLETED
            batch.append(NewEvent(job_id=job_id, event=kind, detail="x", attempt=1))
        harness.registry.publish_many(batch)
        time.sleep(pause_sec)
    return made


def expected_end(job_id: str) -> JobStatus:
    number = int(job_id[3:])
    if number % 10 == 9:
        return JobStatus.CANCELLED
    return JobStatus.ERROR if number % 5 == 0 else JobStatus.COMPLETED


def all_arrived(harness: BrokerHarness, jobs: list[Job], names: list[str]) -> bool:
    """Return whether the outbox is empty and every subscriber has accepted and handled every event."""
    if harness.registry.engine.outbox_size()[0]:
        return False
    for name in names:
        numbers = harness.registry.subscriptions(subscriber=name, limit=10_000)
        if len(numbers) < len(jobs) or any(n.handled_seq < n.job_last_seq for n in numbers):
            return False
    return True


def check_log(log: Path, last_seqs: dict[str, int]) -> int:
    """Assert the order and number of accepted and handled events; return how many came over the broker.

    Each is accepted at most once and handled at least once, in order.
    """
    accepted: dict[str, list[int]] = {}
    handled: dict[str, list[int]] = {}
    for entry in read_ack_log(log):
        seen = (accepted if entry["action"] == "accepted" else handled).setdefault(entry["job_id"], [])
        if entry["action"] == "accepted" or entry["seq"] not in seen:
            seen.append(entry["seq"])
    for job_id, seqs in accepted.items():
        assert seqs == sorted(set(seqs)), (job_id, seqs)
    assert handled == {job_id: list(range(1, last + 1)) for job_id, last in last_seqs.items() if last}
    return sum(len(seqs) for seqs in accepted.values())


def _failure_report(harness: BrokerHarness, errors: Path) -> str:
    """Return the subscribers that are behind and the last output of the workers, for the report of a failure."""
    behind = [n for n in harness.registry.subscriptions(limit=10_000) if n.handled_seq < n.job_last_seq]
    output = errors.read_text()[-4000:]
    return f"outbox: {harness.registry.engine.outbox_size()}\nbehind: {behind[:10]}\n{output}"


def run_chaos(folder: Path, server: Mosquitto, *, jobs: int, events: int, pause_sec: float, seed: int) -> Counter[int]:
    """Run the whole path under kills of broker, relays and subscribers; assert that nothing is lost or done twice.

    Returns:
        How often the broker, each relay and each subscriber was killed.
    """
    names = ["orchestrator", "auditor"]
    with BrokerHarness(folder / "db" / "jobs.db", server.port) as harness:
        database, errors = str(harness.path), folder / "workers.log"
        relays = [RestartableProcess(errors, "relay", database) for _ in range(2)]
        logs = {name: folder / f"{name}.log" for name in names}
        followers = [
            RestartableProcess(errors, "subscriber", database, str(server.port), name, str(logs[name]))
            for name in names
        ]
        for worker in relays + followers:
            worker.start()
        targets = [(server.kill, server.start), *((worker.kill, worker.start) for worker in relays + followers)]
        try:
            with RandomKiller(targets, seed=seed, every_sec=0.7) as killer:
                made = publish_all(harness, jobs=jobs, events=events, pause_sec=pause_sec, seed=seed)
            wait_until(lambda: all_arrived(harness, made, names), limit_sec=120)
        except BaseException:
            print(_failure_report(harness, errors))
            raise
        finally:
            for worker in relays + followers:
                worker.kill()
        ended = {job.job_id: harness.registry.get(job.job_id) for job in made}
        assert {job_id: job.status for job_id, job in ended.items()} == {
            job_id: expected_end(job_id) for job_id in ended
        }
        last_seqs = {job_id: job.last_seq for job_id, job in ended.items()}
        by_broker = [check_log(logs[name], last_seqs) for name in names]
        assert all(by_broker), "nothing came over the broker: everything was backfilled from the database"
        assert harness.registry.refusals() == [] and harness.refused() == {}
        print(f"\n{sum(last_seqs.values())} events; accepted from the broker: {by_broker}; kills: {dict(killer.kills)}")
        return killer.kills


def run_ticket_chaos(folder: Path, server: Mosquitto, *, tickets: int, events: int, seed: int) -> Counter[int]:
    """Run workers with tickets, over the broker alone: it holds the only copy of what was acknowledged to them.

    So the broker is restarted cleanly, with persistence, and everything else is killed.

    Returns:
        How often the broker, the publisher, a ticket's relay and the subscriber were ended.
    """
    state, errors, log = folder / "state" / "tickets.db", folder / "workers.log", folder / "watcher.log"
    place = folder / "tickets"
    place.mkdir()
    with BrokerHarness(folder / "db" / "jobs.db", server.port) as harness:
        jobs = [harness.job(job_id=f"job{number:03}") for number in range(tickets)]
        for job in jobs:
            harness.registry.claim(worker="remote", job_id=job.job_id, lease_sec=None)
            ticket = issue_ticket(harness.registry, job.job_id, environment=harness.environment)
            write_ticket(ticket, place / f"{job.job_id}.ticket")
        publisher = RestartableProcess(errors, "ticket-publisher", str(place), str(state), str(events))
        relays = [RestartableProcess(errors, "ticket-relay", str(path), str(state)) for path in sorted(place.iterdir())]
        follower = RestartableProcess(errors, "subscriber", str(harness.path), str(server.port), "watcher", str(log))
        follower.start()
        wait_until(lambda: "subscribed" in errors.read_text())
        for worker in [publisher, *relays]:
            worker.start()
        mortals = [publisher, *relays, follower]
        targets = [(server.stop, server.start), *((worker.kill, worker.start) for worker in mortals)]
        try:
            with RandomKiller(targets, seed=seed, every_sec=0.7) as killer:
                wait_until(lambda: killer.kills.total() >= 12, limit_sec=60)
            wait_until(lambda: _all_handled(harness, jobs, events), limit_sec=120)
        except BaseException:
            print(_failure_report(harness, errors))
            raise
        finally:
            for worker in mortals:
                worker.kill()
        assert all(harness.registry.get(job.job_id).status is JobStatus.COMPLETED for job in jobs)
        # The number logged as accepted proves nothing: a kill between an acceptance and its log entry loses the entry.
        arrived = check_log(log, {job.job_id: events for job in jobs})
        assert "did not arrive" not in errors.read_text()
        assert harness.registry.refusals() == [] and harness.refused() == {}
        print(f"\n{tickets * events} events; accepted from the broker: {arrived}; kills: {dict(killer.kills)}")
        return killer.kills


def _all_handled(harness: BrokerHarness, jobs: list[Job], events: int) -> bool:
    numbers = harness.registry.subscriptions(subscriber="watcher", limit=10_000)
    return len(numbers) == len(jobs) and all(number.handled_seq == events for number in numbers)
