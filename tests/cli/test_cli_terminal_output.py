"""Test output on a terminal: what fits, which commands are suggested, and what happens when streams are closed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

from rich.cells import cell_len

from tests.support.paths import ROOT

COMMAND = (sys.executable, "-m", "jobdb.cli")


def plain_lines(written: str) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in written.splitlines()]


def test_at_80_columns_a_list_leaves_room_for_the_prompts(cli: Any) -> None:
    prompt = "a prompt that is long enough to be cut somewhere"
    for agent in ("claude-code", "hermes-agent"):
        cli.register(agent=agent, prompt=prompt)
    waiting = plain_lines(cli.run_in_terminal("list", columns=80))
    assert all(len(line.partition(prompt[:8])[2]) >= 16 for line in waiting[1:3]), waiting
    job = cli("claim", "--lease-sec", "300").out.strip()
    cli("publish", job, "permission_required", "--attempt", "1")
    claimed = plain_lines(cli.run_in_terminal("list", columns=80))
    assert all(heading in claimed[0] for heading in ("LAST", "ATT", "LEASE")) and "asks" in "".join(claimed)
    assert all(prompt[:14] in line and cell_len(line) <= 80 for line in claimed[1:3]), claimed
    assert "permission?" in cli.run_in_terminal("list", columns=120)


def test_a_list_on_a_terminal_that_is_too_narrow_still_names_the_jobs(cli: Any) -> None:
    job = cli.register()
    listed = plain_lines(cli.run_in_terminal("list", columns=40))
    assert any(line.startswith(job) for line in listed)


def test_rows_that_do_not_fit_are_shown_one_by_one(cli: Any) -> None:
    job = cli.register(prompt="two\nlines")
    shown = plain_lines(cli.run_in_terminal("query", "SELECT * FROM v_jobs", columns=80))
    assert f"job_id              {job}" in shown and not any(line.startswith("worker") for line in shown)
    assert plain_lines(cli.run_in_terminal("query", "SELECT job_id FROM v_jobs"))[:2] == ["job_id", job]


def test_each_step_suggests_the_next(cli: Any) -> None:
    job = cli.register()
    assert f"jobdb claim --job {job}" in cli.run_in_terminal("show", job)
    claimed = cli.run_in_terminal("claim", columns=200)
    assert f"jobdb show {job}" in claimed and f"jobdb publish {job} started --attempt 1" in claimed
    assert f"jobdb complete {job} --attempt 1" in cli.run_in_terminal(
        "publish", job, "started", "--attempt", "1", columns=200
    )
    assert f"jobdb events {job} --follow" in cli.run_in_terminal("show", job)
    cli("complete", job, "--attempt", "1")
    assert "jobdb" not in cli.run_in_terminal("show", job).replace("jobdb/jobs", "")


def test_suggested_commands_work_on_the_same_database(cli: Any) -> None:
    job = cli.register()
    cli.env.pop("JOBDB_URL")
    place = f"sqlite:///{cli.database}"
    assert f"jobdb --db {place} claim --job {job}" in cli.run_in_terminal("--db", place, "show", job, columns=300)


def test_a_stale_attempt_is_refused_with_advice(cli: Any) -> None:
    job = cli.register()
    assert f"jobdb show {job}" in cli("publish", job, "progress", "--attempt", "1", code=1).err
    cli("claim")
    assert f"jobdb show {job}" in cli("claim", "--job", job, code=1).err
    assert f"jobdb show {job}" in cli("renew", job, "--attempt", "7", code=1).err


def test_reasons_of_an_import_are_shown_whole(cli: Any) -> None:
    shown = cli.run_in_terminal("import", ROOT / "examples" / "legacy-registry", columns=80)
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", shown).split())
    assert "pending, running, completed, error, cancelled" in text and "…" not in text
    assert "OUTCOME" not in cli.run_in_terminal("export", "out")


def test_a_single_skipped_seq_is_singular(cli: Any) -> None:
    job = cli.register()
    payloads = [cli("publish", job, "progress", "--json").out for _ in range(4)]
    assert cli("accept", "-s", "a", input=payloads[1]).out.endswith("\tskipped seq 1\n")
    assert cli("accept", "-s", "b", input=payloads[3]).out.endswith("\tskipped seqs 1 to 3\n")


def test_revoking_the_token_of_a_job_that_ended_suggests_no_new_one(cli: Any) -> None:
    job = cli.register()
    cli("complete", job)
    assert cli("token", "revoke", job, "1").err == ""


def test_limits_are_shown(cli: Any) -> None:
    assert "limits: 3600 s in all\n" in cli("show", cli.register("--idle-timeout-sec", "0")).out
    assert "limits: none\n" in cli("show", cli.register("--idle-timeout-sec", "0", "--timeout-sec", "0")).out


def test_the_usage_shows_arguments_without_types(cli_without_database: Any) -> None:
    for command, usage in (
        ("show", "Usage: jobdb show [OPTIONS] [JOB]\n"),
        ("cancel", "Usage: jobdb cancel [OPTIONS] JOB\n"),
        ("register", "Usage: jobdb register [OPTIONS] [PROMPT]\n"),
        ("accept", "Usage: jobdb accept [OPTIONS] [FILE]\n"),
    ):
        helped = cli_without_database(command, "--help").out
        assert helped.startswith(usage) and "<str>" not in helped


def test_closed_streams(cli: Any) -> None:
    job = cli.register()

    def run(redirected: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = " ".join([*COMMAND, *words, redirected])
        return subprocess.run(["sh", "-c", command], env=cli.env, cwd=cli.folder, capture_output=True, text=True)

    refused = run(">&-", "register", "--agent", "a", "p")
    assert refused.returncode == 2 and "stdout is closed" in refused.stderr
    assert run("2>&-", "show", job, "--json").stdout == run("", "show", job, "--json").stdout
    assert run("2>&-", "show", "none").returncode == 2
    assert run("<&-", "accept", "-s", "me").returncode == 0
    assert [job["job_id"] for job in cli("list", "--json").json_lines] == [job]


def test_a_pipe_or_a_device_is_not_a_database(cli: Any) -> None:
    os.mkfifo(cli.folder / "pipe")
    for command in ("list", "init", "doctor"):
        done = cli("--db", cli.folder / "pipe", command, code=5)
        assert "a pipe" in done.err + done.out
    cli("--db", ":memory:", "init", code=2)
    cli("--db", "sqlite:///:memory:", "list", code=2)
    assert not (cli.folder / ":memory:").exists()


def test_a_file_that_is_not_a_backup_is_refused(cli: Any) -> None:
    cli.register()
    cli("backup", "saved.db")
    whole = (cli.folder / "saved.db").read_bytes()
    (cli.folder / "cut.db").write_bytes(whole[: len(whole) // 3])
    refused = cli("restore", "cut.db", "--yes", code=5).err
    assert "cut.db is damaged" in refused and "use another backup" in refused and "-wal" not in refused
    assert "is not a file" in cli("restore", cli.folder, code=2).err
    assert "does not exist" in cli("restore", "nowhere.db", code=2).err
    assert "there is no database at" in cli("--db", "elsewhere/jobs.db", "restore", "saved.db").err


def test_bidirectional_controls_are_shown_as_escapes(cli: Any) -> None:
    job = cli.register(prompt="a\u200fb\u061cc\u200ed")
    assert "a\\u200fb\\u061cc\\u200ed" in cli("show", job).out
    assert json.loads(cli("show", job, "--json").out)["prompt"] == "a\u200fb\u061cc\u200ed"
