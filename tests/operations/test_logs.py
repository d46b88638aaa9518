"""Test the log: durations of verbs and waits, with attributes for programs, and never a secret."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading

import pytest

from jobdb import Busy, InvalidInput, UnknownJob
from jobdb.model import Broker
from tests.support.workspace import Workspace

PASSWORD = "the-brokers-password"


def test_very_verbose_shows_durations(workspace: Workspace) -> None:
    workspace.jobdb("init")
    done = workspace.sh("jobdb -vv register --agent codex p")
    assert done.returncode == 0 and len(done.stdout.split()) == 1
    assert "jobdb: DEBUG: jobdb.verbs: register: ok after " in done.stderr
    assert "wrote: waited " in done.stderr and " ms" in done.stderr
    for quiet in ("", "-v "):
        assert "jobdb.verbs" not in workspace.sh(f"jobdb {quiet}register --agent codex p").stderr
    assert workspace.sh("jobdb -vv doctor").returncode == 0


def test_log_records_have_attributes(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "jobdb")
    with workspace.registry() as registry:
        job = registry.register(agent="codex", prompt="p")
        with pytest.raises(UnknownJob):
            registry.get("no-such-job")
        registry.engine.store.wait_for_change(registry.engine.store.data_version(), 0.01)
    verbs = {record.verb: record for record in caplog.records if hasattr(record, "verb")}
    assert verbs["register"].outcome == "ok" and verbs["register"].duration_ms > 0
    assert verbs["get"].outcome == "UnknownJob"
    assert verbs["close"].outcome == "ok" and verbs["close"].duration_ms > 0  # no verb, but with a checkpoint
    wrote = next(record for record in caplog.records if hasattr(record, "waited_ms"))
    assert wrote.waited_ms >= 0 and wrote.worked_ms > 0 and wrote.committed_ms > 0
    waits = [record for record in caplog.records if getattr(record, "wait", None) == "news"]
    assert waits and waits[0].duration_ms >= 10
    assert job.job_id not in caplog.text


def test_a_wait_for_another_writer_is_logged(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "jobdb")
    with workspace.registry() as holder, workspace.registry(busy_timeout_sec=0.2) as other:
        inside, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with holder.engine.store.write():
                inside.set()
                leave.wait(60)

        thread = threading.Thread(target=hold)
        thread.start()
        assert inside.wait(60)
        with pytest.raises(Busy):
            other.register(agent="codex", prompt="p")
        leave.set()
        thread.join(60)
    (refused,) = [record for record in caplog.records if getattr(record, "outcome", "") == "Busy"]
    assert refused.verb == "register" and refused.duration_ms >= 200


def test_no_secret_is_logged(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with workspace.registry() as registry:
        job = registry.register(
            agent="codex", prompt="p", broker=Broker("127.0.0.1", username="u"), broker_password=PASSWORD
        )
        tokens = [registry.tokens.show(job.job_id)]
        registry.tokens.rotate(job.job_id)
        tokens.append(registry.tokens.show(job.job_id))
        given = "given-" + "0123456789abcdef" * 2
        registry.tokens.rotate(job.job_id, token=given)
        event = registry.publish(job.job_id, "progress")
        registry.accept(event.payload, subscriber="me")
        registry.accept(event.payload.replace("progress", "error"), subscriber="me")
        assert registry.engine.broker(job.job_id)[1] == PASSWORD
        with pytest.raises(InvalidInput):
            registry.tokens.rotate(job.job_id, token="too short")
        for entry in registry.engine.outbox(after=0, limit=10):
            registry.engine.mark_delivered([entry.number])
    said = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert len(caplog.records) > 10
    for secret in (*tokens, given, PASSWORD, "too short"):
        assert secret not in said


def test_without_logging_nothing_is_wrapped(workspace: Workspace) -> None:
    code = (
        "import sys\nfrom jobdb import Registry\n"
        "with Registry.open(create=True) as registry:\n"
        "    registry.register(agent='a', prompt='p')\n"
        "    print(type(registry.engine).__name__, 'jobdb.engines.tracing' in sys.modules)\n"
    )
    for before, timed in (
        ("", "Engine False"),
        ("import logging; logging.basicConfig(level=30)\n", "Engine True"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", before + code],
            env=workspace.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.split("\n")[0] == timed
