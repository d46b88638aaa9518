"""Generates docs/reference/command-line.md from the commands' own help.

Run ``python docs/generate_cli_reference.py``; a test checks that the page is up to date.
"""

from __future__ import annotations

import html
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobdb.cli.app import root_command
from jobdb.cli.commands import SECTIONS

PAGE = Path(__file__).parent / "reference" / "command-line.md"

HEAD = """\
# The command line

<!-- Made by docs/generate_cli_reference.py from the commands' own help. Change it there. -->

`jobdb [OPTIONS] COMMAND [OPTIONS] [ARGUMENTS]`

Data is written to stdout, messages to stderr. On a terminal the output has tables and colours (`NO_COLOR` turns the
colours off); in a pipe it has plain lines. `--json` prints [one object, or one object per line](json-output.md). The
[exit codes](exit-codes.md) tell the result. `jobdb --install-completion` installs shell completion of commands,
options, job ids, statuses and events.
"""


def page() -> str:
    """Return the whole page."""
    root = root_command()
    parts = [HEAD, "## Options before the command\n", *_parameters(root)]
    for title, section in SECTIONS.items():
        parts.append(f"## {title}\n")
        for name in section:
            command = root.commands[name]
            if hasattr(command, "commands"):
                parts += [f"### jobdb {name}\n", *_text(command)]
                for inner in command.commands.values():
                    parts += _command(f"{name} {inner.name}", inner, level=4)
            else:
                parts += _command(name, command, level=3)
    return "\n".join(parts)


def _command(name: str, command: Any, *, level: int) -> Iterator[str]:
    arguments = "".join(
        f" {_argument(parameter)}" for parameter in command.params if parameter.param_type_name == "argument"
    )
    yield f"{'#' * level} jobdb {name}\n"
    yield f"`jobdb {name} [OPTIONS]{arguments}`\n"
    yield from _text(command)
    yield from _parameters(command)


def _argument(parameter: Any) -> str:
    name = _name(parameter)
    return name if parameter.required else f"[{name}]"


def _text(command: Any) -> Iterator[str]:
    """Yield the help in paragraphs; preformatted ones become blocks of code."""
    for paragraph in inspect.cleandoc(command.help).split("\n\n"):
        if not paragraph.startswith("\b"):
            yield html.escape(paragraph, quote=False) + "\n"
            continue
        title, *lines = paragraph.removeprefix("\b\n").splitlines()
        yield f"{title}\n"
        yield "\n".join(["```sh", *(line.removeprefix("  ") for line in lines), "```\n"])


def _parameters(command: Any) -> Iterator[str]:
    hidden = ("install_completion", "show_completion")
    rows = [_row(parameter) for parameter in command.params if parameter.name not in hidden]
    if rows:
        yield "\n".join(["| option | meaning |", "| --- | --- |", *rows, ""])


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        notation = _name(parameter)
    else:
        notation = ", ".join([*parameter.opts, *parameter.secondary_opts])
        if not parameter.is_flag and not parameter.count:
            notation += f" {parameter.metavar}"
    notes = []
    if parameter.envvar:
        notes.append(f"default: `${parameter.envvar}`")
    if parameter.param_type_name == "option":
        if parameter.required:
            notes.append("required")
        elif _has_notable_default(parameter):
            notes.append(f"default: `{parameter.default}`")
    meaning = parameter.help + (f" ({'; '.join(notes)})" if notes else "")
    meaning = html.escape(meaning, quote=False).replace("|", "\\|")
    return f"| `{notation}` | {meaning} |"


def _has_notable_default(parameter: Any) -> bool:
    """Tell whether the default is worth mentioning."""
    trivial = parameter.default in (None, "", (), []) or parameter.is_flag or parameter.count
    return not trivial and not callable(parameter.default)


def _name(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper()).strip("[]")


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
