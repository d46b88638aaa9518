"""Test the pages: every block runs and shows what it really prints, and every link has a target.

A page's ``console`` and ``sh`` blocks are one session in an empty folder with its own home. A line ends with
``# exit N`` where the command is meant to fail. Spaces stand for tabs, and an ellipsis for what is different each time.
What cannot run is marked in the page, with the reason: see ``pages``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.docs.commands import parse_commands, usage_error
from tests.docs.pages import PAGES, RUN, SHELL, Block, blocks, is_generated, outputs, prose, script
from tests.docs.test_library_types import ROOT
from tests.support.agent.codex import configure_codex, write_named_file
from tests.support.agent.model_server import ModelServer
from tests.support.environment import clean_environment
from tests.support.postgresql.server import POSTGRES_PASSWORD, PostgresServer
from tests.support.requirements import require, require_codex, require_postgres

WRITTEN = [page for page in PAGES if not is_generated(page)]
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_INLINE = re.compile(r"`(jobdb [^`]+)`")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def environment(home: Path) -> dict[str, str]:
    folders = {f"XDG_{kind}_HOME": str(home / place) for kind, place in _XDG.items()}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
    return clean_environment(home, **folders, PATH=path, ROOT=str(ROOT), NO_COLOR="1")


_XDG = {"CONFIG": ".config", "STATE": ".local/state", "DATA": ".local/share", "CACHE": ".cache"}


@contextmanager
def page_servers(needs: set[str], environ: dict[str, str]) -> Iterator[None]:
    """Start the servers that a page needs, and add their addresses to the environment."""
    for program in sorted(needs - {"postgresql", "codex"}):
        require(shutil.which(program, path=environ["PATH"]), f"there is no {program}")
    with ExitStack() as running:
        if "postgresql" in needs:
            running.enter_context(page_database(environ))
        if "codex" in needs:
            running.enter_context(page_codex(environ))
        yield


@contextmanager
def page_database(environ: dict[str, str]) -> Iterator[None]:
    binaries = require_postgres(client=True)
    server = PostgresServer(binaries, fsync=False)
    try:
        # The pages call the server db.example: libpq takes the address from here.
        environ |= {"PGHOSTADDR": "127.0.0.1", "PGHOST": "db.example", "PGPORT": str(server.port), "PGUSER": "jobdb"}
        environ |= {"PGPASSWORD": POSTGRES_PASSWORD, "PGDATABASE": "postgres"}
        environ["PATH"] = f"{environ['PATH']}{os.pathsep}{binaries}"
        yield
    finally:
        server.stop()


@contextmanager
def page_codex(environ: dict[str, str]) -> Iterator[None]:
    """Make the command ``codex`` the real one, on a model that has the files written that prompts name."""
    programs = require_codex()
    with ModelServer(write_named_file) as model:
        configure_codex(Path(environ["HOME"]), model.url)
        environ["PATH"] = f"{environ['PATH']}{os.pathsep}{programs}"
        yield
    assert model.errors == []


def runnable(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language in SHELL and block.not_run is None]


@pytest.mark.parametrize("page", [page for page in WRITTEN if runnable(page)], ids=name_of)
def test_the_commands_of_a_page_run_and_print_what_it_shows(page: Path, tmp_path: Path) -> None:
    text, commands = script(page)
    assert len(commands) >= len(runnable(page)) > 0
    folder = tmp_path / "session"
    folder.mkdir()
    environ = environment(tmp_path)
    with page_servers({need for block in runnable(page) for need in block.needs}, environ):
        done = subprocess.run(
            ["sh", "-c", text],
            cwd=folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
            stdin=subprocess.DEVNULL,
        )
    said = outputs(done.stdout)
    assert done.returncode == 0, f"$ {commands[max(said)].text if said else text}\n{done.stdout[-3000:]}"
    assert sorted(said) == list(range(len(commands))), "each command ran once"
    for number, command in enumerate(commands):
        rest = iter(said[number])
        for line in command.shown:
            pattern = re.sub(r"(?:\\ )+", r"\\s+", re.escape(line).replace("…", ".*"))
            assert any(re.fullmatch(pattern, real) for real in rest), f"$ {command.text}\n{line!r} of {said[number]}"


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_a_block_that_is_not_run_says_why(page: Path) -> None:
    for block in blocks(page):
        if block.not_run is not None:
            assert len(block.not_run) > 10, f"no reason: {block.body}"
        elif block.language not in RUN:
            assert not list(parse_commands(block.body)), (
                f"commands in a block that is not run and not marked:\n{block.body}"
            )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_commands_that_a_page_names_exist(page: Path) -> None:
    found = [words for block in blocks(page) if block.language != "python" for words in parse_commands(block.shell)]
    wrong = [usage_error(words) for words in found if words != []]
    for code in _INLINE.findall(prose(page)):
        if "[OPTIONS]" not in code:  # a usage line of the generated reference
            wrong += [usage_error(words, complete=False) for words in parse_commands(code.replace("\n", " "))]
    assert [one for one in wrong if one] == []


def test_pages_and_their_commands_are_found() -> None:
    counted = {name_of(page): len(runnable(page)) for page in WRITTEN}
    assert sum(1 for count in counted.values() if count) >= 10 and sum(counted.values()) >= 40, counted
    assert (
        sum(len(list(parse_commands(block.shell))) for page in PAGES if is_generated(page) for block in blocks(page))
        >= 40
    )


def python_pages() -> list[Path]:
    return [page for page in PAGES if python_of(page)]


def python_of(page: Path) -> str:
    return "\n".join(block.body for block in blocks(page) if block.language == "python" and block.not_run is None)


@pytest.mark.parametrize("page", python_pages(), ids=name_of)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", python_of(page)],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_the_python_of_the_pages_passes_the_type_checker(tmp_path: Path) -> None:
    files = []
    for number, page in enumerate(python_pages()):
        files.append(tmp_path / f"page{number}_{page.stem.replace('-', '_').lower()}.py")
        files[-1].write_text(python_of(page), "utf-8")
    assert len(files) >= 3
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *map(str, files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_has_a_target(page: Path) -> None:
    for target in _LINK.findall(page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_readme_shows_the_numbers_of_the_last_run() -> None:
    headline = (ROOT / "benchmarks" / "results" / "headline.md").read_text("utf-8").strip()
    assert headline in (ROOT / "README.md").read_text("utf-8")


def test_the_demo_of_the_readme_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", str(ROOT / "examples" / "demo.sh"), str(Path(sys.executable).parent / "jobdb")],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "completed" in done.stdout
