"""Test the commands claim, renew, release, publish, complete, fail, reap, prune and stats."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from jobdb.core.protocol import parse, verify


def test_claim_returns_the_first_job_of_the_queue(cli: Any) -> None:
    first = cli.register()
    urgent = cli.register("--priority", "5")
    assert cli("claim").out.strip() == urgent
    claimed = cli("claim", "--agent", "codex", "--worker", "w1", "--lease-sec", "600", "--json").json
    assert claimed == cli("show", first, "--json").json
    assert (claimed["job_id"], claimed["attempt"], claimed["worker"]) == (first, 1, "w1")
    assert claimed["status"] == "running" and claimed["lease_expires_at"] > claimed["started_at"]
    nothing = cli("claim", code=1)
    assert nothing.out == "" and "no job is ready" in nothing.err
    assert cli("claim", "--json", code=1).out == ""


def test_claim_by_agent_session_and_job(cli: Any) -> None:
    session = cli.register("--agent-session", "tmux:1")
    human = cli.register(agent="human")
    cli("claim", "--agent", "nobody", code=1)
    assert cli("claim", "--agent", "human").out.strip() == human
    assert cli("claim", "--agent-session", "tmux:1").out.strip() == session
    assert "running" in cli("claim", "--job", session, code=1).err
    cli("claim", "--job", "nosuch", code=2)


def test_a_worker_has_a_name(cli: Any) -> None:
    cli.register()
    cli.register()
    assert ":" in cli("claim", "--json").json["worker"]
    assert cli("claim", "--json", env={"JOBDB_WORKER": "me"}).json["worker"] == "me"


def test_a_lease_may_be_unlimited(cli: Any) -> None:
    cli.register()
    assert cli("claim", "--lease-sec", "0", "--json").json["lease_expires_at"] is None
    cli("claim", "--lease-sec", "-1", code=2)
    cli("claim", "--wait", "-1", code=2)


def test_claim_waits_for_a_job(cli: Any) -> None:
    waiting = cli.start("claim", "--wait", "60")
    time.sleep(0.5)
    job = cli.register()
    out, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, out.decode().strip()) == (0, job)
    assert cli("claim", "--wait", "0.2", code=1).out == ""


def test_renew_and_release_are_fenced(cli: Any) -> None:
    job = cli.register()
    cli("claim", "--lease-sec", "5")
    until = cli("renew", job, "--attempt", "1", "--lease-sec", "5000").out.strip()
    assert cli("show", job, "--json").json["lease_expires_at"] == until
    assert cli("renew", job, "--json", env={"JOBDB_ATTEMPT": "1"}).json["attempt"] == 1
    assert "attempt 2" in cli("renew", job, "--attempt", "2", code=1).err
    assert cli("release", job, "--attempt", "1").out == ""
    assert cli("show", job, "--json").json["status"] == "pending"
    assert cli("claim", "--json").json["attempt"] == 2
    for stale in (("release", job), ("renew", job), ("publish", job, "progress"), ("complete", job), ("fail", job)):
        cli(*stale, "--attempt", "1", code=1)
    assert cli("release", job, "--attempt", "2", "--json").json["status"] == "pending"


def test_publish_prints_the_seq_or_the_wire_payload(cli: Any) -> None:
    job = cli.register()
    assert cli("publish", job, "started").out == "1\n"
    sent = cli("publish", job, "progress", "--detail", "hälf", "--data", '{"pct":50,"x":[1.5]}', "--json")
    assert sent.out.count("\n") == 1
    payload = sent.json
    assert (payload["seq"], payload["event"], payload["detail"]) == (2, "progress", "hälf")
    assert payload["data"]["pct"] == 50 and len(payload["data"]["hmac_sig"]) == 64
    token = cli("token", "show", job).out.strip()
    assert verify(parse(sent.out.rstrip("\n").encode()), token)
    assert cli("events", job, "--wire").lines[1] == sent.out.rstrip("\n")


def test_data_from_a_file_and_from_stdin(cli: Any) -> None:
    job = cli.register()
    (cli.folder / "data.json").write_text('{"from":"file"}')
    assert cli("publish", job, "progress", "--data", "@data.json", "--json").json["data"]["from"] == "file"
    done = cli("publish", job, "progress", "--data", "@-", "--json", input='{"from":"stdin"}')
    assert done.json["data"]["from"] == "stdin"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("progress", "--data", "[1]"),
        ("progress", "--data", "x"),
        ("progress", "--data", '{"n":1e999}'),
        ("progress", "--data", '{"n":123456789012345678901234567890}'),
        ("progress", "--data", "@missing"),
        ("progress", "--attempt", "x"),
        ("progress", "--attempt", "-1"),
        ("progress", "--detail", "x" * 65_537),
        (),
    ],
)
def test_wrong_events_are_refused_and_nothing_is_written(cli: Any, arguments: tuple[str, ...]) -> None:
    job = cli.register()
    assert cli("publish", job, *arguments, code=2).out == ""
    assert cli("show", job, "--json").json["last_seq"] == 0


def test_the_end_is_final(cli: Any) -> None:
    job = cli.register()
    assert cli("complete", job, "--detail", "ok", "--data", '{"n":1}').out == "1\n"
    for late in (("publish", job, "progress"), ("complete", job), ("fail", job)):
        assert "has ended as completed" in cli(*late, code=1).err
    record = cli("show", job, "--json").json
    assert (record["status"], record["detail"], record["last_seq"]) == ("completed", "ok", 1)
    other = cli.register()
    assert cli("fail", other, "--detail", "no", "--json").json["event"] == "error"
    assert cli("show", other, "--json").json["status"] == "error"


def test_reap_requeues_and_ends_jobs(cli: Any) -> None:
    job = cli.register("--priority", "-1")
    idle = cli.register("--idle-timeout-sec", "1", "--priority", "1")
    leased = cli.register("--idle-timeout-sec", "1")
    assert cli("claim", "--lease-sec", "0").out.strip() == idle
    assert cli("claim", "--lease-sec", "600").out.strip() == leased
    assert cli("claim", "--lease-sec", "0.01").out.strip() == job
    time.sleep(1.1)
    reaped = {one["job_id"]: one for one in cli("reap", "--json").json_lines}
    assert reaped[job]["action"] == "returned" and reaped[idle]["action"] == "ended"
    assert set(reaped) == {job, idle}, "a live lease protects"
    assert set(reaped[job]) == {"job_id", "action", "reason"}
    assert cli("reap").out == ""
    cli("claim", "--job", job, "--lease-sec", "0.01")
    time.sleep(0.05)
    assert cli("reap", "--strike-limit", "2").out.split("\t")[:2] == [job, "ended"]
    cli("reap", "--strike-limit", "0", code=2)


def test_prune_deletes_only_old_jobs(cli: Any) -> None:
    with cli.open_registry() as registry:
        ended = [registry.register(agent="a", prompt="p").job_id for _ in range(3)]
        for job in ended:
            registry.complete(job)
        running = registry.register(agent="a", prompt="p").job_id
    assert cli("prune", "--older-than", "1h").out == "0\n"
    assert cli("prune", "--older-than", "0", "--json").json == {"deleted": 3}
    assert [line.split("\t")[0] for line in cli("list").lines] == [running]
    for age in ("x", "30", "-1d", "1e3d", "", "d", "30 d", "99999w"):
        cli("prune", "--older-than", age, code=2)
    cli("prune", code=2)


def test_stats_counts(cli: Any) -> None:
    job = cli.register()
    cli.register()
    cli("complete", job)
    cli("accept", "--subscriber", "s", "-", input="x\n", code=1)
    stats = cli("stats", "--json").json
    assert stats["jobs"] == {"pending": 1, "running": 0, "completed": 1, "error": 0, "cancelled": 0}
    assert stats["refusals"] == {"malformed": 1}
    assert "malformed" in "\n".join(cli("stats").lines)
    assert "COMPLETED" in cli.run_in_terminal("stats")


def test_eight_processes_publish_to_one_job(cli: Any) -> None:
    job = cli.register()
    running = [cli.start("publish", job, "progress", "--json") for _ in range(8)]
    payloads = [json.loads(process.communicate(timeout=120)[0]) for process in running]
    assert sorted(payload["seq"] for payload in payloads) == list(range(1, 9))
