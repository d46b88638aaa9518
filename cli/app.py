"""The root of the command line: the options that go before every command.

Called by ``main``; the commands themselves are in ``commands``.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.main import get_command

from . import output
from .commands import CONTEXT_SETTINGS, CommandGroup
from .context import Settings, warn_of_password

app = typer.Typer(
    cls=CommandGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings=CONTEXT_SETTINGS,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from jobdb import __version__

        output.line(f"jobdb {__version__}")
        raise typer.Exit


@app.callback(
    epilog="Exit codes: 0 done; 1 the answer is no, or the job failed; 2 wrong usage or input; 3 timed out; "
    "4 the database is busy; 5 the database or its file system is unusable; 6 cancelled."
)
def root(
    ctx: typer.Context,
    db: Annotated[
        str | None,
        typer.Option(
            "--db",
            metavar="URL",
            help="The database: sqlite:///FILE, postgresql://HOST/NAME or a file's name. "
            "Otherwise $JOBDB_URL, otherwise sqlite:///.jobdb/jobs.db.",
        ),
    ] = None,
    busy_timeout: Annotated[
        float, typer.Option("--busy-timeout", metavar="SEC", help="How long to wait for other writers.")
    ] = 30.0,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, show_default=False, help="Log to stderr; -vv logs more.")
    ] = 0,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """The job registry of multi-agent systems: jobs, their signed events and their tokens in one database.

    \b
    A first session:
      jobdb init
      JOB=$(jobdb register --agent claude-code "sort ten problems")
      jobdb claim --job $JOB
      jobdb publish $JOB progress --detail "step 1 of 10"
      jobdb complete $JOB --detail "all sorted"
      jobdb show $JOB

    'jobdb COMMAND --help' explains a command.
    """
    ctx.obj = Settings(db=db, busy_timeout_sec=busy_timeout)
    warn_of_password(db)
    output.set_hint_database(db)
    if verbose:
        _log_to_stderr(verbose)


def _log_to_stderr(verbose: int) -> None:
    import logging

    from jobdb.system.terminal import sanitize

    class OneLine(logging.Formatter):
        """A message is one line, whatever names are in it: it cannot pass for another message."""

        def formatMessage(self, record: logging.LogRecord) -> str:
            return sanitize(super().formatMessage(record))

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("jobdb: %(levelname)s: %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("jobdb").setLevel(logging.INFO if verbose == 1 else logging.DEBUG)


def _show_warning(message: Warning | str, *_place: Any, **_more: Any) -> None:
    output.warn(message)


def command() -> Any:
    """The whole command line as one command, for the entry point and for the reference's generator."""
    return get_command(app)


def run() -> None:
    """Runs this process's command line; ends by SystemExit or by the error of a command."""
    import warnings

    output.prepare_streams()
    warnings.showwarning = _show_warning
    try:
        command().main(prog_name="jobdb")
    except SystemExit:
        try:
            output.flush()  # what was said before a command ran: --version, --help
        except BrokenPipeError:
            raise SystemExit(141) from None
        raise
