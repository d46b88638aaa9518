"""Test that jobdb's own Python processes import nothing from the current folder, however they are started."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobdb import Registry
from jobdb.system.isolated_python import import_path, isolated_command
from tests.support.keys import MASTER_KEY
from tests.support.paths import ROOT

MODULES = (
    "json", "re", "os", "subprocess", "signal", "struct", "hmac", "datetime", "typing", "logging", "sqlite3", "apsw",
    "typer", "rfc8785", "cryptography", "sitecustomize", "usercustomize", "jobdb", "cli", "schema", "numpy",
)  # fmt: skip
TRAP = "import os\nopen(os.environ['MARK'], 'a').write(__name__ + '\\n')\nraise SystemExit(99)\n"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder with a trap under the name of every module that jobdb imports."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    for name in MODULES:
        (folder / f"{name}.py").write_text(TRAP)
    return folder


def run(command: list[str], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JOBDB_", "PYTHON"))}
    env |= {"MARK": str(folder.parent / "mark"), "HOME": str(folder.parent), "JOBDB_KEY": MASTER_KEY, **more}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)


def trap_log(folder: Path) -> str:
    mark = folder.parent / "mark"
    return mark.read_text() if mark.exists() else ""


def test_an_isolated_process_imports_only_installed_modules(workspace: Path) -> None:
    program = "import json, apsw, jobdb.legacy.importing.reader_process, jobdb.schema; print(json.dumps(sys.argv[1:]))"
    for variables in ({}, {"PYTHONPATH": "."}, {"PYTHONPATH": f":{workspace}"}, {"PYTHONHOME": "."}):
        done = run(isolated_command(program, "a", "é"), workspace, **variables)
        assert (done.stdout, trap_log(workspace)) == ('["a", "\\u00e9"]\n', ""), done.stderr


@pytest.mark.parametrize("placed", [{}, {"PYTHONPATH": "."}, {"PYTHONPATH": os.pathsep}])
def test_an_isolated_process_started_from_the_folder_is_isolated(workspace: Path, placed: dict[str, str]) -> None:
    """As with ``python -c``, ``python -m`` and a script in the folder itself: they have it first in their path."""
    program = "print([one for one in sys.path if not one.startswith('/')], '{0}' in sys.path)"
    inside = (
        "from jobdb.system.isolated_python import isolated_command; import os; "
        "command = isolated_command({!r}); os.execv(command[0], command)"
    )
    for name in MODULES:
        if name not in ("numpy", "json"):
            (workspace / f"{name}.py").unlink()
    done = run([sys.executable, "-c", inside.format(program.format(workspace))], workspace, **placed)
    assert (done.stdout, trap_log(workspace)) == ("[] False\n", ""), done.stderr


def test_the_import_path_is_absolute_and_finds_this_package_last(workspace: Path, monkeypatch) -> None:
    monkeypatch.chdir(workspace)
    before = list(sys.path)
    monkeypatch.setattr(sys, "path", ["", ".", str(workspace), "relative", *before])
    assert import_path() == [*[one for one in before if os.path.isabs(one)], str(ROOT)]


def test_the_package_is_found_from_inside_the_installation_folder(monkeypatch) -> None:
    import typer

    packages = Path(typer.__file__).parents[1]
    monkeypatch.chdir(packages)
    assert str(packages) in import_path()


def test_a_reading_process_runs_no_module_of_the_folder(workspace: Path) -> None:
    from jobdb.legacy.importing.readers import _PROGRAM

    jobs = workspace / ".mam" / "jobs"
    jobs.mkdir(parents=True)
    done = run(isolated_command(_PROGRAM, str(jobs), str(workspace / "audit"), ""), workspace, PYTHONPATH=".")
    assert (done.returncode, done.stdout, trap_log(workspace)) == (0, "", ""), done.stderr


def test_the_command_removes_the_current_folder_from_its_import_path(workspace: Path) -> None:
    script = Path(sys.executable).with_name("jobdb")
    starts = [[sys.executable, "-c", "from jobdb.cli import main; main()"], [sys.executable, str(script)]]
    for name in ("json", "re", "os", "typing", "sitecustomize", "usercustomize", "jobdb", "datetime"):
        # Python itself or the script imports these before any code of jobdb runs.
        (workspace / f"{name}.py").unlink()
    for start in starts:
        for variables in ({}, {"PYTHONPATH": "."}, {"PYTHONPATH": os.pathsep}):
            for words in (["init"], ["register", "-a", "x", "p"], ["list"], ["doctor"]):
                done = run([*start, "--db", "../db/jobs.db", *words], workspace, **variables)
                assert (done.returncode, trap_log(workspace)) == (0, ""), done.stderr


def test_the_drop_in_module_removes_the_current_folder_from_its_import_path(workspace: Path) -> None:
    """``python -m jobdb.legacy.registry`` imports what it needs itself, and much else, only after that."""
    imported_by_python = ("json", "re", "os", "typing", "sitecustomize", "usercustomize", "jobdb", "datetime")
    for name in imported_by_python:
        (workspace / f"{name}.py").unlink()
    for name in ("argparse", "secrets", "socket", "threading"):
        (workspace / f"{name}.py").write_text(TRAP)
    Registry.open(workspace.parent / "db" / "jobs.db", create=True).close()
    variables = {"JOBDB_URL": f"sqlite:///{workspace.parent}/db/jobs.db"}
    for more in ({}, {"PYTHONPATH": "."}, {"PYTHONPATH": os.pathsep}):
        for words in (["register", "--agent", "x", "--prompt", "p"], ["list"], ["pick"]):
            done = run([sys.executable, "-m", "jobdb.legacy.registry", *words], workspace, **variables, **more)
            assert (done.returncode, trap_log(workspace)) == (0, ""), done.stderr
        assert '"agent": "x"' in done.stdout


HANDLER = """
import os

