"""Test the library on two hosts that share a folder: nothing lost, nothing duplicated, nothing corrupt.

And the controls: plain SQLite in WAL fails on the very same mounts, so these tests are able to fail.
"""

from __future__ import annotations

import json
import selectors
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobdb import Registry, UnsafeFileSystem, Verdict
from tests.support.processes import module_environment, python_module
from tests.support.twohosts.mount import TwoHosts
from tests.support.twohosts.probe import probe_both

JOBS = 6


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        python_module("tests.support.twohosts.worker_program", *arguments),
        env=module_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_output(process: subprocess.Popen[str], *, code: int = 0) -> list[dict[str, Any]]:
    """Return what a worker acknowledged, once it has ended."""
    try:
        out, errors = process.communicate(timeout=180)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == code, f"{process.args}: exit code {process.returncode}\n{errors}"
    return [json.loads(line) for line in out.splitlines()]


def exchange_line(process: subprocess.Popen[str], line: str | None = None) -> dict[str, Any]:
    """Return the next line of a running worker, after sending it ``line``."""
    assert process.stdin is not None and process.stdout is not None
    if line is not None:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        assert selector.select(90), "the worker does not answer"
    return dict(json.loads(process.stdout.readline()))


def create_probed_registry(hosts: TwoHosts) -> TwoHosts:
    """Run the peer probe between the hosts, which must pass, and create a registry on the first; return the hosts."""
    on_a, _ = probe_both(hosts)
    assert on_a["ok"], on_a
    folder = hosts.a / "registry"
    folder.mkdir(mode=0o700)
    with Registry.open(folder / "jobs.db", create=True):
        pass
    return hosts


def database(host: Path) -> str:
    return str(host / "registry" / "jobs.db")


def integrity(hosts: TwoHosts) -> list[str]:
    """Return SQLite's integrity check of the file, run on the server after all processes have closed it."""
    connection = sqlite3.connect(database(hosts.backing))
    try:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        faults = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        return faults + [str(row) for row in connection.execute("PRAGMA foreign_key_check")]
    finally:
        connection.close()


@pytest.mark.parametrize("cache", ["direct", "nfs"])
def test_two_hosts_with_two_writers_each(two_hosts: Callable[..., TwoHosts], tmp_path: Path, cache: str) -> None:
    hosts = create_probed_registry(two_hosts("--cache", cache, "--locks", "server"))

    workers = [
        start("work", database(host), f"{host.name}{number}", str(JOBS))
        for host in (hosts.a, hosts.b)
        for number in (1, 2)
    ]
    acks = [line for worker in workers for line in read_output(worker)]

    registered = [line["registered"] for line in acks if "registered" in line]
    claims = Counter((line["claimed"], line["attempt"]) for line in acks if "claimed" in line)
    published = {(line["published"], line["seq"]): line["payload"] for line in acks if "published" in line}
    assert len(set(registered)) == len(registered) == 4 * JOBS
    assert set(claims.values()) == {1} and {job for job, _ in claims} == set(registered)
    assert len(published) == 4 * JOBS * 3, "a seq was assigned twice"

    payloads = tmp_path / "payloads"
    payloads.write_text("".join(published[key] + "\n" for key in sorted(published)))
    acceptors = [start("accept", database(host), str(payloads)) for host in (hosts.a, hosts.b) for _ in (1, 2)]
    verdicts = [line for acceptor in acceptors for line in read_output(acceptor)]
    accepted = Counter((line["job_id"], line["seq"]) for line in verdicts if line["verdict"] == Verdict.ACCEPTED)
    assert accepted == dict.fromkeys(published, 1)
    assert {line["verdict"] for line in verdicts} == {Verdict.ACCEPTED, Verdict.DUPLICATE}

    with Registry.open(database(hosts.b)) as registry:
        found = {job.job_id: job for job in registry.all_jobs()}
        assert set(found) == set(registered)
        assert {job.status for job in found.values()} == {"completed"}
        for job_id in found:
            events = registry.events(job_id)
            assert [event.seq for event in events] == [1, 2, 3]
            assert [event.payload for event in events] == [published[job_id, seq] for seq in (1, 2, 3)]
        numbers = registry.subscriptions(subscriber="observer")
        assert {entry.job_id: entry.last_seq for entry in numbers} == dict.fromkeys(registered, 3)
    assert integrity(hosts) == ["ok"]


@pytest.mark.parametrize("cache", ["direct", "nfs"])
def test_a_hot_journal_of_a_killed_writer_is_rolled_back_by_the_other_host(
    two_hosts: Callable[..., TwoHosts], cache: str
) -> None:
    hosts = create_probed_registry(two_hosts("--cache", cache, "--locks", "server"))
    with Registry.open(database(hosts.a)) as registry:
        kept = [registry.register(agent="kept", prompt=f"kept {number}").prompt for number in range(5)]
    watcher = start("watch", database(hosts.b))  # it has looked for a journal before there is one
    try:
        assert exchange_line(watcher)["jobs"] == 5
        before = Path(database(hosts.backing)).read_bytes()

        read_output(start("die", database(hosts.a)), code=-9)

        journal = Path(f"{database(hosts.backing)}-journal")
        half_written = Path(database(hosts.backing)).read_bytes()
        assert journal.stat().st_size > 512 and half_written[: len(before)] != before, "the journal is not hot"
        seen = exchange_line(watcher, "go on")["jobs"]
        assert seen == sorted([*kept, "written by the other host"])
        assert read_output(watcher) == []
    finally:
        watcher.kill()
    assert not journal.exists()
    assert integrity(hosts) == ["ok"]


