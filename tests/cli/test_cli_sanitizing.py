"""Test every command on a terminal with a registry full of hostile text: no character controls or hides anything."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jobdb.cli.commands import SECTIONS

from jobdb import Registry
from jobdb.core.protocol import build
from jobdb.model import Broker, EventKind, WorkBatch, WorkerInfo
from jobdb.system.terminal import is_displayable

HOSTILE_TEXT = (
    "\x1b]0;P\x07\x1b[31mRED\x9b32m\x9d0;C\x9c\x7f"
    "\u202egnp\u2066\u200f\u061c\u200b\u200d\ufeff\xad\U000e0041\r\x08\u2028\u3164"
)
LONG_HOSTILE_TEXT = HOSTILE_TEXT + "\nline\x0b\x0c\x85" + "".join(map(chr, [*range(1, 32), *range(0x7F, 0xA0)]))

WORKED = "w" + HOSTILE_TEXT
HOSTILE_AGENT = [
    "sh",
    "-c",
    'cat; printf "progress %s\\n%s\\n" "$0" "$0" > "$JOBDB_EVENTS"; echo "$0" >&2; exit 1',
    HOSTILE_TEXT,
]

# The words after "jobdb" for each command; {evil} is the hostile text, as a person may paste it.
COMMANDS: dict[str, list[list[str]]] = {
    "register": [
        ["register", "-a", HOSTILE_TEXT, LONG_HOSTILE_TEXT, "--json"],
        ["register", "-a", "x", "p", "--extra", HOSTILE_TEXT],
    ],
    "list": [["list"], ["list", "--json"], ["list", "--agent", HOSTILE_TEXT], ["list", "--status", HOSTILE_TEXT]],
    "show": [["show", "evil"], ["show", "evil", "--json"], ["show", HOSTILE_TEXT]],
    "events": [["events", "evil"], ["events", "evil", "--json"], ["events", "evil", "--wire"]],
    "wait": [["wait", "evil", "--json"], ["wait", HOSTILE_TEXT]],
    "questions": [["questions"], ["questions", "--all"], ["questions", "evil", "--json"], ["questions", HOSTILE_TEXT]],
    "answer": [
        ["answer", "asking/" + HOSTILE_TEXT, HOSTILE_TEXT, "--by", HOSTILE_TEXT, "--message", LONG_HOSTILE_TEXT],
        ["answer", "asking/" + HOSTILE_TEXT, "again"],
        ["answer", "evil", HOSTILE_TEXT],
        ["answer", HOSTILE_TEXT, "allow"],
        ["questions", "--all"],
    ],
    "cancel": [["cancel", "free2", "--reason", HOSTILE_TEXT, "--json"], ["cancel", "evil", "--reason", HOSTILE_TEXT]],
    "work": [
        ["work", "--agent", WORKED, "--worker", HOSTILE_TEXT, "--once", "--log-dir", "printed", "--", *HOSTILE_AGENT],
        ["work", "--agent", WORKED, "--worker", HOSTILE_TEXT, "--once", "--log-dir", "printed", "--", *HOSTILE_AGENT],
        ["work", "--agent", WORKED, "--once", "--log-dir", "printed", "--json", "--", *HOSTILE_AGENT],
        [
            "work",
            "--agent",
            WORKED,
            "--once",
            "--log-dir",
            "printed",
            "--before",
            f"echo '{HOSTILE_TEXT}'; false",
            "--",
            "true",
        ],
        ["work", "--agent", WORKED, "--once", "--log-dir", HOSTILE_TEXT, "--workdir", HOSTILE_TEXT, "--", "true"],
        ["work", "--agent", WORKED, "--once", "--", HOSTILE_TEXT],
    ],
    "claim": [
        ["claim", "--job", "free", "--worker", HOSTILE_TEXT, "--json"],
        ["claim", "--job", "free5", "--worker", HOSTILE_TEXT, "--export"],
    ],
    "renew": [["renew", "free", "--attempt", "1", "--json"], ["renew", "evil", "--attempt", "1"]],
    "publish": [
        ["publish", "free", "progress", "--attempt", "1", "--detail", LONG_HOSTILE_TEXT, "--json"],
        ["publish", "free", "progress"],
        ["publish", "free", HOSTILE_TEXT],
        ["publish", HOSTILE_TEXT],
    ],
    "release": [
        ["release", "free", "--attempt", "1", "--json"],
        ["release", "free5", "--attempt", "1", "--delay", "600", "--reason", HOSTILE_TEXT, "--json"],
        ["claim", "--job", "free5"],
        ["list"],
        ["show", "free5"],
    ],
    "ask": [
        ["ask", "asking", LONG_HOSTILE_TEXT, "--key", "k" + HOSTILE_TEXT, "--choices", f"{HOSTILE_TEXT},deny"],
        ["ask", "asking", "again", "--key", "k" + HOSTILE_TEXT, "--wait", "0", "--default", "deny"],
        ["ask", "evil", HOSTILE_TEXT, "--choices", HOSTILE_TEXT + ",,"],
        ["ask", "evil", HOSTILE_TEXT, "--default", HOSTILE_TEXT],
        ["ask", HOSTILE_TEXT, HOSTILE_TEXT],
        ["list"],
        ["show", "asking"],
        ["stats"],
    ],
    "complete": [["complete", "free3", "--detail", HOSTILE_TEXT, "--json"]],
    "fail": [["fail", "free4", "--detail", HOSTILE_TEXT, "--data", json.dumps({HOSTILE_TEXT: HOSTILE_TEXT}), "--json"]],
    "mcp": [
        ["--db", f"db/{HOSTILE_TEXT}-none.db", "mcp", "--worker", HOSTILE_TEXT],
        ["mcp", HOSTILE_TEXT],
    ],
    "accept": [
        ["accept", "-s", HOSTILE_TEXT, "payloads"],
        ["accept", "-s", HOSTILE_TEXT, "payloads", "--json"],
        ["accept", HOSTILE_TEXT],
    ],
    "subscribe": [
        ["subscribe", "evil", "-s", HOSTILE_TEXT],
        ["subscribe", "evil", "-s", "other", "--json"],
        ["subscribe", "evil", "-s", "third", "--exec", "cat"],
        ["subscribe", "evil", "-s", "fourth" + HOSTILE_TEXT, "--exec", "exit 3", "--retries", "0"],
    ],
    "logs": [
        ["logs", "logged", "--follow"],
        ["logs", "logged", "--json"],
        ["logs", "logged", "--all"],
        ["logs", "far"],
        ["logs", HOSTILE_TEXT],
    ],
    "workers": [["workers"], ["workers", "--json"]],
    "watch": [["watch", "--once"], ["watch", "--once", "--agent", HOSTILE_TEXT]],
    "stats": [["stats"], ["stats", "--json"], ["stats", "--format", "prometheus"], ["stats", "--format", HOSTILE_TEXT]],
    "query": [
        ["query", "SELECT * FROM v_jobs"],
        ["query", "SELECT job_id, agent, detail FROM v_jobs", "--format", "csv"],
        ["query", "SELECT agent, prompt FROM v_jobs", "--json"],
        ["query", "SELECT * FROM v_events", "--format", "csv"],
        ["query", "SELECT * FROM v_subscriptions"],
        ["query", "SELECT * FROM v_refusals"],
        ["query", f'SELECT 1 AS "{HOSTILE_TEXT}"'],
        ["query", HOSTILE_TEXT],
    ],
    "ticket": [["ticket", "evil", "-o", "t", "--json"]],
    "relay": [["relay", "--once", "--timeout-sec", "0.1"], ["relay", "--ticket", HOSTILE_TEXT]],
    "hook": [
        ["hook", HOSTILE_TEXT],
        ["hook", "codex"],
        ["hook", "codex", "--policy", HOSTILE_TEXT],
        ["hook", "codex", "--without-job", HOSTILE_TEXT],
    ],
    "setup": [
        ["setup", HOSTILE_TEXT],
        ["setup", "codex", "--project", HOSTILE_TEXT],
        ["setup", "codex", "--project", "hostile", "--dry-run"],
        ["setup", "codex", "--project", "hostile"],
        ["setup", "claude-code", "--policy", HOSTILE_TEXT],
    ],
    "init": [["--db", f"db/{HOSTILE_TEXT}.db", "init"], ["init", "--json"]],
    "migrate": [["--db", f"db/{HOSTILE_TEXT}-none.db", "migrate"]],
    "doctor": [
        ["doctor"],
        ["doctor", "--json"],
        ["doctor", "--full"],
        ["--db", f"db/{HOSTILE_TEXT}-none.db", "doctor"],
    ],
    "probe": [["probe", HOSTILE_TEXT]],
    "identity": [["identity"], ["identity", "--json"], ["--db", f"db/{HOSTILE_TEXT}-none.db", "identity"]],
    "trust": [["trust"], ["trust", HOSTILE_TEXT], ["trust", "--json"]],
    "backup": [["backup", f"db/{HOSTILE_TEXT}-saved"], ["backup", "db/saved"]],
    "restore": [["restore", HOSTILE_TEXT], ["restore", "db/saved"]],
    "reap": [["reap"], ["reap", "--json"]],
    "prune": [["prune", "--older-than", HOSTILE_TEXT]],
    "token": [["token", "list", "evil"], ["token", "show", HOSTILE_TEXT], ["token", "revoke", "evil", "9", "--json"]],
    "import": [["import", "old"], ["import", "old", "--json"], ["import", HOSTILE_TEXT]],
    "export": [
        ["export", "--format", "csv"],
        ["export", "--format", "ndjson"],
        ["export", "old"],
        ["export", HOSTILE_TEXT],
    ],
    "copy": [["copy", HOSTILE_TEXT, HOSTILE_TEXT]],
    "ui": [["--db", f"{HOSTILE_TEXT}-none.db", "ui"]],
    "": [
        [HOSTILE_TEXT],
        ["--" + HOSTILE_TEXT],
        ["-vv", "list"],
        ["show", "evil", HOSTILE_TEXT],
        ["--busy-timeout", HOSTILE_TEXT, "list"],
    ],
}


def add_hostile_worker(registry: Registry, folder: Path) -> None:
    """Let a worker with hostile names run two jobs, of which one has a log."""
    registry.add_worker(
        WorkerInfo(
            worker_id="w1", name=HOSTILE_TEXT, agent=HOSTILE_TEXT, host=HOSTILE_TEXT, machine="", boot_id="",
            pid_namespace="", pid=1, pid_started=1, slots=2, log_dir=str(folder / HOSTILE_TEXT), lease_sec=1e6,
        )
    )  # fmt: skip
    for job_id in ("logged", "far"):
        registry.register(agent=HOSTILE_TEXT, prompt="p", job_id=job_id, priority=9)
        batch = WorkBatch(
            worker_id="w1", worker=HOSTILE_TEXT, claim=1, log_dir=str(folder / HOSTILE_TEXT), lease_sec=1e6
        )
        assert [claimed.job_id for claimed in registry.work_batch(batch).claims] == [job_id]
    (log,) = (Path(attempt.log or "") for attempt in registry.attempts("logged"))
    log.parent.mkdir(parents=True)
    log.write_bytes(LONG_HOSTILE_TEXT.encode() + b"\xff\n" + HOSTILE_TEXT.encode())
    registry.complete("logged", attempt=1)


@pytest.fixture(scope="module")
def hostile_cli(module_cli: Any) -> Any:
    cli = module_cli
    with cli.open_registry() as registry:
        broker = Broker("127.0.0.1", 1, False, HOSTILE_TEXT, False)
        registry.register(
            agent="a" + HOSTILE_TEXT, prompt=LONG_HOSTILE_TEXT, job_id="evil", agent_session=HOSTILE_TEXT,
            extra={HOSTILE_TEXT: [LONG_HOSTILE_TEXT]}, broker=broker,
            expected_artifacts=[HOSTILE_TEXT], idempotency_key=HOSTILE_TEXT,
        )  # fmt: skip
        registry.claim(worker=HOSTILE_TEXT, job_id="evil")
        registry.publish(
            "evil",
            "permission_required",
            detail=LONG_HOSTILE_TEXT,
            data={HOSTILE_TEXT: {HOSTILE_TEXT: LONG_HOSTILE_TEXT}},
            attempt=1,
        )
        registry.accept({"x": HOSTILE_TEXT}, subscriber=HOSTILE_TEXT)
        token = registry.tokens.show("evil", kid=1)
        forged = build(
            job_id="evil", seq=1, event=EventKind.PROGRESS, timestamp="2026-06-19T09:32:00Z",
            detail=HOSTILE_TEXT, data={},
            attempt=1, kid=1, token=token,
        )  # fmt: skip
        next(iter(registry.subscribe("evil", subscriber=HOSTILE_TEXT, idle_timeout_sec=5)))
        registry.accept(forged.text, subscriber=HOSTILE_TEXT)
        registry.publish("evil", "error", detail=LONG_HOSTILE_TEXT, attempt=1)
        for number in ("", 2, 3, 4, 5):
            registry.register(agent=HOSTILE_TEXT, prompt=LONG_HOSTILE_TEXT, job_id=f"free{number}")
        for number in range(4):
            registry.register(agent=WORKED, prompt=LONG_HOSTILE_TEXT, job_id=f"worked{number}", max_attempts=2)
        registry.register(agent=HOSTILE_TEXT, prompt=LONG_HOSTILE_TEXT, job_id="asking")
        registry.ask("asking", LONG_HOSTILE_TEXT, key=HOSTILE_TEXT, choices=[HOSTILE_TEXT, "no"])
        add_hostile_worker(registry, cli.folder / "logs")
        payloads = [event.payload for event in registry.events("evil")]
    (cli.folder / "payloads").write_text(
        "\n".join([*payloads, json.dumps({"job_id": HOSTILE_TEXT}), HOSTILE_TEXT]) + "\n"
    )
    config = cli.folder / "hostile" / ".codex" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("# \u202e\u200b\U000e0041\x85 \u2028\nx = 1\n")
    jobs = cli.folder / "old" / ".mam" / "jobs"
    jobs.mkdir(parents=True)
    (jobs / f"{HOSTILE_TEXT}.json").write_text("{")
    record = {
        "schema_version": 1,
        "job_id": "j1",
        "status": HOSTILE_TEXT,
        "prompt": HOSTILE_TEXT,
        "agent": HOSTILE_TEXT,
    }
    (jobs / "j1.json").write_text(json.dumps(record))
    # No verb writes such text, but a file that came from elsewhere may contain it.
    with sqlite3.connect(cli.database) as connection:
        connection.execute("UPDATE refusals SET reason = ?", (HOSTILE_TEXT,))
        connection.execute("UPDATE jobs SET topic_prefix = ?", ("t/" + HOSTILE_TEXT,))
    connection.close()
    return cli


def strip_terminal_codes(written: str) -> str:
    """Return the output on the terminal without colours and cursor movements."""
    assert "\x1b[31mRED" not in written
    written = re.sub(r"\r(?: {40}\r|\d+ of \d+ \w+)", "", written)  # the counter of long work
    written = re.sub(r"\r(?=\x1b\[(?:2K|\d*A))", "", written)  # to the start of a line that is drawn again
    return re.sub(r"\x1b\[\??[0-9;]*[A-HJKSTfhlm]", "", written).replace("\r\n", "\n")


def assert_sanitized(written: str) -> None:
    wrong = {
        f"U+{ord(one):04X}" for one in strip_terminal_codes(written) if one not in "\n\t" and not is_displayable(one)
    }
    assert not wrong, f"{wrong} in {written!r}"


def test_every_command_is_covered() -> None:
    assert COMMANDS.keys() - {""} == {name for section in SECTIONS.values() for name in section}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_hostile_text_reaches_a_terminal(hostile_cli: Any, name: str) -> None:
    for number, arguments in enumerate(COMMANDS[name]):
        # A terminal without colours is a terminal too.
        term = "dumb" if number % 2 else "xterm-256color"
        codes = (0, 1, 2, 3, 5, 126, 127)
        keys = ("Replace it?", "n\n") if arguments == ["restore", "db/saved"] else ("", "")
        written = hostile_cli.run_in_terminal(*arguments, env={"TERM": term}, codes=codes, columns=400, keys=keys)
        if number == 0 and name not in ("relay", "reap", "prune", "migrate", "copy", "ui", "init", "token", "restore"):
            assert written.strip(), arguments
        assert_sanitized(written)


def test_no_hostile_text_reaches_the_live_view(hostile_cli: Any) -> None:
    for keys in ("q", "\rq", "f\rq", "ff\rq", "fff\rq", f"/a{HOSTILE_TEXT}\rq"):
        assert_sanitized(hostile_cli.run_in_terminal("watch", keys=("Enter open", keys), codes=(0,), columns=200))


def test_a_bug_and_its_traceback_are_shown_sanitized(hostile_cli: Any) -> None:
    assert_sanitized(hostile_cli.run_in_terminal("show", HOSTILE_TEXT, env={"JOBDB_DEBUG": "1"}, codes=(2,)))


def test_the_wire_is_exact_in_a_pipe_and_the_same_json_on_a_terminal(hostile_cli: Any) -> None:
    with hostile_cli.open_registry() as registry:
        payloads = [event.payload for event in registry.events("evil")]
    assert hostile_cli("events", "evil", "--wire").out == "".join(f"{payload}\n" for payload in payloads)
    assert not all(map(is_displayable, payloads[0]))
    shown = hostile_cli.run_in_terminal("events", "evil", "--wire").replace("\r\n", "\n")
    assert [json.loads(line) for line in shown.splitlines()] == [json.loads(payload) for payload in payloads]
    verdicts = hostile_cli("accept", "-s", "from the terminal", "--json", input=shown, code=0).json_lines
    assert [verdict["verdict"] for verdict in verdicts] == ["accepted"] * len(payloads)


def test_json_has_the_same_meaning_in_a_pipe_and_on_a_terminal(hostile_cli: Any) -> None:
    piped = hostile_cli("show", "evil", "--json")
    assert piped.json["prompt"] == LONG_HOSTILE_TEXT and piped.json["extra"] == {HOSTILE_TEXT: [LONG_HOSTILE_TEXT]}
    assert all(is_displayable(one) for one in piped.out.rstrip("\n"))


def test_csv_is_exact_in_a_pipe(hostile_cli: Any) -> None:
    output = hostile_cli("query", "SELECT agent, prompt FROM v_jobs WHERE job_id = 'evil'", "--format", "csv").out
    assert list(csv.reader(io.StringIO(output, newline="")))[1] == ["a" + HOSTILE_TEXT, LONG_HOSTILE_TEXT]


def test_a_log_message_is_one_line(cli: Any) -> None:
    code = (
        "import sys; sys.argv = ['jobdb', '-v', 'list']\n"
        "import jobdb.registry, logging\n"
        "from jobdb.cli import context\n"
        "kept = context.open_registry\n"
        "before = jobdb.registry.Registry.all_jobs\n"
        "def jobs(self, **wanted):\n"
        "    logging.getLogger('jobdb.x').info('agent %s', 'a\\njobdb: ERROR: jobdb.y: \\x1b[2Jforged')\n"
        "    return before(self, **wanted)\n"
        "jobdb.registry.Registry.all_jobs = jobs\n"
        "from jobdb.cli import main; main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=cli.env, cwd=cli.folder, capture_output=True, text=True)
    assert r"jobdb: INFO: jobdb.x: agent a\njobdb: ERROR: jobdb.y: \x1b[2Jforged" in done.stderr.splitlines()
