"""Test completion in real shells on a database with text that attacks shells: none of it is executed or offered."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from jobdb.cli.app import root_command

from jobdb.core.protocol import JOB_ID_PATTERN
from tests.support.requirements import require_program
from tests.support.terminal import Terminal

TIMEOUT_SEC = 60
PLAIN = ("j1", "a:b", "x_y.z@h-1")
# Values may be evaluated at different places of the shell's syntax: bare, in either kind of quotes, after an escape.
HOSTILE = [
    wrap.format(run)
    for run in ("$(echo>{0})", "`echo>{0}`", "${{(e):-$(echo>{0})}}", "=(echo>{0})", "<(echo>{0})", "; echo>{0};")
    for wrap in ("{}", "\\{}", "'{}", '"{}', "\n{}", "a]{}", "a)){}", "x:{}", "'\"\\\\{}")
]


@pytest.fixture
def hostile_cli(cli: Any) -> Any:
    """A database with three safe ids, and hostile text wherever text is possible; the shell's ``jobdb`` is this one."""
    tools = cli.folder / "bin"
    tools.mkdir()
    (tools / "jobdb").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m jobdb.cli "$@"\n')
    (tools / "jobdb").chmod(0o755)
    cli.env["PATH"] = f"{tools}:{os.environ['PATH']}"
    texts = [text.format("PWNED") for text in HOSTILE]
    with cli.open_registry() as registry:
        for number, text in enumerate(texts):
            job_id = PLAIN[number] if number < len(PLAIN) else f"evil{number}"
            registry.register(agent=text, prompt=text, job_id=job_id, agent_session=text, extra={text: text})
    # No verb accepts these ids, but a file that came from elsewhere may contain them.
    with sqlite3.connect(cli.database) as connection:
        for number, text in enumerate(texts):
            connection.execute("UPDATE jobs SET job_id = ? WHERE job_id = ?", (f"e{text}", f"evil{number}"))
    connection.close()
    return cli


