"""The ``mcp`` command, which lets an agent work with the registry by tools.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls ``jobdb.mcp``, which needs the extra
``jobdb[mcp]``. stdout belongs to the protocol: nothing is printed there.
"""

from __future__ import annotations

from typing import Annotated

import typer

from jobdb.errors import InvalidInput

from .context import open_registry
from .messages import print_hint


def mcp(
    ctx: typer.Context,
    worker: Annotated[
        str | None,
        typer.Option(
            "--worker", metavar="NAME", envvar="JOBDB_WORKER", help="The name it claims with. Default: host:process."
        ),
    ] = None,
) -> None:
    """Serve the registry's verbs as tools of an agent (MCP).

    An agent starts this command itself, by its configuration, and speaks the Model Context Protocol with it over stdin
    and stdout. The tools: register, claim, renew, release, publish, complete, fail, ask, questions, answer, show, list,
    wait and events.

    With JOBDB_JOB_ID and JOBDB_ATTEMPT set, as 'jobdb work' sets them for its agents, the tools are those for that job
    alone: publish, ask, show and events; and, if no 'jobdb work' runs the job, renew, release, complete and fail.
    Requires: pip install 'jobdb[mcp]'.

    \b
    Example:
      jobdb --db sqlite:////srv/jobs.db mcp
    """
    import os
    import sys

    try:
        from jobdb.mcp.own_job import own_job
        from jobdb.mcp.server import serve
    except ImportError as error:
        if (error.name or "").startswith("jobdb"):
            raise
        raise InvalidInput(
            "the MCP server needs the MCP SDK, which is not installed: pip install 'jobdb[mcp]'"
        ) from error
    if sys.stdin.isatty():
        print_hint("an agent starts this command and speaks JSON with it; press Ctrl-C to stop")
    with open_registry(ctx) as registry:
        name = worker or f"{os.uname().nodename}:{os.getpid()}"
        serve(registry, own=own_job(registry, os.environ), worker=name[:256])