def handle(work):
    return {"variable": os.environ.get("PYTHONSAFEPATH")}

if __name__ == "__main__":
    from jobdb import Registry
    from jobdb.work import Worker

    with Registry.open("../db/jobs.db", create=True) as registry:
        registry.register(agent="a", prompt="p", job_id="j")
        Worker(registry, handle, executor="processes", until_empty=True).run()
        print(registry.get("j").status, registry.events("j")[-1].data["variable"], os.environ.get("PYTHONSAFEPATH"))
"""


@pytest.mark.parametrize(("variables", "variable"), [({}, "None"), ({"PYTHONSAFEPATH": "1"}, "1")])
def test_a_handler_s_process_imports_nothing_from_the_current_folder(
    workspace: Path, variables: dict[str, str], variable: str
) -> None:
    """multiprocessing starts Python with ``-c``; the script is elsewhere, and so are the modules that it imports."""
    for name in ("multiprocessing", "pickle", "threading", "runpy", "socket"):
        (workspace / f"{name}.py").write_text(TRAP)
    script = workspace.parent / "application" / "script.py"
    script.parent.mkdir()
    script.write_text(HANDLER)
    done = run([sys.executable, str(script)], workspace, **variables)
    assert trap_log(workspace) == ""
    assert done.stdout == f"completed {variable} {variable}\n", done.stderr


def test_every_python_process_started_is_isolated() -> None:
    """Python is started by ``sys.executable`` in one module only, and in the probe, with -I.

    The processes of handlers are started by multiprocessing, which finds what the application's process finds.
    """
    allowed = {
        "jobdb/system/isolated_python.py",
        "jobdb/filesystem/probe/parties.py",
        "jobdb/legacy/importing/readers.py",
    }
    for folder in ("jobdb", "cli", "schema"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text("utf-8")
            calls = [
                node
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.List) and node.elts and ast.unparse(node.elts[0]) == "sys.executable"
            ]
            assert all(ast.unparse(one.elts[1]) in ("*flags", "'-I'") for one in calls), path
            imported = {
                name.partition(".")[0]
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.Import | ast.ImportFrom)
                for name in (
                    [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
                )
            }
            if str(path.relative_to(ROOT)) not in ("jobdb/work/process_runner.py", "jobdb/work/process_child.py"):
                assert "multiprocessing" not in imported, path
            assert "ProcessPoolExecutor" not in text, path
            if "sys.executable" in text:
                assert str(path.relative_to(ROOT)) in allowed, path
