"""Test the conventions of the command line: help, overview, lazy imports, completion, documentation."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from jobdb.cli.app import root_command
from jobdb.cli.commands import SECTIONS

from jobdb import Acceptance, Verdict
from tests.support.documented import documented_fields
from tests.support.paths import ROOT
from tests.support.scripts import load_script

ROOT_COMMAND = root_command()


def every_command() -> Iterator[tuple[str, Any]]:
    for name, found in ROOT_COMMAND.commands.items():
        if hasattr(found, "commands"):
            yield from ((f"{name} {inner}", command) for inner, command in found.commands.items())
        else:
            yield name, found


COMMANDS = dict(every_command())


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_and_option_has_help(name: str) -> None:
    found = COMMANDS[name]
    assert "\b\nExample" in inspect.cleandoc(found.help), "the help needs an example"
    assert f"jobdb {name}" in re.sub(r"jobdb (--db \S+ )", "jobdb ", found.help)
    for parameter in found.params:
        assert parameter.help, f"{parameter.name} is not explained"
        assert max(map(len, found.help.splitlines())) <= 120


def test_the_overview_matches_each_commands_help() -> None:
    for section in SECTIONS.values():
        for name, entry in section.items():
            assert ROOT_COMMAND.commands[name].help.strip().splitlines()[0] == entry.summary


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_that_shows_something_has_json(name: str) -> None:
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert "--json" in options or name in ("watch", "ui", "mcp", "hook")


def test_help_from_the_real_command(cli_without_database: Any) -> None:
    for arguments in (("--help",), ("-h",)):
        shown = cli_without_database(*arguments).out
        assert all(f"  {name} " in shown for section in SECTIONS.values() for name in section)
    assert "EVENT" in cli_without_database("publish", "--help").out
    assert "rotate" in cli_without_database("token", "-h").out
    assert "Usage" in cli_without_database("token", "list", code=2).err
    assert re.fullmatch(r"jobdb \d+\.\d+\.\d+\n", cli_without_database("--version").out)


def test_wrong_commands_and_options(cli_without_database: Any) -> None:
    assert "'list'" in cli_without_database("lst", code=2).err
    assert "--nonsense" in cli_without_database("list", "--nonsense", code=2).err
    cli_without_database("--nonsense", code=2)
    cli_without_database("token", "nonsense", code=2)
    cli_without_database(code=2)


HEAVY = ("paho", "psycopg", "rich", "sqlite_utils", "pydantic", "asyncio", "datasette", "importlib.metadata")
PROBE = "import sys; from jobdb.cli import main\ntry:\n main()\nfinally: print(*sys.modules, file=sys.stderr)"


@pytest.mark.parametrize(
    ("arguments", "also"),
    [
        (("--help",), ("cryptography", "apsw", "jobdb.cli.publish", "sqlite3")),
        (
            ("publish", "JOB", "progress"),
            ("sqlite3", "jobdb.cli.jobs", "jobdb.legacy", "jobdb.filesystem.probe"),
        ),
        (
            ("claim",),
            ("sqlite3", "cryptography", "jobdb.cli.publish", "jobdb.legacy", "jobdb.filesystem.probe"),
        ),
        (("list",), ("sqlite3", "cryptography", "jobdb.legacy")),
    ],
)
def test_a_command_imports_only_what_it_uses(cli: Any, arguments: tuple[str, ...], also: tuple[str, ...]) -> None:
    job = cli.register()
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *(job if word == "JOB" else word for word in arguments)],
        env=cli.env,
        cwd=cli.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    loaded = set(done.stderr.split())
    assert not loaded & {*HEAVY, *also}


@pytest.mark.parametrize(
    ("words", "offered"),
    [("jobdb sh", "show"), ("jobdb token ro", "rotate"), ("jobdb list --status ru", "running")],
)
def test_the_shell_completes(cli: Any, words: str, offered: str) -> None:
    assert offered in complete(cli, words)


def test_the_shell_completes_job_ids_and_events(cli: Any) -> None:
    job = cli.register("--job-id", "my-first-job")
    assert job in complete(cli, "jobdb show my-")
    assert complete(cli, "jobdb show other") == []
    assert "permission_required" in complete(cli, f"jobdb publish {job} per")
    assert job in complete(cli, f"jobdb --db {cli.database} show my", JOBDB_URL="sqlite:///elsewhere.db")
    assert complete(cli, "jobdb show my", JOBDB_URL="sqlite:///elsewhere.db") == []


def test_the_first_argument_of_publish_completes_to_events_too(cli: Any) -> None:
    job = cli.register("--job-id", "progress-report")
    assert complete(cli, "jobdb publish prog") == [job]
    assert complete(cli, "jobdb publish prog", JOBDB_JOB_ID=job) == ["progress", job]


def complete(cli: Any, words: str, **env: str) -> list[str]:
    """Return the completions that bash would offer for the last word."""
    asked = {"_JOBDB_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", "from jobdb.cli import main; main()"],
        env={**cli.env, **asked, **env},
        cwd=cli.folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


def test_completion_can_be_installed(cli_without_database: Any) -> None:
    cli_without_database.env["SHELL"] = "/bin/bash"
    shown = subprocess.run(
        [*[sys.executable, "-m", "jobdb.cli"], "--show-completion", "bash"],
        env={**cli_without_database.env, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "_JOBDB_COMPLETE" in shown.stdout


def test_a_bug_prints_one_line_and_its_traceback_on_request(cli: Any) -> None:
    broken = (
        "import jobdb.registry, sys; sys.argv = ['jobdb', 'list']\n"
        "jobdb.registry.Registry.open = lambda *a, **k: 1 / 0\n"
        "from jobdb.cli import main; main()"
    )
    for debug in ("", "1"):
        done = subprocess.run(
            [sys.executable, "-c", broken],
            env={**cli.env, "JOBDB_DEBUG": debug},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 70
        assert ("Traceback" in done.stderr) == bool(debug)
        assert "ZeroDivisionError" in done.stderr


def test_output_is_utf8_in_every_locale(cli: Any) -> None:
    job = cli.register(prompt="ünïcödé")
    for env in ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}):
        assert cli("show", job, "--json", env=env).json["prompt"] == "ünïcödé"


def test_verbose_logs_to_stderr_only(cli: Any) -> None:
    job = cli.register()
    assert cli("-v", "show", job, "--json").json["job_id"] == job


def test_the_reference_matches_the_help() -> None:
    generator = load_script(ROOT / "docs" / "generate_cli_reference.py")
    assert generator.PAGE.read_text() == generator.page(), "run: python docs/generate_cli_reference.py"


def test_no_command_or_option_is_undocumented() -> None:
    page = (ROOT / "docs" / "reference" / "command-line.md").read_text()
    for name, found in COMMANDS.items():
        assert f" jobdb {name}\n" in page
        for parameter in found.params:
            assert parameter.param_type_name == "argument" or parameter.opts[0] in page


def test_json_fields_match_the_documentation(cli: Any) -> None:
    job = cli.register()
    claim = cli("claim", "--json", "--lease-sec", "0.01").json
    assert documented_fields("Job") == list(claim) == list(cli("show", job, "--json").json)
    reaped = cli("reap", "--json").json
    assert documented_fields("Reaped job") == list(reaped)
    payload = cli("publish", job, "started", "--json").out
    assert documented_fields("Event") == list(cli("events", job, "--json").json)
    assert documented_fields("Verdict") == list(cli("accept", "-s", "s", "--json", input=payload).json)
    assert documented_fields("Token") == list(cli("token", "list", job, "--json").json)
    assert documented_fields("File") == list(cli("export", "out", "--json").json_lines[0])
    assert documented_fields("Verdict") == list(Acceptance(Verdict.MALFORMED).as_dict())


def test_the_json_of_each_command_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "json-output.md").read_text()
    rows = re.findall(r"^\| (`[^|]+`) \| [^|]", page.split("\n## ")[0], re.MULTILINE)
    documented = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    with_json = [name for name, found in COMMANDS.items() if any("--json" in one.opts for one in found.params)]
    assert sorted(documented) == sorted(with_json)


def test_exit_codes_match_the_documentation() -> None:
    from jobdb.cli import DEFECT, INTERRUPTED

    from jobdb import errors

    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text()
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    raised = {
        error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.JobdbError)
    }
    assert documented == raised | {0, 6, DEFECT, INTERRUPTED, 141}


def test_a_command_writes_nothing_to_the_current_folder(cli: Any) -> None:
    """A command imports nothing from the current folder and writes nothing to it."""
    before = set(os.listdir(cli.folder))
    cli.register()
    assert set(os.listdir(cli.folder)) == before
