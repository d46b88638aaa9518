"""Test a hook below `jobdb work` whose worker is killed while a question is open: the next attempt asks the same."""

from __future__ import annotations

import json
import os
import shlex
import signal
from pathlib import Path

from jobdb import JobStatus, Registry
from jobdb.hooks.configuration import HookOptions, hook_command
from jobdb.hooks.payload import Agent, HookEvent
from tests.support.agent.fleet import WorkerProcess, jobdb_work, worker_environment
from tests.support.hooks.agents import shell_call
from tests.support.hooks.kills import command_folder
from tests.support.keys import MASTER_KEY
from tests.support.requirements import on_linux
from tests.support.waiting import wait_until

pytestmark = on_linux("has /proc")

AGENT = """\
echo "$JOBDB_ATTEMPT" >> begun
out=$(printf %s {payload} | sed "s/call_1/call_$JOBDB_ATTEMPT/" | {hook}) || exit 75
case $out in *deny*) exit 1 ;; esac
echo "$JOBDB_ATTEMPT" >> acted
"""


def test_a_killed_workers_question_is_asked_again_by_the_next_attempt(tmp_path: Path, database: Path) -> None:
    hook = hook_command(Agent.CODEX, HookEvent.PRE_TOOL_USE, HookOptions(wait_sec=60))
    payload = json.dumps(shell_call("codex", "rm -rf build", "call_1"))
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "agent.sh").write_text(AGENT.format(payload=shlex.quote(payload), hook=hook))
    path = f"{command_folder(tmp_path)}:{os.environ['PATH']}"
    # The worker takes JOBDB_KEY out of the environment of agents; a hook has the key file of the worker's user.
    key_file = tmp_path / "key"
    key_file.touch(mode=0o600)
    key_file.write_text(MASTER_KEY)
    environment = worker_environment(tmp_path, f"sqlite:///{database}", PATH=path, JOBDB_KEY_FILE=str(key_file))
    del environment["JOBDB_KEY"]
    command = jobdb_work("--agent", "codex", "--lease-sec", 2, "--log-dir", tmp_path / "logs", "--", "sh", "agent.sh")
    first, second = (WorkerProcess(command, environment, folder, tmp_path / f"{name}.out") for name in ("one", "two"))
    with Registry.open(database) as registry:
        registry.register(agent="codex", prompt="p", job_id="job-1")
        first.start()
        try:
            (question,) = wait_until(lambda: registry.questions(job_id="job-1"))
            first.kill()
            second.start()
            wait_until(lambda: any(asked.attempt == 2 for asked in registry.questions(job_id="job-1")))
            registry.answer("job-1", "allow", by="ann", key=question.key)
            wait_until(lambda: registry.get("job-1").status is JobStatus.COMPLETED)
            second.send(signal.SIGTERM)
            assert second.wait(30) == 0
        finally:
            first.send(signal.SIGKILL)
            second.send(signal.SIGKILL)
        assert len(registry.questions(job_id="job-1", open_only=False)) == 1
    assert (folder / "begun").read_text() == "1\n2\n"
    assert (folder / "acted").read_text() == "2\n"
