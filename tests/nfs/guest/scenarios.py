"""Run the scenarios with the kernel's own NFS client, in the guest; print a line for each.

    SEEN <name> ok|FAILED <detail>

Called by /init. The programs on the clients are those of the tests between two hosts (worker_program.py).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from machines import LEASE_SEC, Machine, start_server

os.environ.update(JOBDB_KEY="5e" * 32, PYTHONPATH="/opt/lib", PYTHONWARNINGS="ignore")
WORKERS = "/opt/guest/worker_program.py"
DATABASE = "/mnt/registry/jobs.db"
TIMEOUT_SEC = 240.0
JOBS = 4

PLACE = """
import json, sys
from jobdb.filesystem.placement import placement_for
print(json.dumps(placement_for(sys.argv[1]).as_dict()))
"""
OPEN = """
import jobdb, sys
try:
    jobdb.Registry.open(sys.argv[1], create=True).close()
    print("opened")
except jobdb.UnsafeFileSystem as error:
    print("refused", error)
"""
PEER = """
import json, sys
from jobdb.filesystem.probe.peer import probe_peer
print(json.dumps(probe_peer("/mnt", name=sys.argv[1], timeout_sec=90).as_dict()))
"""
LIST = """
import json, jobdb
with jobdb.Registry.open("/mnt/registry/jobs.db") as registry:
    jobs = [job.job_id for job in registry.all_jobs()]
    print(json.dumps({job: [event.payload for event in registry.events(job)] for job in jobs}))
