"""The options with which a command is given a token, and the one place that reads the token from them.

Called by register and ``token rotate``: ``@with_token_options`` adds the five options to a command.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import typer

from jobdb.crypto import secret_input
from jobdb.errors import InvalidInput

from .messages import print_warning


class TokenOptions(NamedTuple):
    """The values of the ``--auth-token`` options; at most one may be given."""

    value: str | None
    file: str | None
    stdin: bool
    fd: int | None
    env: str | None

    def read(self) -> str | None:
        """Return the token that the options name; None when none of them is given.

        Raises:
            InvalidInput: several options are given, or the token cannot be read.
        """
        if sum(option not in (None, False) for option in self) > 1:
            raise InvalidInput("several --auth-token options are given; give one of them")
        if self.value is not None:
            print_warning(
                "--auth-token puts the token where every process of this machine can read it; "
                "use --auth-token-file, -stdin, -fd or -env"
            )
            return self.value
        if self.file is not None:
            return secret_input.read_from_file(self.file)
        if self.stdin:
            return secret_input.read_from_stream(sys.stdin.buffer)
        if self.fd is not None:
            return secret_input.read_from_descriptor(self.fd)
        if self.env is not None:
            return secret_input.read_from_environment(self.env)
        return None


def _declare_options(
    auth_token: Annotated[
        str | None,
        typer.Option(
            "--auth-token",
            metavar="VALUE",
            help="The token itself. Every process of this machine can read it here: prefer the other options.",
        ),
    ] = None,
    auth_token_file: Annotated[
        str | None,
        typer.Option("--auth-token-file", metavar="FILE", help="Read the token from a file that has one line."),
    ] = None,
    auth_token_stdin: Annotated[bool, typer.Option("--auth-token-stdin", help="Read the token from stdin.")] = False,
    auth_token_fd: Annotated[
        int | None,
        typer.Option(
            "--auth-token-fd", metavar="N", help="Read the token from an open file descriptor, as with 3<FILE."
        ),
    ] = None,
    auth_token_env: Annotated[
        str | None,
        typer.Option("--auth-token-env", metavar="NAME", help="Read the token from an environment variable."),
    ] = None,
) -> TokenOptions:
    """Declare the options for Typer, which reads them from this signature, and collect their values."""
    return TokenOptions(auth_token, auth_token_file, auth_token_stdin, auth_token_fd, auth_token_env)


def with_token_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's parameter ``token`` by the five ``--auth-token`` options.

    The command is called with a ``TokenOptions`` as ``token``. Typer takes a command's options from its signature, so
    the signature is rewritten.
    """
    signature = inspect.signature(command, eval_str=True)
    options = inspect.signature(_declare_options, eval_str=True).parameters
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        parameters += options.values() if name == "token" else [parameter]

    @functools.wraps(command)
    def wrapper(**arguments: Any) -> None:
        token = _declare_options(**{name: arguments.pop(name) for name in options})
        command(**arguments, token=token)

    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper
