"""The table of commands: where each one lives, and a lazy group that imports a command's module when it is run.

Called by ``app``, whose group it is. A command is a plain function with a Typer signature, or, for a group of commands,
a ``typer.Typer``.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from .param_conversion import PlainCommand, use_plain_converters

if TYPE_CHECKING:
    from typer._click.core import Command, Context, Parameter
    from typer._click.formatting import HelpFormatter

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class CommandEntry(NamedTuple):
    """A command's module, its name in the module, and its line in the overview: the first line of its help."""

    module: str
    name: str
    summary: str


SECTIONS: dict[str, dict[str, CommandEntry]] = {
    "Delegating jobs": {
        "register": CommandEntry("register", "register", "Register a job and print its id."),
        "list": CommandEntry("jobs", "list_jobs", "List jobs, newest first."),
        "show": CommandEntry("jobs", "show", "Show a job."),
        "events": CommandEntry("events", "events", "Show a job's events."),
        "wait": CommandEntry("wait", "wait", "Wait until a job has ended."),
        "questions": CommandEntry("ask", "questions", "List the questions that wait for an answer, the oldest first."),
        "answer": CommandEntry("ask", "answer", "Answer a question of an agent; the first answer is final."),
        "cancel": CommandEntry("finish", "cancel", "Cancel a pending or running job."),
    },
    "Working on jobs": {
        "work": CommandEntry("work", "work", "Run a command for each job: claim, run, renew, and record how it ended."),
        "claim": CommandEntry("claims", "claim", "Claim the next ready job and print its id."),
        "renew": CommandEntry("claims", "renew", "Extend the lease of a claim."),
        "release": CommandEntry("claims", "release", "Give up a claim; the job becomes pending again."),
        "publish": CommandEntry("publish", "publish", "Publish an event of a job and print its seq."),
        "ask": CommandEntry("ask", "ask", "Ask a question about a job, and wait for the answer."),
        "complete": CommandEntry("finish", "complete", "End a job as completed: publish 'completed'."),
        "fail": CommandEntry("finish", "fail", "End a job as failed: publish 'error'."),
        "mcp": CommandEntry("mcp", "mcp", "Serve the registry's verbs as tools of an agent (MCP)."),
    },
    "Observing jobs": {
        "accept": CommandEntry("accept", "accept", "Verify received events and print a verdict for each."),
        "subscribe": CommandEntry("subscribe", "subscribe", "Follow events; each is handled at least once."),
        "logs": CommandEntry("logs", "logs", "Show what an attempt of a job has printed."),
        "workers": CommandEntry("workers", "workers", "Show the workers that run jobs."),
        "watch": CommandEntry("watch", "watch", "Watch the registry live in the terminal."),
        "stats": CommandEntry("stats", "stats", "Show statistics of jobs, durations and refused events."),
        "ui": CommandEntry("ui", "ui", "Browse the registry in a web browser."),
        "query": CommandEntry("query", "query", "Query the database with SQL, read-only."),
    },
    "Other machines": {
        "ticket": CommandEntry(
            "ticket", "ticket", "Write a ticket, with which a worker on another machine publishes a job's events."
        ),
        "relay": CommandEntry("relay", "relay", "Deliver events to the jobs' MQTT brokers."),
    },
    "Connecting agents": {
        "hook": CommandEntry(
            "hook", "hook", "Answer an agent's hook: ask whether a tool may be used, and report what was done."
        ),
        "setup": CommandEntry(
            "setup", "setup", "Connect an agent: write jobdb's hooks and MCP server into its configuration."
        ),
    },
    "Maintaining the registry": {
        "init": CommandEntry("database", "init", "Create a database."),
        "migrate": CommandEntry("database", "migrate", "Upgrade a database to the current schema."),
        "trust": CommandEntry("trust", "trust", "Trust the database in a folder that came from elsewhere."),
        "doctor": CommandEntry("doctor", "doctor", "Check the database and its environment."),
        "identity": CommandEntry(
            "identity", "identity", "Show the registry's identity; confirm that it was moved or copied."
        ),
        "probe": CommandEntry("probe", "probe", "Test whether a folder's file locks are safe for a database."),
        "backup": CommandEntry("backup", "backup", "Back up the whole database into one file, while it is in use."),
        "restore": CommandEntry("restore", "restore", "Replace the database with a backup; the replaced one is kept."),
        "reap": CommandEntry("maintenance", "reap", "Requeue jobs with expired leases, then end overdue jobs."),
        "prune": CommandEntry("maintenance", "prune", "Delete jobs that ended long ago."),
        "token": CommandEntry("tokens", "app", "Show, rotate and revoke the tokens that sign events."),
        "import": CommandEntry("import_export", "import_", "Import a registry of JSON files."),
        "export": CommandEntry("import_export", "export", "Export jobs as JSON files, NDJSON or CSV."),
        "copy": CommandEntry("copy", "copy", "Copy a whole registry to another database."),
    },
}


def load_command(name: str, entry: CommandEntry) -> Command:
    """Import a command's module and return the command."""
    target = getattr(import_module(f".{entry.module}", __package__), entry.name)
    if isinstance(target, typer.Typer):
        group = get_group(target)
        group.name = name
        return group
    single = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=CONTEXT_SETTINGS)
    single.command(name, cls=PlainCommand)(target)
    return get_command(single)


class LazyCommands(MutableMapping[str, "Command"]):
    """The commands by name, each built when it is first looked up."""

    def __init__(self) -> None:
        self._entries = {name: entry for section in SECTIONS.values() for name, entry in section.items()}
        self._built: dict[str, Command] = {}

    def __getitem__(self, name: str) -> Command:
        if name not in self._built:
            self._built[name] = load_command(name, self._entries[name])
        return self._built[name]

    def __setitem__(self, name: str, command: Command) -> None:
        self._built[name] = command

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class PlainGroup(TyperGroup):
    """A group of commands whose own parameters are converted without pydantic."""

    def get_params(self, ctx: Context) -> list[Parameter]:
        return use_plain_converters(super().get_params(ctx))


class CommandGroup(PlainGroup):
    """The root group; its overview is drawn from the table above, so that it imports no command."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = LazyCommands()

    def list_commands(self, ctx: Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        width = max(len(name) for name in self.commands)
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), entry.summary) for name, entry in section.items()])

    def invoke(self, ctx: Context) -> Any:
        """Run the command and flush its output while a failure to do so can still be reported.

        Otherwise Typer would handle an interrupt or a closed pipe, each version in its own way.
        """
        from jobdb.errors import JobdbError

        from . import output

        try:
            result = super().invoke(ctx)
            output.flush()
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except BrokenPipeError:
            output.flush_or_discard_stdout()
            raise SystemExit(141) from None
        except Exception as error:
            flush_error = output.flush_or_discard_stdout()
            if flush_error is None or isinstance(error, JobdbError) or (isinstance(error, OSError) and error.filename):
                raise
            if isinstance(flush_error, BrokenPipeError):
                raise SystemExit(141) from None
            raise output.stdout_error(flush_error) from error
        return result
