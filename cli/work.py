"""The ``work`` command: claims jobs and runs a command for each of them.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls ``jobdb.work``, which does the work, and
``work_display``, which shows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .context import open_registry
from .inputs import check_time_limit
from .parameters import AsJson

if TYPE_CHECKING:
    from types import FrameType

    from jobdb.work import Worker


def work(
    ctx: typer.Context,
    command: Annotated[
        list[str], typer.Argument(metavar="CMD…", help="The agent's command and its arguments.", show_default=False)
    ],
    agent: Annotated[str | None, typer.Option("--agent", "-a", metavar="NAME", help="Only jobs of this agent.")] = None,
    agent_session: Annotated[
        str | None, typer.Option("--agent-session", metavar="NAME", help="Only jobs of this session.")
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", metavar="N", help="How many jobs run at a time.", min=1, max=10_000)
    ] = 1,
    worker_name: Annotated[
        str | None,
        typer.Option(
            "--worker", metavar="NAME", envvar="JOBDB_WORKER", help="The worker's name. Default: host:process."
        ),
    ] = None,
    lease_sec: Annotated[
        float,
        typer.Option(
            "--lease-sec", metavar="SEC", help="The length of the leases, which are renewed after a third of it."
        ),
    ] = 60.0,
    drain_sec: Annotated[
        float,
        typer.Option("--drain-sec", metavar="SEC", help="How long running jobs may go on after SIGTERM or Ctrl-C."),
    ] = 600.0,
    grace_sec: Annotated[
        float,
        typer.Option(
            "--grace-sec", metavar="SEC", help="The time between SIGTERM and SIGKILL for a job that is stopped."
        ),
    ] = 10.0,
    workdir: Annotated[
        str | None,
        typer.Option("--workdir", metavar="DIR", help="The folder in which CMD runs. Default: the current folder."),
    ] = None,
    before: Annotated[
        str | None,
        typer.Option("--before", metavar="CMD", help="A shell command to run before each job, such as a checkout."),
    ] = None,
    after: Annotated[
        str | None, typer.Option("--after", metavar="CMD", help="A shell command to run after each job.")
    ] = None,
    log_dir: Annotated[
        str | None,
        typer.Option(
            "--log-dir", metavar="DIR", help="The folder of the logs. Default: 'logs' beside a SQLite database."
        ),
    ] = None,
    log_max_mb: Annotated[
        float,
        typer.Option("--log-max-mb", metavar="MB", help="The largest size of an attempt's log, in megabytes.", min=0),
    ] = 16.0,
    once: Annotated[bool, typer.Option("--once", help="Run one job, then end; wait for it if necessary.")] = False,
    until_empty: Annotated[bool, typer.Option("--until-empty", help="End when no job is ready and none runs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a command for each job: claim, run, renew, and record how it ended.

    CMD runs with the job's prompt on its stdin, or in place of {prompt} or, as the name of a file, {prompt_file} in
    an argument; {job_id} and {attempt} are replaced, too. Exit code 0 completes the job if the expected artifacts
    exist in --workdir; 75 gives it back to try later; anything else is a failure: the job ends as error, or is tried
    again if it was registered with --max-attempts and has tries left.

    CMD's environment has JOBDB_JOB_ID, JOBDB_ATTEMPT, JOBDB_URL and JOBDB_WORKER; JOBDB_EVENTS, a pipe that takes
    one event per line, such as 'progress step 3 of 10'; and JOBDB_CONTEXT, a JSON file about the job and its earlier
    attempts. It holds no secret. What CMD prints goes to the attempt's log: 'jobdb logs JOB'.

    All processes that a job starts end with it, also when this worker is killed. SIGTERM or Ctrl-C stops claiming and
    gives running jobs --drain-sec to end before they are given back; a second one stops and gives back at once.
    Exit code 127 if CMD is missing, 126 if it cannot be executed; otherwise 0, however the jobs ended.

    \b
    Examples:
      jobdb work --agent codex -c 4 -- codex exec --skip-git-repo-check -
      jobdb work --agent sorter --until-empty -- ./sort-agent.sh
      jobdb work --before 'git worktree add $JOBDB_JOB_ID' --after 'git worktree remove -f $JOBDB_JOB_ID' -- ./agent.sh
    """
    from jobdb.engines.identity import read_identity
    from jobdb.work import CommandRunner, RunnerUnusable, Worker
    from jobdb.work.logs import default_log_folder

    from .messages import print_error
    from .work_display import make_display

    with open_registry(ctx, checkpoint=True) as registry:
        runner = CommandRunner(
            command,
            before=before,
            after=after,
            workdir=workdir,
            log_dir=log_dir or default_log_folder(registry.url, read_identity(registry.store).registry_id),
            grace_sec=check_time_limit(grace_sec, option="--grace-sec") or 0.0,
            log_max_bytes=round(log_max_mb * 1_000_000),
            adopt_orphans=True,
        )
        display = make_display(as_json=as_json, slots=concurrency)
        worker = Worker(
            registry,
            runner,
            concurrency=concurrency,
            agent=agent,
            agent_session=agent_session,
            name=worker_name,
            lease_sec=lease_sec,
            drain_sec=check_time_limit(drain_sec, option="--drain-sec") or 0.0,
            announce=True,
            once=once,
            until_empty=until_empty,
            on_event=display.show,
        )
        _handle_signals(worker)
        try:
            with display:
                summary = worker.run()
        except RunnerUnusable as error:
            print_error(str(error))
            raise typer.Exit(error.exit_code) from None
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)


def _handle_signals(worker: Worker) -> None:
    """Drain on the first SIGTERM, SIGINT or SIGHUP, and stop at once on the second."""
    import signal

    received = 0

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        if received == 1:
            worker.drain()
        else:
            worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, handle)
