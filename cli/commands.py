"""Which commands there are and where they live. A command's module is imported when the command is run, not before.

Called by ``app``, which makes a Typer group of it. A command is a plain function with a Typer signature, or, for a
group of commands, a ``typer.Typer``.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from .param_conversion import PlainCommand, use_plain_converters

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Entry(NamedTuple):
    """Where a command is (its module and the name in it), and its line in the overview."""

    module: str
    name: str
    summary: str


SECTIONS: dict[str, dict[str, Entry]] = {
    "Delegating jobs": {
        "register": Entry("register", "register", "Register a job and print its id."),
        "list": Entry("jobs", "list_jobs", "List jobs, newest first."),
        "show": Entry("jobs", "show", "Show one job."),
        "events": Entry("events", "events", "Show what was said about a job."),
        "wait": Entry("wait", "wait", "Wait until a job has ended."),
        "cancel": Entry("finish", "cancel", "End a pending or running job as cancelled."),
    },
    "Working on jobs": {
        "claim": Entry("claims", "claim", "Take the next pending job and print its id."),
        "renew": Entry("claims", "renew", "Give a claim's lease a new end."),
        "release": Entry("claims", "release", "Give a claimed job back."),
        "publish": Entry("publish", "publish", "Record an event about a job and print its seq."),
        "complete": Entry("finish", "complete", "End a job well: publish 'completed'."),
        "fail": Entry("finish", "fail", "End a job as failed: publish 'error'."),
    },
    "Observing jobs": {
        "accept": Entry("accept", "accept", "Verify events from the wire and give each a verdict."),
        "subscribe": Entry("subscribe", "subscribe", "Follow events, each handled at least once."),
        "watch": Entry("watch", "watch", "Watch the registry live."),
        "stats": Entry("stats", "stats", "Show how the work goes in numbers."),
        "ui": Entry("ui", "ui", "Browse the registry in a web browser."),
        "query": Entry("query", "query", "Ask the database with SQL, reading only."),
    },
    "Other machines": {
        "ticket": Entry(
            "ticket", "ticket", "Write a ticket: what a worker on another machine needs to publish a job's events."
        ),
        "relay": Entry("relay", "relay", "Deliver events to the jobs' MQTT brokers."),
    },
    "Keeping the registry": {
        "init": Entry("database", "init", "Make a database."),
        "migrate": Entry("database", "migrate", "Bring an older database to the present schema."),
        "trust": Entry("trust", "trust", "Trust the database of a folder that came from elsewhere."),
        "doctor": Entry("doctor", "doctor", "Check the database and all around it."),
        "identity": Entry("identity", "identity", "Show which registry this is; say that it was moved, or copied."),
        "probe": Entry("doctor", "probe", "Prove that a folder's locks exclude, before a database is trusted to it."),
        "backup": Entry("backup", "backup", "Save the whole database into one file, while it is in use."),
        "restore": Entry("backup", "restore", "Put a saved database in the place of the present one, which is kept."),
        "reap": Entry("maintenance", "reap", "Bring back what dead workers left and end what is overdue."),
        "prune": Entry("maintenance", "prune", "Delete jobs that ended long ago."),
        "token": Entry("tokens", "app", "Show, rotate and revoke the tokens that sign events."),
        "import": Entry("import_export", "import_", "Import a registry of JSON files."),
        "export": Entry("import_export", "export", "Write a registry of JSON files."),
        "copy": Entry("import_export", "copy", "Copy a whole registry to another database."),
    },
}


def load_command(name: str, entry: Entry) -> Any:
    """The command, from its module."""
    target = getattr(import_module(f".{entry.module}", __package__), entry.name)
    if isinstance(target, typer.Typer):
        group = get_group(target)
        group.name = name
        return group
    single = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=CONTEXT_SETTINGS)
    single.command(name, cls=PlainCommand)(target)
    return get_command(single)


class LazyCommands(MutableMapping[str, Any]):
    """The commands by name, each built when it is asked for."""

    def __init__(self) -> None:
        self._entries = {name: entry for section in SECTIONS.values() for name, entry in section.items()}
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = load_command(name, self._entries[name])
        return self._built[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._built[name] = command

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class PlainGroup(TyperGroup):
    """A group of commands whose own parameters are converted plainly."""

    def get_params(self, ctx: Any) -> list[Any]:
        return use_plain_converters(super().get_params(ctx))


class CommandGroup(PlainGroup):
    """The top of the command line: its overview comes from the table above, so that it imports no command."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = LazyCommands()

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(len(name) for name in self.commands)
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), entry.summary) for name, entry in section.items()])

    def invoke(self, ctx: Any) -> Any:
        """Runs the command and hands its output over, while failures of the output can still be told.

        Without this, Typer would answer an interrupt or a reader that went away each in its own version's way.
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
            broken = output.flush_or_discard_stdout()
            if broken is None or isinstance(error, JobdbError) or getattr(error, "filename", None):
                raise
            if isinstance(broken, BrokenPipeError):
                raise SystemExit(141) from None
            raise output.stdout_failed(broken) from error
        return result