def script(cli: Any, shell: str) -> str:
    shown = subprocess.run(
        ["jobdb", "--show-completion", shell],
        env={**cli.env, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        cwd=cli.folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SEC,
    )
    assert shown.returncode == 0
    return shown.stdout


def nothing_was_executed(cli: Any) -> bool:
    return not [path for path in cli.folder.rglob("*") if "PWNED" in path.name]


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Start shells, each on a separate terminal."""
    with ExitStack() as running:

        def start(*command: str, env: dict[str, str], folder: Path) -> Terminal:
            shown = {**env, "TERM": "vt100", "COLUMNS": "200", "LINES": "50"}
            return running.enter_context(Terminal(command, env=shown, folder=folder, columns=200, lines=50))

        yield start


@pytest.mark.parametrize("line", ["show ", "claim --job ", "token show ", "events e"])
def test_tab_in_zsh_runs_nothing_and_offers_safe_ids(
    hostile_cli: Any, line: str, terminal: Callable[..., Terminal]
) -> None:
    require_program("zsh")
    (hostile_cli.folder / "_jobdb").write_text(script(hostile_cli, "zsh"))
    dump = hostile_cli.folder / "dump"
    (hostile_cli.folder / ".zshrc").write_text(
        f"PROMPT='ready> '\nautoload -Uz compinit; compinit -u -d {dump}\nsource ./_jobdb\n"
        "complete-and-say() { zle expand-or-complete; print -n ' TAB-ENDED ' }\n"
        "zle -N complete-and-say; bindkey '^I' complete-and-say\n"
    )
    shell = terminal(
        "zsh", "-i", env={**hostile_cli.env, "ZDOTDIR": str(hostile_cli.folder)}, folder=hostile_cli.folder
    )
    shell.read_until("ready> ")
    shell.type(f"jobdb {line}\t")
    seen = shell.read_until(" TAB-ENDED ")
    if not line.endswith("e"):
        shell.type("\t")
        seen += shell.read_until(" TAB-ENDED ")
        assert "j1" in seen and "x_y.z@h-1" in seen, seen
    assert nothing_was_executed(hostile_cli), seen
    assert "PWNED" not in seen


def test_completion_in_bash_runs_nothing_and_offers_safe_ids(hostile_cli: Any) -> None:
    require_program("bash")
    ask = 'COMP_WORDS=(jobdb show ""); COMP_CWORD=2; _jobdb_completion jobdb; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script(hostile_cli, 'bash')}\n{ask}"],
        env=hostile_cli.env,
        cwd=hostile_cli.folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SEC,
    )
    assert sorted(done.stdout.split("\n")) == ["", *sorted(PLAIN)], done.stderr
    assert nothing_was_executed(hostile_cli)


def test_tab_in_bash_on_a_terminal_runs_nothing(hostile_cli: Any, terminal: Callable[..., Terminal]) -> None:
    require_program("bash")
    (hostile_cli.folder / "rc").write_text("PS1='ready> '\n" + script(hostile_cli, "bash"))
    shell = terminal("bash", "--rcfile", "./rc", "-i", env=hostile_cli.env, folder=hostile_cli.folder)
    shell.read_until("ready> ")
    shell.type("jobdb show \t\t")
    seen = shell.read_until(r"x_y\.z@h-1")
    assert nothing_was_executed(hostile_cli) and "PWNED" not in seen, seen


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
@pytest.mark.parametrize("line", ["show ", "claim --job ", "subscribe ", "list --status "])
def test_completions_contain_no_special_characters(hostile_cli: Any, shell: str, line: str) -> None:
    asked = {
        "_JOBDB_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": f"jobdb {line}",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_WORD_TO_COMPLETE": "",
        "COMP_WORDS": f"jobdb {line}",
        "COMP_CWORD": str(len(line.split()) + 1),
    }
    completed = hostile_cli(env=asked)
    assert completed.err == ""
    words = completed.out.removeprefix("_arguments '*: :((").rstrip("\n").removesuffix("))'")
    assert re.fullmatch(r'[\w.@:\\"\t\n -]+', words, re.ASCII), words
    assert "j1" in words or "pending" in words


def test_an_unreadable_database_completes_to_nothing(cli: Any) -> None:
    cli.register("--job-id", "j1")
    with sqlite3.connect(cli.database) as connection:
        connection.execute("PRAGMA ignore_check_constraints = 1")
        connection.execute("UPDATE jobs SET status = '$(echo>PWNED)'")
    connection.close()
    completed = cli(env={"_JOBDB_COMPLETE": "complete_bash", "COMP_WORDS": "jobdb show ", "COMP_CWORD": "2"})
    assert (completed.out.strip(), completed.err) == ("", "")


def test_no_job_id_contains_special_characters() -> None:
    for character in map(chr, range(0x250)):
        plain = character.isascii() and (character.isalnum() or character in "_.:@-")
        assert bool(re.fullmatch(JOB_ID_PATTERN, f"a{character}")) == plain
    assert not re.fullmatch(JOB_ID_PATTERN, "a\n") and not re.fullmatch(JOB_ID_PATTERN, "-a")


def test_only_the_completion_module_completes_values() -> None:
    """New completions must be added to ``jobdb.cli.completion``, which states the rule."""

    def walk(one: Any) -> Iterator[Any]:
        yield from one.params
        for name in getattr(one, "commands", {}):
            yield from walk(one.commands[name])

    given = [parameter._custom_shell_complete for parameter in walk(root_command())]
    inner = [
        cell.cell_contents
        for found in given
        if found is not None
        for cell in found.__closure__ or ()
        if callable(cell.cell_contents)
    ]
    assert inner
    for function in inner:
        assert getattr(function, "__wrapped__", function).__module__ in ("jobdb.cli.completion", "typer.main")
