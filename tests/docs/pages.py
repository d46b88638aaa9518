"""Read the pages: their code blocks, in order, and the invisible comments that say how a block is treated.

A comment is on the line before its block:

- ``<!-- not run: REASON -->``: it cannot run on any machine; its jobdb commands must still exist.
- ``<!-- setup: SHELL -->``: shell that is run before the block, and not shown.
- ``<!-- needs: NAME NAME -->``: programs or servers without which the page cannot run: ``postgresql``, ``codex``, or a
  program's name.
"""

from __future__ import annotations

import re
import subprocess
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.paths import ROOT

PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "ARCHITECTURE")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

SHELL = ("console", "sh")
"""Languages whose blocks are run by the shell."""

RUN = (*SHELL, "python")
"""Languages whose blocks are run."""

_BLOCK = re.compile(
    r"(?P<before>(?:^ *<!--(?:(?!-->).)*-->\n+)*)"
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)
_COMMENT = re.compile(r"<!-- (?P<kind>not run|setup|needs): (?P<text>.*?) *-->", re.DOTALL)
_EXIT = re.compile(r"#\s*exit (\d+)")


@dataclass(frozen=True)
class Command:
    """One command of a page, the exit code that it must have and the lines of output that the page shows."""

    text: str
    shown: list[str] = field(default_factory=list)

    @property
    def code(self) -> int:
        wanted = _EXIT.search(self.text)
        return int(wanted[1]) if wanted else 0


@dataclass(frozen=True)
class Block:
    """A code block, and the comments before it."""

    language: str
    body: str
    not_run: str | None
    setup: str
    needs: tuple[str, ...]

    @property
    def shell(self) -> str:
        """Return the block as shell text, without prompts and output."""
        return "\n".join(command.text for command in self.commands) if self.language == "console" else self.body

    @property
    def commands(self) -> list[Command]:
        return _from_console(self.body) if self.language == "console" else _from_script(self.body)


def is_generated(page: Path) -> bool:
    """Return whether a generator writes the page: its commands are separate examples."""
    return page.read_text("utf-8").startswith("<!-- Made by ") or "\n<!-- Made by " in page.read_text("utf-8")[:400]


def blocks(page: Path) -> list[Block]:
    """Return all blocks of a page, in order."""
    found = []
    for match in _BLOCK.finditer(page.read_text("utf-8")):
        said: dict[str, str] = dict(_COMMENT.findall(match["before"]))
        body = "".join(line.removeprefix(match["indent"]) for line in match["body"].splitlines(keepends=True))
        found.append(
            Block(
                language=match["language"],
                body=body,
                not_run=said.get("not run"),
                setup=textwrap.dedent(said.get("setup", "")),
                needs=tuple(said.get("needs", "").split()),
            )
        )
    return found


def prose(page: Path) -> str:
    """Return the page without its blocks."""
    return _BLOCK.sub("", page.read_text("utf-8"))


def _from_console(body: str) -> list[Command]:
    found: list[Command] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:]))
        elif line.startswith("> ") and found:
            found[-1] = Command(f"{found[-1].text}\n{line[2:]}")
        elif line and found:
            found[-1].shown.append(line)
    return found


def _from_script(body: str) -> list[Command]:
    """Join lines until the shell accepts them as complete."""
    found, pending = [], ""
    for line in body.splitlines():
        pending = f"{pending}\n{line}" if pending else line
        if not pending.strip() or pending.lstrip().startswith("#"):
            pending = ""
        elif not pending.endswith("\\") and _is_whole(pending):
            found.append(Command(pending))
            pending = ""
    if pending:
        found.append(Command(pending))
    return found


def _is_whole(text: str) -> bool:
    if not re.search(r"\b(do|then|case|function)\b|[{('\"]|<<", text):
        return True
    return subprocess.run(["sh", "-nc", text], capture_output=True).returncode == 0


def script(page: Path) -> tuple[str, list[Command]]:
    """Return one shell script of all blocks that are run, and its commands.

    A line ``@@ N @@`` comes before the output of command N.
    """
    lines, commands = ["set -u"], []
    for block in blocks(page):
        if block.language not in SHELL or block.not_run is not None:
            continue
        lines.append(block.setup)
        for command in block.commands:
            number = len(commands)
            commands.append(command)
            lines += [
                f"printf '\\n@@ {number} @@\\n'",
                command.text,
                f'code=$?; [ "$code" = {command.code} ] || {{ echo "exit $code"; exit 99; }}',
            ]
    return "\n".join(lines), commands


def outputs(said: str) -> dict[int, list[str]]:
    """Return the lines that each command printed."""
    parts = re.split(r"^@@ (\d+) @@$", said, flags=re.MULTILINE)
    return {int(number): text.splitlines() for number, text in zip(parts[1::2], parts[2::2], strict=True)}
