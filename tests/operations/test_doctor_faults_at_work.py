"""Each fault that is planted in the work (leases, limits, outbox, subscribers, clock) is found and mended by advice."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobdb import Registry, Vault
from jobdb.doctor import examine
from jobdb.model import Broker
from jobdb.registry import now_ms
from jobdb.urls import parse_url
from tests.ports import free_port

House = Any
Require = Callable[[bool, str], None]
HOUR_MS = 3_600_000


class Clock:
    """A clock that is set by hand."""

    def __init__(self, hours: float) -> None:
        self.now = now_ms() + round(hours * HOUR_MS)

    def __call__(self) -> int:
        return self.now


def at(house: House, hours: float) -> Registry:
    """The registry, with the present moment shifted by some hours."""
    return house.registry(clock=Clock(hours))


def test_expired_leases(house: House) -> None:
    with at(house, -2) as registry:
        registry.register(agent="codex", prompt="p", timeout_sec=0, idle_timeout_sec=0)
        registry.claim(agent="codex", worker="w", lease_sec=60)
    diagnosis = house.doctor()
    diagnosis.found("leases", "warn", "1 expired", "1 h ago")
    diagnosis.mended("leases")
    assert house.jobdb("list --status pending").count("codex") == 1


def test_jobs_past_their_limits(house: House) -> None:
    with at(house, -2) as registry:
        job = registry.register(agent="codex", prompt="p", timeout_sec=60)
        registry.publish(job.job_id, "started")
    diagnosis = house.doctor()
    diagnosis.found("time limits", "warn", "1 running")
    diagnosis.mended("time limits")


def test_jobs_that_nothing_will_end(house: House) -> None:
    with house.registry() as registry:
        lively = registry.register(agent="codex", prompt="p", timeout_sec=0, idle_timeout_sec=0)
        registry.publish(lively.job_id, "started")
    house.doctor().is_ok("stuck jobs")
    with at(house, -2) as registry:
        job = registry.register(agent="codex", prompt="p", timeout_sec=0, idle_timeout_sec=0)
        registry.publish(job.job_id, "started")
    diagnosis = house.doctor()
    diagnosis.found("stuck jobs", "warn", "1 running", job.job_id)
    diagnosis.mended("stuck jobs")
    assert json.loads(house.jobdb(f"show {job.job_id} --json"))["status"] == "cancelled"


def test_jobs_that_wait_for_a_person(house: House) -> None:
    with at(house, -0.5) as registry:
        job = registry.register(agent="codex", prompt="p", idle_timeout_sec=0)
        registry.publish(job.job_id, "permission_required", detail="delete all?")
    found = house.doctor().found("permissions", "warn", "1 jobs", "30 min")
    assert "delete all?" in house.sh(found["mend"]).stdout
    house.jobdb(f"publish {job.job_id} progress --detail 'was allowed'")
    house.doctor().is_ok("permissions")


@contextmanager
def mosquitto(folder: Path, program: str) -> Iterator[int]:
    """A broker on loopback; its port."""
    port = free_port()
    (folder / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    process = subprocess.Popen([program, "-c", str(folder / "mosquitto.conf")], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_an_outbox_that_nobody_empties(house: House, require: Require) -> None:
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    require(program is not None, "there is no mosquitto")
    with mosquitto(house.root, str(program)) as port:
        with at(house, -0.05) as registry:
            job = registry.register(agent="codex", prompt="p", broker=Broker("127.0.0.1", port))
            for _ in range(3):
                registry.publish(job.job_id, "progress")
        diagnosis = house.doctor()
        diagnosis.found("outbox", "warn", "3 events", "3 min", "no relay is running")
        diagnosis.mended("outbox")


def test_an_outbox_that_a_relay_does_not_get_empty(house: House) -> None:
    with at(house, -1) as registry:
        job = registry.register(agent="codex", prompt="p", broker=Broker("127.0.0.1", 1), idle_timeout_sec=0)
        registry.publish(job.job_id, "progress")
    with house.registry() as registry:
        assert registry.engine.take_lease("relay", holder="somebody", lease_ms=600_000)
    house.doctor().found("outbox", "warn", "although a relay is running")


def test_a_subscriber_whose_handler_stands_still(house: House) -> None:
    with at(house, -1) as registry:
        job = registry.register(agent="codex", prompt="p", idle_timeout_sec=0)
        registry.publish(job.job_id, "started")
        follower = registry.subscribe(job.job_id, subscriber="mailer", idle_timeout_sec=5)
        assert next(follower).seq == 1
        registry.publish(job.job_id, "progress")
        assert next(follower).seq == 2  # 1 is handled now, and 2 never
    diagnosis = house.doctor()
    diagnosis.found("subscribers", "warn", "mailer", "1 events of 1 jobs", "handler")
    diagnosis.mended("subscribers")


def test_a_subscriber_that_has_gone(house: House) -> None:
    with at(house, -1) as registry:
        job = registry.register(agent="codex", prompt="p", idle_timeout_sec=0)
        event = registry.publish(job.job_id, "started")
        registry.accept(event.payload, subscriber="orchestrator")
        for _ in range(4):
            registry.publish(job.job_id, "progress")
    diagnosis = house.doctor()
    diagnosis.found("subscribers", "warn", "orchestrator has not seen the last 4 events")
    diagnosis.mended("subscribers")


def examined(house: House, hours: float, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The levels of each check at another moment."""
    monkeypatch.setenv("HOME", house.env["HOME"])
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    levels: dict[str, list[str]] = {}
    for finding in examine(parse_url(house.database), clock=Clock(hours)).findings:
        levels.setdefault(finding.check, []).append(finding.level)
    return levels


