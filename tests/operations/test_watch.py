"""Test the live view: what is drawn, what keys do, and that the terminal is restored."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from jobdb.cli.watch_screen import View
from rich.console import Console, ConsoleDimensions

from jobdb import Registry
from jobdb.model import JobStatus, NewJob
from jobdb.model.times import now_ms
from jobdb.operations.snapshot import snapshot
from tests.support.terminal import Terminal
from tests.support.workspace import Workspace

SMALL = ConsoleDimensions(80, 24)
LARGE = ConsoleDimensions(120, 24)


@pytest.fixture
def registry(workspace: Workspace) -> Iterator[Registry]:
    """A registry with three running jobs (one asks, one is past its idle limit) and a pending one."""
    moment = now_ms() - 600_000
    with workspace.registry(clock=lambda: moment) as opened:
        for name, limit in (("calm", 0), ("silent", 60), ("asking", 0), ("waiting", 0)):
            opened.register(
                job_id=name,
                agent=f"agent-{name}",
                prompt=f"first\nsecond {name}",
                idle_timeout_sec=limit,
                timeout_sec=0,
            )
        opened.publish("calm", "progress", detail="\x1b]0;evil\x07 step")
        opened.publish("silent", "started")
        opened.publish("asking", "permission_required", detail="delete all?")
        moment = now_ms()
        yield opened


def render_lines(view: View, size: ConsoleDimensions = SMALL) -> list[str]:
    """Return the drawn screen as lines of text; it must fit."""
    console = Console(width=size.width, height=size.height, file=StringIO(), record=True, force_terminal=True)
    console.print(view.draw(), end="")
    lines = console.export_text().rstrip("\n").split("\n")
    assert len(lines) <= size.height and max(map(len, lines)) <= size.width, lines
    return lines


def terminal_output(view: View, registry: Registry) -> str:
    """Return everything that a terminal gets for a refreshed view, control sequences included."""
    file = StringIO()
    view.refresh(registry)
    console = Console(width=LARGE.width, height=LARGE.height, file=file, force_terminal=True)
    console.print(view.draw())
    return file.getvalue()


def render(view: View, registry: Registry, *keys: str, size: ConsoleDimensions = SMALL) -> list[str]:
    view.size = size
    view.refresh(registry)
    for key in keys:
        view.handle_keys(key)
        view.refresh(registry)
    view.refresh(registry)
    return render_lines(view, size)


def jobs_in(lines: list[str]) -> list[str]:
    return [word for line in lines for word in line.split()[:1] if word in ("calm", "silent", "asking", "waiting")]


def test_asking_jobs_come_first_and_jobs_near_a_limit_next(registry: Registry) -> None:
    lines = render(View(SMALL), registry)
    assert re.sub(" +", " ", lines[0].strip()) == "3 running 1 pending 0 error 0 completed 0 cancelled 1 ask"
    assert jobs_in(lines) == ["asking", "silent", "calm"]
    assert "asks: delete all?" in next(line for line in lines if line.startswith("asking"))
    assert "10m/1m" in next(line for line in lines if line.startswith("silent"))
    assert "q quit" in lines[-1]


def test_control_characters_are_escaped(registry: Registry) -> None:
    written = terminal_output(View(LARGE), registry)
    assert "\\x1b]0;evil\\x07" in written and "\x1b]0" not in written and "\x07" not in written


def test_the_name_of_an_agent_cannot_control_the_terminal(registry: Registry) -> None:
    registry.register(job_id="named", agent="a\x1b]0;evil\x07", prompt="p\x1b[2J", timeout_sec=0)
    registry.publish("named", "permission_required")
    view = View(LARGE)
    view.opened_job_id = "named"
    written = terminal_output(view, registry)
    assert "a\\x1b]0;evil" in written and "\x1b]0" not in written and "\x1b[2J" not in written


def test_keys_select_open_and_go_back(registry: Registry) -> None:
    view = View(SMALL)
    assert "delete all?" in "\n".join(render(view, registry, "\r"))
    assert view.opened_job_id == "asking"
    render(view, registry, "\x1b", "\x1b[B\x1b[B", "\x1bOA", "\n")  # two keys at once, two kinds of arrows
    assert view.opened_job_id == "silent"
    render(view, registry, "h", "G", "\r")
    assert view.opened_job_id == "calm"
    assert "second calm" in "\n".join(render(view, registry))
    view.handle_keys("q")
    assert view.quit_requested


def test_the_selected_job_stays_selected_when_the_order_changes(registry: Registry) -> None:
    view = View(SMALL)
    render(view, registry, "j")
    registry.publish("asking", "progress")  # asks no longer, so the chosen one moves to the top
    assert jobs_in(render(view, registry))[0] == "silent"
    render(view, registry, "\r")
    assert view.opened_job_id == "silent"


def test_a_job_pruned_while_it_is_shown(registry: Registry) -> None:
    view = View(SMALL)
    render(view, registry, "\r")
    registry.cancel("asking")
    assert registry.prune(older_than_sec=0, now_ms=now_ms() + 60_000) == ["asking"]
    assert jobs_in(render(view, registry)) == ["silent", "calm"]


def test_filters(registry: Registry) -> None:
    view = View(SMALL)
    assert jobs_in(render(view, registry, "f")) == ["waiting"] and view.status is JobStatus.PENDING
    render(view, registry, "f", "f", "f", "f")
    assert jobs_in(render(view, registry, "/SILx\x7f")) == ["silent"]
    assert view.filter_active
    render(view, registry, "q\r")  # a letter during text input
    assert not view.filter_active and not view.quit_requested and view.agent == "SILq"
    assert "no running job of an agent whose name contains 'SILq'" in "\n".join(render(view, registry))


def ask(registry: Registry, job_id: str, key: str, **options: Any) -> None:
    registry.ask(job_id, f"May I {key}?\x1b[2J", key=key, **options)


def test_a_question_is_answered_after_a_confirmation(registry: Registry) -> None:
    ask(registry, "calm", "build")
    view = View(LARGE)
    lines = render(view, registry, size=LARGE)
    assert sorted(jobs_in(lines)[:2]) == ["asking", "calm"] and "a allow" not in lines[-1]
    render(view, registry, "/calm\r")
    assert "a allow · d deny" in render(view, registry)[-1]
    for keys in ("an", "aa", "a\x1b", "dj", "d\r", "okay"):  # anything but y, and a y before the question is shown
        view.handle_keys(keys)
        view.send_answer(registry, by="ann")
    assert len(registry.questions()) == 1
    lines = render(view, registry, "d", size=LARGE)
    assert lines[-1].startswith("deny? y: yes, other keys: no · calm/build: May I build?\\x1b[2J")
    view.handle_keys("y")
    view.send_answer(registry, by="ann")
    assert "answered question build of job calm with deny" in render_lines(view, LARGE)[-1]
    (question,) = registry.questions(open_only=False)
    assert (question.answer, question.answered_by) == ("deny", "ann")
    assert "answered:" in next(line for line in render(view, registry) if line.startswith("calm"))


def test_an_answer_that_came_too_late_is_told(registry: Registry) -> None:
    ask(registry, "calm", "build")
    view = View(LARGE)
    lines = "\n".join(render(view, registry, "/calm\r", "\r", "a", size=LARGE))
    assert "asks build: May I build?" in lines and "allow? y" in lines
    registry.answer("calm", "deny", by="bob")
    view.handle_keys("y")
    view.send_answer(registry, by="ann")
    assert "'deny' by bob" in render(view, registry, size=ConsoleDimensions(200, 24))[-1]


def test_what_the_keys_cannot_answer(registry: Registry) -> None:
    view = View(LARGE)
    assert "no open question" in "\n".join(render(view, registry, "/calm\r", "a", size=LARGE))
    ask(registry, "calm", "where", choices=["here", "there"])
    assert "here, there" in render(view, registry, "a", size=LARGE)[-1]
    ask(registry, "calm", "why", choices=[])
    assert "several open questions" in render(view, registry, "d", size=LARGE)[-1]
    view.handle_keys("y")
    view.send_answer(registry, by="ann")
    assert len(registry.questions()) == 2


def test_older_events_of_an_open_job(registry: Registry) -> None:
    for number in range(60):
        registry.publish("calm", "progress", detail=f"step {number:03}")
    view = View(SMALL)
    lines = "\n".join(render(view, registry, "G", "\r"))
    assert "step 059" in lines and "step 030" not in lines
    assert "step 030" in "\n".join(render(view, registry, *["k"] * 25))
    assert "step 059" in "\n".join(render(view, registry, "\x1b[F"))


def test_refusals_appear_as_they_happen(registry: Registry) -> None:
    view = View(SMALL)
    render(view, registry)
    payload = registry.events("calm")[0].payload
    registry.accept(payload.replace("step", "leap"), subscriber="me")
    registry.accept(registry.publish("calm", "progress").payload, subscriber="me")
    registry.accept(payload, subscriber="me")
    lines = render(view, registry)
    assert "refused: 1 bad_signature (+1)  1 replayed (+1)" in lines[-3]
    assert lines[-2].startswith("replayed 0s ago: job calm seq 1")


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (200, 60), (40, 10)])
def test_a_thousand_jobs_fit_every_terminal(registry: Registry, size: tuple[int, int]) -> None:
    registry.register_many([NewJob(agent="漢字" * 30, prompt="p", job_id=f"{n:03}" * 40) for n in range(1000)])
    view = View(SMALL)
    lines = render(view, registry, "f", "G", size=ConsoleDimensions(*size))
    assert "of 1001" in lines[-1] and lines[-2].startswith("waiting")  # the oldest is the last


def test_a_snapshot_is_bounded(registry: Registry) -> None:
    registry.register_many([NewJob(agent="a", prompt="p") for _ in range(2500)])
    assert len(snapshot(registry, status=JobStatus.PENDING).jobs) == 2000


@pytest.fixture
def terminal(workspace: Workspace, registry: Registry) -> Iterator[Terminal]:
    """Run ``jobdb watch`` on a separate terminal."""
    command = [sys.executable, "-m", "jobdb.cli", "watch"]
    with Terminal(command, env={**workspace.env, "TERM": "xterm-256color"}, folder=workspace.root) as started:
        yield started


def exit_code(terminal: Terminal) -> int:
    """Wait for the end, check that the terminal is restored, and return the exit code."""
    terminal.read_until(r"\x1b\[\?1049l")
    code = terminal.process.wait(timeout=60)
    assert terminal.modes_are_restored()
    return code


def test_on_a_terminal(terminal: Terminal, registry: Registry) -> None:
    terminal.read_until(r"\x1b\[\?1049h.*asking.*q quit")
    registry.publish("calm", "progress", detail="news")
    terminal.read_until(r"news.*q quit")
    terminal.resize(120, 40)
    terminal.type("\x1b[B")
    terminal.read_until(r"q quit")
    terminal.type("\x1b")
    time.sleep(0.2)
    terminal.type("[B\r")  # a key sequence that a slow connection splits must do no harm
    terminal.read_until(r"Esc back")
    terminal.type("q")
    assert exit_code(terminal) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGINT, 130)])
def test_the_terminal_is_restored_after_a_signal(terminal: Terminal, number: signal.Signals, code: int) -> None:
    terminal.read_until(r"q quit")
    terminal.process.send_signal(number)
    assert exit_code(terminal) == code


def test_without_a_terminal(workspace: Workspace, registry: Registry) -> None:
    once = workspace.sh("jobdb watch --once")
    assert once.returncode == 0 and "asks: delete all?" in once.stdout and "\x1b" not in once.stdout
    refused = workspace.sh("jobdb watch")
    assert refused.returncode == 2 and "--once" in refused.stderr
