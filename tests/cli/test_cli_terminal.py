"""A registry full of hostile text, and every command on a terminal: no character of it steers, turns or hides there."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import subprocess
import sys
from typing import Any

import pytest
from jobdb.cli.commands import SECTIONS

from jobdb.core.protocol import build
from jobdb.model import Broker, EventKind
from jobdb.system.terminal import is_plain

EVIL = (
    "\x1b]0;P\x07\x1b[31mRED\x9b32m\x9d0;C\x9c\x7f"
    "\u202egnp\u2066\u200f\u061c\u200b\u200d\ufeff\xad\U000e0041\r\x08\u2028\u3164"
)
LONG = EVIL + "\nline\x0b\x0c\x85" + "".join(map(chr, [*range(1, 32), *range(0x7F, 0xA0)]))

# What follows "jobdb" for each command; {evil} is the text, as a person may paste it.
COMMANDS: dict[str, list[list[str]]] = {
    "register": [["register", "-a", EVIL, LONG, "--json"], ["register", "-a", "x", "p", "--extra", EVIL]],
    "list": [["list"], ["list", "--json"], ["list", "--agent", EVIL], ["list", "--status", EVIL]],
    "show": [["show", "evil"], ["show", "evil", "--json"], ["show", EVIL]],
    "events": [["events", "evil"], ["events", "evil", "--json"], ["events", "evil", "--wire"]],
    "wait": [["wait", "evil", "--json"], ["wait", EVIL]],
    "cancel": [["cancel", "free2", "--reason", EVIL, "--json"], ["cancel", "evil", "--reason", EVIL]],
    "claim": [["claim", "--job", "free", "--worker", EVIL, "--json"]],
    "renew": [["renew", "free", "--attempt", "1", "--json"], ["renew", "evil", "--attempt", "1"]],
    "publish": [["publish", "free", "progress", "--detail", LONG, "--json"], ["publish", "free", EVIL]],
    "release": [["release", "free", "--attempt", "1", "--json"]],
    "complete": [["complete", "free3", "--detail", EVIL, "--json"]],
    "fail": [["fail", "free4", "--detail", EVIL, "--data", json.dumps({EVIL: EVIL}), "--json"]],
    "accept": [["accept", "-s", EVIL, "payloads"], ["accept", "-s", EVIL, "payloads", "--json"], ["accept", EVIL]],
    "subscribe": [
        ["subscribe", "evil", "-s", EVIL],
        ["subscribe", "evil", "-s", "other", "--json"],
        ["subscribe", "evil", "-s", "third", "--exec", "cat"],
        ["subscribe", "evil", "-s", "fourth" + EVIL, "--exec", "exit 3", "--retries", "0"],
    ],
    "watch": [["watch", "--once"], ["watch", "--once", "--agent", EVIL]],
    "stats": [["stats"], ["stats", "--json"], ["stats", "--format", "prometheus"], ["stats", "--format", EVIL]],
    "query": [
        ["query", "SELECT * FROM v_jobs"],
        ["query", "SELECT job_id, agent, detail FROM v_jobs", "--format", "csv"],
        ["query", "SELECT agent, prompt FROM v_jobs", "--json"],
        ["query", "SELECT * FROM v_events", "--format", "csv"],
        ["query", "SELECT * FROM v_subscriptions"],
        ["query", "SELECT * FROM v_refusals"],
        ["query", f'SELECT 1 AS "{EVIL}"'],
        ["query", EVIL],
    ],
    "ticket": [["ticket", "evil", "-o", "t", "--json"]],
    "relay": [["relay", "--once", "--timeout-sec", "0.1"], ["relay", "--ticket", EVIL]],
    "init": [["--db", f"db/{EVIL}.db", "init"], ["init", "--json"]],
    "migrate": [["--db", f"db/{EVIL}-none.db", "migrate"]],
    "doctor": [["doctor"], ["doctor", "--json"], ["doctor", "--full"], ["--db", f"db/{EVIL}-none.db", "doctor"]],
    "probe": [["probe", EVIL]],
    "identity": [["identity"], ["identity", "--json"], ["--db", f"db/{EVIL}-none.db", "identity"]],
    "trust": [["trust"], ["trust", EVIL], ["trust", "--json"]],
    "backup": [["backup", f"db/{EVIL}-saved"], ["backup", "db/saved"]],
    "restore": [["restore", EVIL], ["restore", "db/saved"]],
    "reap": [["reap"], ["reap", "--json"]],
    "prune": [["prune", "--older-than", EVIL]],
    "token": [["token", "list", "evil"], ["token", "show", EVIL], ["token", "revoke", "evil", "9", "--json"]],
    "import": [["import", "old"], ["import", "old", "--json"], ["import", EVIL]],
    "export": [["export", "--format", "csv"], ["export", "--format", "ndjson"], ["export", "old"], ["export", EVIL]],
    "copy": [["copy", EVIL, EVIL]],
    "ui": [["--db", f"{EVIL}-none.db", "ui"]],
    "": [[EVIL], ["--" + EVIL], ["-vv", "list"], ["show", "evil", EVIL], ["--busy-timeout", EVIL, "list"]],
}


@pytest.fixture(scope="module")
def hostile(module_cli: Any) -> Any:
    cli = module_cli
    with cli.library() as registry:
        broker = Broker("127.0.0.1", 1, False, EVIL, False)
        registry.register(
            agent="a" + EVIL, prompt=LONG, job_id="evil", agent_session=EVIL, extra={EVIL: [LONG]}, broker=broker,
            expected_artifacts=[EVIL], idempotency_key=EVIL,
        )  # fmt: skip
        registry.claim(worker=EVIL, job_id="evil")
        registry.publish("evil", "permission_required", detail=LONG, data={EVIL: {EVIL: LONG}})
        registry.accept({"x": EVIL}, subscriber=EVIL)
        token = registry.tokens.show("evil", kid=1)
        forged = build(
            job_id="evil", seq=1, event=EventKind.PROGRESS, timestamp="2026-06-19T09:32:00Z", detail=EVIL, data={},
            attempt=1, kid=1, token=token,
        )  # fmt: skip
        next(iter(registry.subscribe("evil", subscriber=EVIL, idle_timeout_sec=5)))
        registry.accept(forged.text, subscriber=EVIL)
        registry.publish("evil", "error", detail=LONG, attempt=1)
        for number in ("", 2, 3, 4, 5):
            registry.register(agent=EVIL, prompt=LONG, job_id=f"free{number}")
        payloads = [event.payload for event in registry.events("evil")]
    (cli.folder / "payloads").write_text("\n".join([*payloads, json.dumps({"job_id": EVIL}), EVIL]) + "\n")
    jobs = cli.folder / "old" / ".mam" / "jobs"
    jobs.mkdir(parents=True)
    (jobs / f"{EVIL}.json").write_text("{")
    record = {"schema_version": 1, "job_id": "j1", "status": EVIL, "prompt": EVIL, "agent": EVIL}
    (jobs / "j1.json").write_text(json.dumps(record))
    # No verb writes such text, and a file that came from elsewhere may hold it.
    with sqlite3.connect(cli.database) as connection:
        connection.execute("UPDATE refusals SET reason = ?", (EVIL,))
        connection.execute("UPDATE jobs SET topic_prefix = ?", ("t/" + EVIL,))
    connection.close()
    return cli


def seen(written: str) -> str:
    """What has reached the terminal, without the colours and the moves of the cursor."""
    assert "\x1b[31mRED" not in written
    written = re.sub(r"\r(?: {40}\r|\d+ of \d+ \w+)", "", written)  # the counter of long work
    return re.sub(r"\x1b\[\??[0-9;]*[A-HJKSTfhlm]", "", written).replace("\r\n", "\n")


def check(written: str) -> None:
    wrong = {f"U+{ord(one):04X}" for one in seen(written) if one not in "\n\t" and not is_plain(one)}
    assert not wrong, f"{wrong} in {written!r}"


def test_every_command_is_here() -> None:
    assert COMMANDS.keys() - {""} == {name for section in SECTIONS.values() for name in section}


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_hostile_reaches_a_terminal(hostile: Any, name: str) -> None:
    for number, arguments in enumerate(COMMANDS[name]):
        # A terminal without colours is a terminal too.
        term = "dumb" if number % 2 else "xterm-256color"
        codes = (0, 1, 2, 3, 5)
        written = hostile.on_terminal(
            *arguments, env={"TERM": term}, codes=codes, columns=400, keys=("Replace it?", "n\n")
        )
        if number == 0 and name not in ("relay", "reap", "prune", "migrate", "copy", "ui", "init", "token", "restore"):
            assert written.strip(), arguments
        check(written)


def test_nothing_hostile_reaches_the_live_view(hostile: Any) -> None:
    for keys in ("q", "\rq", "f\rq", "ff\rq", "fff\rq", f"/a{EVIL}\rq"):
        check(hostile.on_terminal("watch", keys=("Enter open", keys), codes=(0,), columns=200))


def test_a_defect_and_its_traceback_are_shown_harmlessly(hostile: Any) -> None:
    check(hostile.on_terminal("show", EVIL, env={"JOBDB_DEBUG": "1"}, codes=(2,)))


def test_the_wire_is_exact_in_a_pipe_and_the_same_json_on_a_terminal(hostile: Any) -> None:
    with hostile.library() as registry:
        payloads = [event.payload for event in registry.events("evil")]
    assert hostile("events", "evil", "--wire").out == "".join(f"{payload}\n" for payload in payloads)
    assert not all(map(is_plain, payloads[0]))
    shown = hostile.on_terminal("events", "evil", "--wire").replace("\r\n", "\n")
    assert [json.loads(line) for line in shown.splitlines()] == [json.loads(payload) for payload in payloads]
    verdicts = hostile("accept", "-s", "from the terminal", "--json", input=shown, code=0).json_lines
    assert [verdict["verdict"] for verdict in verdicts] == ["accepted"] * len(payloads)


def test_json_means_the_same_and_can_be_shown_wherever_it_goes(hostile: Any) -> None:
    piped = hostile("show", "evil", "--json")
    assert piped.json["prompt"] == LONG and piped.json["extra"] == {EVIL: [LONG]}
    assert all(is_plain(one) for one in piped.out.rstrip("\n"))


def test_csv_is_exact_in_a_pipe(hostile: Any) -> None:
    told = hostile("query", "SELECT agent, prompt FROM v_jobs WHERE job_id = 'evil'", "--format", "csv").out
    assert list(csv.reader(io.StringIO(told, newline="")))[1] == ["a" + EVIL, LONG]


def test_a_message_of_the_log_is_one_line(cli: Any) -> None:
    code = (
        "import sys; sys.argv = ['jobdb', '-v', 'list']\n"
        "import jobdb.registry, logging\n"
        "from jobdb.cli import settings\n"
        "kept = settings.registry_of\n"
        "before = jobdb.registry.Registry.jobs\n"
        "def jobs(self, **wanted):\n"
        "    logging.getLogger('jobdb.x').info('agent %s', 'a\\njobdb: ERROR: jobdb.y: \\x1b[2Jforged')\n"
        "    return before(self, **wanted)\n"
        "jobdb.registry.Registry.jobs = jobs\n"
        "from jobdb.cli import main; main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=cli.env, cwd=cli.folder, capture_output=True, text=True)
    assert r"jobdb: INFO: jobdb.x: agent a\njobdb: ERROR: jobdb.y: \x1b[2Jforged" in done.stderr.splitlines()