def test_a_clock_that_was_ahead(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    with at(house, 3) as registry:
        registry.register(agent="codex", prompt="p")
    found = house.doctor().found("clock", "fail", "2 h in the future")
    assert found["mend"].startswith("timedatectl")
    assert examined(house, 4, monkeypatch)["clock"] == ["ok"]  # a clock that is right, later on


def test_what_a_clock_that_was_ahead_has_left(house: House) -> None:
    with at(house, 3) as registry:
        job = registry.register(agent="codex", prompt="p")
        registry.claim(worker="w", job_id=job.job_id, lease_sec=60)
        registry.engine.take_lease("relay", holder="dead", lease_ms=15_000)
    diagnosis = house.doctor()
    diagnosis.found("times", "warn", "1 leases of jobs", "1 named leases")
    after = diagnosis.mended("times")
    after.is_ok("clock")
    after.found("leases", "warn", "1 expired")
    after.mended("leases")


def test_forged_and_replayed_events(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    with house.registry() as registry:
        job = registry.register(agent="codex", prompt="p")
        payload = registry.publish(job.job_id, "progress", detail="step 1").payload
    for _ in range(3):
        assert house.sh("jobdb accept -s me -", input=payload.replace("step 1", "step 9")).returncode == 1
    found = house.doctor().found("refusals", "warn", "3 bad_signature")
    assert job.job_id in house.sh(found["mend"]).stdout
    assert examined(house, 25, monkeypatch)["refusals"] == ["ok"]  # nothing new in the last day


def test_the_note_of_an_unsafe_override(house: House) -> None:
    with house.registry() as registry:
        registry.engine.put_setting("unsafe_override", "nolock")
        registry.engine.put_setting("shared", "1")
    diagnosis = house.doctor()
    diagnosis.found("override", "warn", "nolock", "may have been lost")
    after = diagnosis.mended("override")
    assert "wal" in after.of("journal")[0]["message"]


def test_wal_on_a_network_file_system(house: House, two_hosts: Any) -> None:
    hosts = two_hosts("--locks", "server")
    owner = hosts.backing / "jobs.db"
    owner.parent.chmod(0o700)
    with Registry.open(owner, create=True, vault=Vault.open(env=house.env)) as registry:
        registry.register(agent="codex", prompt="p")
    house.env["JOBDB_URL"] = str(hosts.a / "jobs.db")
    found = house.doctor().found("journal", "fail", "in WAL mode", "on the host that owns the disk")
    # The advice is followed on the host to which the disk belongs, under the name that the file has there.
    on_owner = found["mend"].replace("jobdb", f"jobdb --db {owner}", 1)
    diagnosis = house.doctor(before=on_owner)
    assert not diagnosis.of("journal")
    # And what is asked for then: that the two hosts prove their locks to each other.
    asked = diagnosis.found("open", "fail", "--peer NAME")
    assert "probe" in asked["mend"]
    both = " & ".join(f"jobdb probe {folder} --peer {folder.name} >/dev/null 2>&1" for folder in (hosts.a, hosts.b))
    assert house.doctor(before=f"{both} & wait").report["ok"]


@pytest.mark.parametrize("name", ["$(touch PWNED)", "a; touch PWNED; '", '`touch PWNED`"', "-x $(touch PWNED)"])
def test_advice_is_a_command_whatever_names_are_in_the_database(house: House, name: str) -> None:
    with at(house, -1) as registry:
        job = registry.register(agent=name, prompt="p", idle_timeout_sec=0)
        event = registry.publish(job.job_id, "started")
        registry.accept(event.payload, subscriber=name)
        registry.publish(job.job_id, "progress")
    diagnosis = house.doctor()
    diagnosis.found("subscribers", "warn", name)
    diagnosis.mended("subscribers")
    assert not (house.root / "PWNED").exists()
