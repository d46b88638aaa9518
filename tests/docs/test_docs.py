"""The docs are for use: every command and Python snippet in README and docs runs, and every link leads somewhere.

A page's ```console blocks are one session in an empty folder. A line ends with ``# exit N`` where the command is meant
to fail. What cannot run on any machine (units, cron lines, mount options) stands in a ```text or other block.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_EXIT = re.compile(r"#\s*exit (\d+)")


def blocks(page: Path, language: str) -> list[str]:
    return [body for name, body in _BLOCK.findall(page.read_text("utf-8")) if name == language]


def commands(page: Path) -> list[str]:
    found: list[str] = []
    for body in blocks(page, "console"):
        for line in body.splitlines():
            if line.startswith("$ "):
                found.append(line[2:])
            elif line.startswith("> ") and found:
                found[-1] += "\n" + line[2:]
    return found


def script(page: Path) -> str:
    """One shell script: each command, and a check of its exit code."""
    lines = ["set -u"]
    for command in commands(page):
        wanted = _EXIT.search(command)
        lines += [
            command,
            f'code=$?; [ "$code" = {wanted[1] if wanted else 0} ] || {{ echo "exit $code" >&2; exit 99; }}',
        ]
    return "\n".join(lines)


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JOBDB_", "MQTT_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "ROOT": str(ROOT)}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    folder = tmp_path / "session"
    folder.mkdir()
    done = subprocess.run(
        ["sh", "-xc", script(page)],
        cwd=folder,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=180,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def shown(page: Path) -> list[str]:
    """The lines of output that a page shows."""
    lines = [line for body in blocks(page, "console") for line in body.splitlines()]
    return [line for line in lines if line and not line.startswith(("$ ", "> "))]


@pytest.mark.parametrize("page", [page for page in PAGES if shown(page)], ids=lambda page: str(page.relative_to(ROOT)))
def test_the_output_that_a_page_shows_is_the_real_one(page: Path, tmp_path: Path) -> None:
    """Spaces stand for tabs, and an ellipsis for what is another thing each time."""
    done = subprocess.run(
        ["sh", "-c", script(page)], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=180
    )
    said = (done.stdout + done.stderr).splitlines()
    for line in shown(page):
        pattern = re.sub(r"(?:\\ )+", r"\\s+", re.escape(line).replace("…", ".*"))
        assert any(re.fullmatch(pattern + (".*" if line.endswith("…") else ""), real) for real in said), line


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    code = "\n".join(blocks(page, "python"))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_readme_shows_the_numbers_of_the_last_run() -> None:
    headline = (ROOT / "benchmarks" / "results" / "headline.md").read_text("utf-8").strip()
    assert headline in (ROOT / "README.md").read_text("utf-8")
