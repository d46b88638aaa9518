"""The root command: the options that precede every command, and the entry point that runs one.

Called by ``main``; the commands themselves are listed in ``commands``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from typer.main import get_command

from . import output
from .commands import CONTEXT_SETTINGS, CommandGroup
from .context import warn_of_password
from .settings import Settings

if TYPE_CHECKING:
    from typer._click.core import Command

app = typer.Typer(
    cls=CommandGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings=CONTEXT_SETTINGS,
)


def _print_version(requested: bool) -> None:
    if requested:
        from jobdb import __version__

        output.print_line(f"jobdb {__version__}")
        raise typer.Exit


@app.callback(
    epilog="Exit codes: 0 success; 1 refused, or the job failed; 2 invalid usage or input; 3 timed out; "
    "4 the database is busy; 5 the database or its file system is unusable; 6 the job was cancelled."
)
def root_options(
    ctx: typer.Context,
    db: Annotated[
        str | None,
        typer.Option(
            "--db",
            metavar="URL",
            help="The database: sqlite:///FILE, postgresql://HOST/NAME or a file name. "
            "Default: $JOBDB_URL, else sqlite:///.jobdb/jobs.db.",
        ),
    ] = None,
    busy_timeout: Annotated[
        float, typer.Option("--busy-timeout", metavar="SEC", help="Seconds to wait for other writers.")
    ] = 30.0,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, show_default=False, help="Log to stderr; -vv logs more.")
    ] = 0,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Delegate jobs to agents and record their signed events, in one transactional database.

    A registered job is pending until a worker claims it, and running until its last event ends it: completed, error or
    cancelled. Each event has a number, its seq; each claim has a number too, its attempt, without which nothing can be
    said about a job that is held under a lease.

    \b
    A first session:
      jobdb init
      jobdb register --agent claude-code "sort ten problems"
      eval "$(jobdb claim --agent claude-code --export)"
      jobdb publish progress --detail "step 1 of 10"
      jobdb complete --detail "all sorted"
      jobdb show

    That is a worker by hand. 'jobdb work -- CMD' is one for agents: it runs CMD for each job, and keeps hold of it.

    'jobdb COMMAND --help' describes a command.
    """
    ctx.obj = Settings(db=db, busy_timeout_sec=busy_timeout)
    warn_of_password(db)
    if verbose:
        _log_to_stderr(verbose)


def _log_to_stderr(verbose: int) -> None:
    import logging

    from jobdb.system.terminal import sanitize

    class SingleLineFormatter(logging.Formatter):
        """Keeps each message on one line, whatever names it holds: it cannot pass for another message."""

        def formatMessage(self, record: logging.LogRecord) -> str:
            return sanitize(super().formatMessage(record))

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(SingleLineFormatter("jobdb: %(levelname)s: %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("jobdb").setLevel(logging.INFO if verbose == 1 else logging.DEBUG)


def _show_warning(message: Warning | str, *_location: object, **_options: object) -> None:
    from .messages import print_warning

    print_warning(str(message))


def root_command() -> Command:
    """Return the whole command line as one command, for the entry point and for the reference's generator."""
    return get_command(app)


def run() -> None:
    """Run this process's command line; end by SystemExit or by the command's error."""
    import warnings

    output.prepare_streams()
    warnings.showwarning = _show_warning
    try:
        root_command().main(prog_name="jobdb")
    except SystemExit:
        try:
            output.flush()  # what was printed without running a command: --version, --help
        except BrokenPipeError:
            raise SystemExit(141) from None
        raise
