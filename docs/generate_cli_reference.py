"""Writes docs/reference/command-line.md from the help of the commands themselves.

``python docs/generate_cli_reference.py`` writes it; a test compares it with what would be written.
"""

from __future__ import annotations

import html
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobdb.cli.app import command
from jobdb.cli.commands import SECTIONS

PAGE = Path(__file__).parent / "reference" / "command-line.md"

HEAD = """\
# The command line

<!-- Made by docs/generate_cli_reference.py from the commands' own help. Change it there. -->

`jobdb [OPTIONS] COMMAND [OPTIONS] [ARGUMENTS]`

Data goes to stdout, messages go to stderr. On a terminal there are tables and colours (`NO_COLOR` turns the colours
off); in a pipe there are plain lines. `--json` gives [one object, or one object a line](json-output.md). The
[exit codes](exit-codes.md) tell what happened. `jobdb --install-completion` makes the shell complete commands, options,
job ids, statuses and events.
"""


def page() -> str:
    """The whole page."""
    root = command()
    parts = [HEAD, "## Options before the command\n", *_parameters(root)]
    for title, section in SECTIONS.items():
        parts.append(f"## {title}\n")
        for name in section:
            found = root.commands[name]
            if hasattr(found, "commands"):
                parts += [f"### jobdb {name}\n", *_text(found)]
                for inner in found.commands.values():
                    parts += _command(f"{name} {inner.name}", inner, level=4)
            else:
                parts += _command(name, found, level=3)
    return "\n".join(parts)


def _command(name: str, found: Any, *, level: int) -> Iterator[str]:
    arguments = "".join(f" {_argument(one)}" for one in found.params if one.param_type_name == "argument")
    yield f"{'#' * level} jobdb {name}\n"
    yield f"`jobdb {name} [OPTIONS]{arguments}`\n"
    yield from _text(found)
    yield from _parameters(found)


def _argument(parameter: Any) -> str:
    name = _name(parameter)
    return name if parameter.required else f"[{name}]"


def _text(found: Any) -> Iterator[str]:
    """The help in paragraphs; what is marked to be left as it is becomes a block of code."""
    for paragraph in inspect.cleandoc(found.help).split("\n\n"):
        if not paragraph.startswith("\b"):
            yield html.escape(paragraph, quote=False) + "\n"
            continue
        title, *lines = paragraph.removeprefix("\b\n").splitlines()
        yield f"{title}\n"
        yield "\n".join(["```sh", *(line.removeprefix("  ") for line in lines), "```\n"])


def _parameters(found: Any) -> Iterator[str]:
    rows = [_row(one) for one in found.params if one.name not in ("install_completion", "show_completion")]
    if rows:
        yield "\n".join(["| option | meaning |", "| --- | --- |", *rows, ""])


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        what = _name(parameter)
    else:
        what = ", ".join([*parameter.opts, *parameter.secondary_opts])
        if not parameter.is_flag and not parameter.count:
            what += f" {parameter.metavar}"
    notes = []
    if parameter.envvar:
        notes.append(f"`${parameter.envvar}` when it is not given")
    if parameter.param_type_name == "option":
        if parameter.required:
            notes.append("required")
        elif _shows_default(parameter):
            notes.append(f"default: `{parameter.default}`")
    meaning = parameter.help + (f" ({'; '.join(notes)})" if notes else "")
    meaning = html.escape(meaning, quote=False).replace("|", "\\|")
    return f"| `{what}` | {meaning} |"


def _shows_default(parameter: Any) -> bool:
    """Whether the default says something."""
    silent = parameter.default in (None, "", (), []) or parameter.is_flag or parameter.count
    return not silent and not callable(parameter.default)


def _name(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper()).strip("[]")


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
