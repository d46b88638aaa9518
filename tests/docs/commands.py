"""Find `jobdb …` commands in shell text and check them against the definitions of the command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any

_STARTS_COMMAND = {"|", "||", "&&", ";", "&", "(", "((", "|&", "do", "then", "else", "if", "while", "until", "!", "{"}
_ENDS_COMMAND = re.compile(r"[|&;()<>]+")
_PLACEHOLDER = re.compile(r"[A-Z][A-Z_0-9]*|<.*>|\$.*|…|-|.*\bX\b.*")


@cache
def root_command() -> Any:
    from jobdb.cli import app

    return app.root_command()


def command_names() -> set[str]:
    """Return the names of all commands."""
    root = root_command()
    return set(root.list_commands(root.context_class(root)))


def parse_commands(shell: str) -> Iterator[list[str]]:
    """Yield the words of each jobdb command in a piece of shell, without the name and redirections."""
    for line in re.sub(r"\\\n", " ", shell).splitlines():
        yield from _in_line(line)


def _in_line(line: str) -> Iterator[list[str]]:
    reader = shlex.shlex(line, posix=True, punctuation_chars="|&;()<>")
    reader.whitespace_split = True
    reader.commenters = ""
    try:
        tokens = list(reader)
    except ValueError:  # a quotation that continues on the next line, or an apostrophe in prose
        tokens = line.split()
    at_start, current, skip = True, None, False
    for token in tokens:
        if token.startswith("#"):
            break
        if _ENDS_COMMAND.fullmatch(token):
            if current is not None and not set(token) <= set("<>&"):
                yield current
                current = None
            if current is not None and token in {"&", "&&"}:
                yield current
                current = None
            skip = set(token) <= set("<>&") and token not in {"&", "&&"}
            at_start = not skip
        elif skip:  # where a redirection leads
            skip = False
        elif current is not None:
            current.append(token)
        elif at_start and token.rpartition("/")[2] == "jobdb":
            current = []
        else:
            at_start = token in _STARTS_COMMAND or bool(
                re.fullmatch(r"\w+=.*|[-\d*/,]+|export|exec|nohup|time|env", token)
            )
    if current is not None:
        yield current


def usage_error(words: list[str], *, complete: bool = True) -> str | None:
    """Return what is wrong with a command, or None: the command, its options and the number of arguments must fit.

    Args:
        words: what follows `jobdb`; words in capitals and variables stand for any value.
        complete: the command is to be run as written: required options and arguments must be present.
    """
    try:
        _check(root_command(), None, list(words), complete=complete)
    except Exception as error:  # each version of Typer has its own usage errors, or those of its own Click
        if not hasattr(error, "format_message"):
            raise
        return f"jobdb {' '.join(words)}: {error.format_message()}"
    except _UsageError as wrong:
        return f"jobdb {' '.join(words)}: {wrong}"
    return None


class _UsageError(BaseException):
    """A usage error that no parser raises."""


def _check(command: Any, parent: Any, words: list[str], *, complete: bool) -> None:
    if {"--help", "-h", "--version"} & set(words[:1]):
        return
    context = command.context_class(command, info_name=command.name, parent=parent)
    given, rest, _order = command.make_parser(context).parse_args(words)
    if complete:
        for parameter in command.get_params(context):
            if parameter.required and given.get(parameter.name) in (None, ()):
                raise _UsageError(f"{parameter.name} is missing")
    if not hasattr(command, "get_command"):
        if rest:
            raise _UsageError(f"unexpected {' '.join(rest)}")
        return
    if not rest:
        if complete:
            raise _UsageError("no command")
        return
    if _PLACEHOLDER.fullmatch(rest[0]):
        return
    inner = command.get_command(context, rest[0])
    if inner is None:
        raise _UsageError(f"no command {rest[0]!r}")
    _check(inner, context, rest[1:], complete=complete)