"""
CHECK = """
import sqlite3
connection = sqlite3.connect("/srv/jobs/registry/jobs.db")
mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
print(mode, [row[0] for row in connection.execute("PRAGMA integrity_check")])
"""


def python(machine: Machine, program: str, *arguments: str) -> str:
    return machine.run("python3", "-c", program, *arguments, limit_sec=TIMEOUT_SEC).strip()


def worker(machine: Machine, *arguments: str) -> subprocess.Popen[str]:
    return machine.start("python3", WORKERS, *arguments)


def read_output(process: subprocess.Popen[str], code: int = 0) -> list[dict[str, Any]]:
    out, errors = process.communicate(timeout=TIMEOUT_SEC)
    if process.returncode != code:
        raise AssertionError(f"exit code {process.returncode}: {errors[-600:]}")
    return [json.loads(line) for line in out.splitlines()]


def exchange_line(process: subprocess.Popen[str], line: str | None = None) -> dict[str, Any]:
    assert process.stdin is not None and process.stdout is not None
    if line is not None:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    return dict(json.loads(process.stdout.readline()))


def expect(seen: bool, detail: object = "") -> None:
    if not seen:
        raise AssertionError(str(detail))


class Cluster:
    """The server and its two clients."""

    def __init__(self) -> None:
        self.server = start_server()
        self.a, self.b = Machine("a"), Machine("b")
        for network, client in enumerate((self.a, self.b), start=1):
            client.connect(self.server, network)
            client.serve_rpc()
        time.sleep(LEASE_SEC + 2)  # the server gives no locks before its grace period is over

    def mount(self, options: str) -> None:
        """Mount on both clients, over an empty folder."""
        for client in (self.a, self.b):
            client.unmount()
        self.server.run("sh", "-c", "rm -rf /srv/jobs/* /srv/jobs/.j*")
        for client in (self.a, self.b):
            client.mount(options)

    def probe(self) -> dict[str, Any]:
        """Run the peer probe on both at once; return the report of the first."""
        running = [machine.start("python3", "-c", PEER, machine.name) for machine in (self.a, self.b)]
        reports = [read_output(process)[0] for process in running]
        expect(reports[0]["ok"] == reports[1]["ok"], reports)
        return reports[0]

    def make_registry(self) -> None:
        self.a.run("mkdir", "-m", "700", "/mnt/registry")
        expect(python(self.a, OPEN, DATABASE) == "opened", "the registry could not be made")

    def integrity(self) -> None:
        found = python(self.server, CHECK)
        expect(found == "delete ['ok']", found)

    # --- the scenarios

    def refused(self, advice: tuple[str, ...]) -> str:
        placement = json.loads(python(self.a, PLACE, "/mnt"))
        expect(placement["journal"] is None, placement)
        for part in advice:
            expect(part in placement["advice"], placement["advice"])
        answer = python(self.a, OPEN, "/mnt/jobs.db")
        expect(answer.startswith("refused") and advice[0] in answer, answer)
        left = self.server.run("ls", "-A", "/srv/jobs")
        expect(left == "", f"something was written: {left}")
        return str(placement["reason"])

    def probe_detects_hidden_journal(self) -> str:
        report = self.probe()
        failed = {check["name"].split(":")[0] for check in report["checks"] if not check["ok"]}
        expect("journal-seen" in failed, report["checks"])
        return f"failed: {sorted(failed)}"

    def good_mount_passes(self) -> str:
        placement = json.loads(python(self.a, PLACE, "/mnt"))
        expect(placement["journal"] == "delete" and placement["needs_probe"], placement)
        report = self.probe()
        expect(report["ok"], report["checks"])
        return f"{len(report['checks'])} checks in {report['took_sec']:.1f} s"

    def four_writers(self) -> str:
        self.make_registry()
        began = time.monotonic()
        writers = [
            worker(machine, "work", DATABASE, f"{machine.name}{number}", str(JOBS))
            for machine in (self.a, self.b)
            for number in (1, 2)
        ]
        said = [line for writer in writers for line in read_output(writer)]
        took = time.monotonic() - began
        registered = {line["registered"] for line in said if "registered" in line}
        claims = Counter((line["claimed"], line["attempt"]) for line in said if "claimed" in line)
        published = {(line["published"], line["seq"]): line["payload"] for line in said if "published" in line}
        expect(len(registered) == 4 * JOBS and len(published) == 12 * JOBS, said)
        expect(set(claims.values()) == {1} and {job for job, _ in claims} == registered, claims)
        for reader in (self.a, self.b):
            found = json.loads(python(reader, LIST))
            expect(set(found) == registered, "jobs were lost")
            for job in registered:
                expect(found[job] == [published[job, seq] for seq in (1, 2, 3)], "events were lost")
        self.integrity()
        return f"{len(said)} acknowledged writes, {len(said) / took:.0f} a second"

    def hot_journal(self) -> str:
        self.make_registry()
        kept = [
            line["registered"]
            for line in read_output(worker(self.a, "work", DATABASE, "kept", "3"))
            if "registered" in line
        ]
        watcher = worker(self.b, "watch", DATABASE)
        expect(exchange_line(watcher)["jobs"] == len(kept))
        read_output(worker(self.a, "die", DATABASE), code=-9)
        size = int(self.server.run("stat", "-c", "%s", "/srv/jobs/registry/jobs.db-journal"))
        expect(size > 512, "the journal is not hot")
        prompts = exchange_line(watcher, "go on")["jobs"]
        expect(len(prompts) == len(kept) + 1 and not any(prompt.startswith("xxx") for prompt in prompts), prompts)
        read_output(watcher)
        self.integrity()
        return f"journal of {size} bytes rolled back by the other host"

    def partitioned_host(self) -> str:
        self.make_registry()
        lost = worker(self.a, "work", DATABASE, "lost", "100000")
        acknowledged = [exchange_line(lost), exchange_line(lost), exchange_line(lost)]
        self.a.cut()
        try:
            time.sleep(2 * LEASE_SEC + 5)  # with version 4 its lease expires, and others get the lock
            said, waited = self.work_during_partition()
        finally:
            self.a.heal()
        said += read_output(worker(self.b, "work", DATABASE, "after", "2"))
        lost.kill()
        out, _ = lost.communicate(timeout=TIMEOUT_SEC)
        acknowledged += [json.loads(line) for line in out.splitlines() if line.endswith("}")]
        found = json.loads(python(self.b, LIST))
        for line in acknowledged + said:
            if "registered" in line:
                expect(line["registered"] in found, f"{line['registered']} was acknowledged and is lost")
            if "published" in line:
                expect(line["payload"] in found[line["published"]], "an event was acknowledged and is lost")
        self.integrity()
        return f"{len(said)} writes of the other host and {len(acknowledged)} of its own kept{waited}"

    def work_during_partition(self) -> tuple[list[dict[str, Any]], str]:
        """Return what the other host achieves meanwhile. Version 3 has no leases: there it may have to wait."""
        beside = worker(self.b, "work", DATABASE, "beside", "2")
        out, errors = beside.communicate(timeout=TIMEOUT_SEC)
        said = [json.loads(line) for line in out.splitlines()]
        if beside.returncode == 0:
            return said, ""
        expect("jobdb.errors.Busy" in errors, errors[-600:])
        expect(",vers=3," in self.b.run("cat", "/proc/mounts"), "only version 3 may keep the lock of a lost host")
        return said, ", after a Busy while the lost host held the lock"


def main() -> None:
    cluster = Cluster()
    good = "hard,local_lock=none,lookupcache="
    plan: list[tuple[str, str, Callable[[], str]]] = []
    for version in ("4.2", "3"):
        base = f"vers={version}"
        plan += [
            (
                f"v{version} default mount is refused",
                base,
                lambda: cluster.refused(("lookupcache=none", "local_lock=none")),
            ),
            (f"v{version} probe finds the hidden journal", base, cluster.probe_detects_hidden_journal),
        ]
        for lookupcache in ("none", "pos"):
            options = f"{base},{good}{lookupcache}"
            plan += [
                (f"v{version} {lookupcache}: good mount passes the probe", options, cluster.good_mount_passes),
                (f"v{version} {lookupcache}: two hosts, two writers each", options, cluster.four_writers),
                (f"v{version} {lookupcache}: killed writer", options, cluster.hot_journal),
            ]
        plan.append((f"v{version} cut-off host", f"{base},{good}none", cluster.partitioned_host))
    plan.append(
        ("v3 nolock is refused", "vers=3,nolock,lookupcache=none", lambda: cluster.refused(("local_lock=none",)))
    )
    only = re.compile(os.environ.get("JOBDB_NFS_ONLY", ""))
    for name, options, scenario in plan:
        if not only.search(name):
            continue
        began = time.monotonic()
        try:
            cluster.mount(options)
            detail, word = scenario(), "ok"
        except Exception as error:
            detail, word = f"{type(error).__name__}: {error}".replace("\n", " ")[:1500], "FAILED"
        print(f"SEEN {name} {word} {detail} ({time.monotonic() - began:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
