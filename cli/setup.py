"""The ``setup`` command, which connects an agent: its hooks and its MCP server.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls ``jobdb.hooks.setup``, and opens no
registry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .messages import print_note
from .output import print_json, print_text
from .parameters import AsJson

if TYPE_CHECKING:
    from jobdb.hooks.setup import FileEdit


def setup(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The agent: claude-code or codex.")],
    project: Annotated[
        str | None,
        typer.Option(
            "--project",
            metavar="DIR",
            help="Configure the agent for this project. Default: the current folder for claude-code, the user's "
            "configuration for codex.",
            show_default=False,
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option("--policy", metavar="FILE", help="Which tool calls need no question.", show_default=False),
    ] = None,
    wait: Annotated[
        int, typer.Option("--wait", metavar="SEC", help="Deny if nobody answers within SEC seconds.", min=1, max=86400)
    ] = 570,
    without_job: Annotated[
        str,
        typer.Option(
            "--without-job",
            metavar="WHAT",
            help="For an agent that works on no job: 'deny' its tools, or 'pass', which leaves them to its own rules.",
        ),
    ] = "deny",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take out what setup has written.")] = False,
    as_json: AsJson = False,
) -> None:
    """Connect an agent: write jobdb's hooks and MCP server into its configuration.

    Shows the change as a diff. Everything else in the files stays as it is; a file that cannot be parsed is not
    changed. --remove undoes it: byte for byte, if the file was not changed since.

    claude-code: .claude/settings.json and .mcp.json of the project. codex: config.toml in $CODEX_HOME or ~/.codex, or
    in .codex of the project; Codex runs no hook before you have trusted it.

    \b
    Examples:
      jobdb setup claude-code --policy policy.toml --dry-run
      jobdb setup codex
      jobdb setup codex --remove
    """
    import os

    from jobdb.errors import InvalidInput
    from jobdb.hooks.configuration import HookOptions
    from jobdb.hooks.payload import Agent
    from jobdb.hooks.policy import read_policy
    from jobdb.hooks.setup import apply_edits, plan_setup

    if agent not in tuple(Agent):
        raise InvalidInput(f"unknown agent {agent!r:.40}; use {' or '.join(Agent)}")
    if without_job not in ("deny", "pass"):
        raise InvalidInput(f"--without-job is {without_job!r:.40}; use deny or pass")
    if policy is not None:
        policy = os.path.abspath(policy)
        read_policy(policy)
    options = HookOptions(wait_sec=wait, policy=policy, without_job=without_job)
    edits = plan_setup(Agent(agent), project=project, remove=remove, options=options)
    if not dry_run:
        apply_edits(edits, remove=remove)
    _show(Agent(agent), edits, dry_run=dry_run, remove=remove, as_json=as_json)


def _show(agent: str, edits: list[FileEdit], *, dry_run: bool, remove: bool, as_json: bool) -> None:
    for edit in edits:
        if as_json:
            change = None if edit.before == edit.after else edit.diff()
            print_json({"path": edit.path, "diff": change, "written": change is not None and not dry_run})
        elif edit.before != edit.after:
            from jobdb.system.terminal import sanitize

            print_text("".join(f"{sanitize(line)}\n" for line in edit.diff().splitlines()))
        else:
            print_note(f"{edit.path}: nothing to change")
    if agent == "codex" and not remove and not as_json:
        print_note(
            "Codex skips hooks without a word until you trust them: start codex and enter /hooks, once after each "
            "change; for workers, 'codex exec --dangerously-bypass-hook-trust' runs all configured hooks"
        )