def test_a_host_that_loses_the_network_during_a_write_damages_nothing(two_hosts: Callable[..., TwoHosts]) -> None:
    """Its locks expire, the other host continues, and it reconnects: what was acknowledged stays."""
    hosts = create_probed_registry(two_hosts("--cache", "nfs", "--locks", "server"))
    lost = start("work", database(hosts.a), "lost", "100000")
    try:
        first = exchange_line(lost)["registered"]
        hosts.send_command("cut", 0)
        hosts.send_command("expire", 0)
        acks = read_output(start("work", database(hosts.b), "b", "3"))
        hosts.send_command("heal", 0)
    finally:
        lost.kill()
        lost.communicate(timeout=60)
    registered = {first} | {line["registered"] for line in acks if "registered" in line}
    with Registry.open(database(hosts.b)) as registry:
        assert registered <= {job.job_id for job in registry.all_jobs()}
        for line in acks:
            if "published" in line:
                assert line["payload"] in {event.payload for event in registry.events(line["published"])}
    assert integrity(hosts) == ["ok"]


def test_locks_kept_on_each_host_are_refused_before_any_write(two_hosts: Callable[..., TwoHosts]) -> None:
    hosts = two_hosts("--locks", "local")
    on_a, on_b = probe_both(hosts)
    assert not on_a["ok"] and not on_b["ok"]
    for host in (hosts.a, hosts.b):
        with pytest.raises(UnsafeFileSystem, match=r"probe .* --peer NAME"):
            Registry.open(host / "jobs.db", create=True)
    assert list(hosts.backing.iterdir()) == []


def test_lock_manager_that_is_down_is_refused_before_any_write(two_hosts: Callable[..., TwoHosts]) -> None:
    hosts = two_hosts("--locks", "none")
    with pytest.raises(UnsafeFileSystem, match="ENOLCK"):
        Registry.open(hosts.a / "jobs.db", create=True)
    assert list(hosts.backing.iterdir()) == []


def test_database_in_wal_mode_is_refused(two_hosts: Callable[..., TwoHosts]) -> None:
    hosts = two_hosts("--cache", "nfs", "--locks", "server")
    on_a, _ = probe_both(hosts)
    assert on_a["ok"]
    with Registry.open(hosts.backing / "jobs.db", create=True) as registry:
        registry.register(agent="local", prompt="made where the folder is local")
    before = (hosts.backing / "jobs.db").read_bytes()
    names = sorted(path.name for path in hosts.backing.iterdir())
    with pytest.raises(UnsafeFileSystem, match="WAL") as refusal:
        Registry.open(hosts.a / "jobs.db")
    assert "jobdb" in str(refusal.value) and "--shared" in str(refusal.value)
    assert (hosts.backing / "jobs.db").read_bytes() == before
    assert sorted(path.name for path in hosts.backing.iterdir()) == names


def test_the_host_of_the_disk_keeps_the_journal_mode_of_the_others(two_hosts: Callable[..., TwoHosts]) -> None:
    hosts = create_probed_registry(two_hosts("--cache", "nfs", "--locks", "server"))
    with Registry.open(database(hosts.backing)) as registry:
        registry.register(agent="server", prompt="written where the folder is local")
    assert Path(database(hosts.backing)).read_bytes()[18] == 1, "it was switched to WAL"
    with Registry.open(database(hosts.a)) as registry:
        assert len(list(registry.all_jobs())) == 1


def test_the_host_of_the_disk_rolls_back_the_hot_journal_of_another_host(two_hosts: Callable[..., TwoHosts]) -> None:
    hosts = create_probed_registry(two_hosts("--cache", "direct", "--locks", "server"))
    read_output(start("die", database(hosts.a)), code=-9)
    assert Path(f"{database(hosts.backing)}-journal").stat().st_size > 512
    with Registry.open(database(hosts.backing)) as registry:
        assert list(registry.all_jobs()) == []
    assert integrity(hosts) == ["ok"]


def test_control_plain_wal_fails_on_the_same_mounts(two_hosts: Callable[..., TwoHosts]) -> None:
    hosts = two_hosts("--cache", "direct", "--locks", "server")
    writers = [
        start("plain-wal", str(host / "plain.db"), f"{host.name}{number}", "150")
        for host in (hosts.a, hosts.b)
        for number in (1, 2)
    ]
    acknowledged, errors, crashed = [], [], 0
    for writer in writers:
        out, _ = writer.communicate(timeout=180)
        crashed += writer.returncode != 0
        acks = [json.loads(line) for line in out.splitlines()]
        acknowledged += [line["row"] for line in acks if "row" in line]
        errors += [line["error"] for line in acks if "error" in line]
    try:
        connection = sqlite3.connect(hosts.a / "plain.db")
        faults = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        found = Counter(row[0] for row in connection.execute("SELECT who FROM t"))
        connection.close()
    except sqlite3.Error as error:
        faults, found = [str(error)], Counter()
    lost = [row for row in acknowledged if not found[row]]
    damaged = faults != ["ok"] or any("malformed" in error or "disk" in error for error in errors)
    assert lost or damaged or crashed, f"{len(acknowledged)} rows, errors {errors[:3]}"
