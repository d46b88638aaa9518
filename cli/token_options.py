"""Secrets given to a command: the options for a token, and the one place that they are read from."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from jobdb.crypto import secret_input
from jobdb.errors import InvalidInput

from .output import warn

Token = Annotated[
    str | None,
    typer.Option(
        "--auth-token",
        metavar="VALUE",
        help="The token itself. Every process of this machine can read it there: prefer the other ways.",
    ),
]
TokenFile = Annotated[
    str | None, typer.Option("--auth-token-file", metavar="FILE", help="Take the token from a file's one line.")
]
TokenStdin = Annotated[bool, typer.Option("--auth-token-stdin", help="Take the token from stdin.")]
TokenFd = Annotated[
    int | None,
    typer.Option("--auth-token-fd", metavar="N", help="Take the token from an open file descriptor, as in 3<FILE."),
]
TokenEnv = Annotated[
    str | None,
    typer.Option("--auth-token-env", metavar="NAME", help="Take the token from an environment variable."),
]


def read_token(
    *, value: str | None, file: str | None, stdin: bool, descriptor: int | None, variable: str | None
) -> str | None:
    """The token that the options name; None when they name none.

    Raises:
        InvalidInput: they name several, or the one cannot be read.
    """
    named = [value is not None, file is not None, stdin, descriptor is not None, variable is not None]
    if sum(named) > 1:
        raise InvalidInput("the token is given in several ways; give it in one of them")
    if value is not None:
        warn(
            "--auth-token puts the token where every process of this machine can read it; "
            "use --auth-token-file, -stdin, -fd or -env"
        )
        return value
    if file is not None:
        return secret_input.read_from_file(file)
    if stdin:
        return secret_input.read_from_stream(sys.stdin.buffer)
    if descriptor is not None:
        return secret_input.read_from_descriptor(descriptor)
    if variable is not None:
        return secret_input.read_from_environment(variable)
    return None
