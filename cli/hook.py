"""The ``hook`` command, which agents call before and after they use a tool.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls ``jobdb.hooks``. Whatever goes wrong
here denies: exit code 2 and a reason on stderr.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from jobdb.hooks.payload import HookInput

POLICY_VARIABLE = "JOBDB_POLICY"
DENIED = 2
_JOB_VARIABLES = ("JOBDB_JOB_ID", "JOBDB_ATTEMPT", "JOBDB_PROCESS_MARK")
_GRACE_SEC = 15.0
"""The time that a hook has beyond its wait; ``jobdb setup`` gives it twice that."""


def hook(
    ctx: typer.Context,
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The agent that calls: claude-code or codex.")],
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            metavar="FILE",
            help="Which tool calls need no question: TOML or JSON. Default: $JOBDB_POLICY; without both, "
            "every call is asked about.",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SEC", help="Deny if nobody answers within SEC seconds.", min=0)
    ] = 570.0,
    progress_every: Annotated[
        float,
        typer.Option("--progress-every", metavar="SEC", help="Report used tools at most once in SEC seconds.", min=0),
    ] = 10.0,
    without_job: Annotated[
        str,
        typer.Option(
            "--without-job",
            metavar="WHAT",
            help="Without $JOBDB_JOB_ID: 'deny' the call, or 'pass', which leaves it to the agent's own rules.",
        ),
    ] = "deny",
) -> None:
    """Answer an agent's hook: ask whether a tool may be used, and report what was done.

    Reads the hook's JSON on stdin and answers in the agent's own form. SessionStart becomes 'started' with the
    session's id, PostToolUse and Notification become 'progress'. PreToolUse and PermissionRequest are decided by the
    policy, or by whoever answers the question; the job and the attempt are those of $JOBDB_JOB_ID and
    $JOBDB_ATTEMPT. Whatever goes wrong denies the call: exit code 2, with the reason on stderr.
    'jobdb setup' writes it into the agent's configuration.

    \b
    Example:
      jobdb hook claude-code --policy policy.toml < payload.json
    """
    call = None
    try:
        from jobdb.core.arguments import seconds

        _start_watchdog(seconds("--wait", wait) + _GRACE_SEC)
        call = _read_call(agent)
        if without_job not in ("deny", "pass"):
            from jobdb.errors import InvalidInput

            raise InvalidInput(f"--without-job is {without_job!r:.40}; use deny or pass")
        if without_job == "pass" and not any(map(os.environ.get, _JOB_VARIABLES)):
            return
        text = _answer(ctx, call, policy=policy, wait=wait, progress_every=progress_every)
        if text:
            sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BaseException as problem:
        _deny(problem, decides=call is None or call.event.decides)


def _read_call(agent: str) -> HookInput:
    from jobdb.errors import InvalidInput
    from jobdb.hooks.payload import MAX_BYTES, Agent, parse_input

    if agent not in tuple(Agent):
        raise InvalidInput(f"unknown agent {agent!r:.40}; use {' or '.join(Agent)}")
    if sys.stdin.isatty():
        raise InvalidInput("the hook's JSON is read from stdin, which is a terminal; agents call this command")
    return parse_input(Agent(agent), sys.stdin.buffer.read(MAX_BYTES + 1))


def _answer(ctx: typer.Context, call: HookInput, *, policy: str | None, wait: float, progress_every: float) -> str:
    """Do what the hook is for; return what it prints."""
    from jobdb.hooks.policy import Policy, read_policy
    from jobdb.hooks.run import decide, report
    from jobdb.hooks.state import AttemptState

    from .claimed_job import resolve_attempt, resolve_job
    from .context import open_registry

    path = policy or os.environ.get(POLICY_VARIABLE)
    rules = read_policy(path) if path else Policy()
    job = resolve_job(None)
    attempt = resolve_attempt(job, None)
    state = AttemptState.find(job, attempt, os.environ)
    if not call.event.decides:
        from jobdb.hooks.payload import HookEvent

        if call.event is HookEvent.POST_TOOL_USE and not state.take_turn(every_sec=progress_every):
            return ""
        with open_registry(ctx) as registry:
            report(registry, call, job, attempt)
        return ""
    from jobdb.hooks.answers import render

    with open_registry(ctx) as registry:
        decision = decide(registry, call, job, attempt, policy=rules, state=state, wait_sec=wait)
    return render(call, decision)


def _start_watchdog(limit_sec: float) -> None:
    """Deny when the hook has taken too long, whatever it is doing: the agent would let the tool run soon after."""
    import threading

    def end() -> None:
        os.write(2, b"jobdb: the hook took too long: denied\n")
        os._exit(DENIED)

    timer = threading.Timer(limit_sec, end)
    timer.daemon = True
    timer.start()


def _deny(problem: BaseException, *, decides: bool) -> NoReturn:
    """Print the reason and exit: with 2, which denies; with 1 where the agent only told what has happened."""
    reason = f"unexpected {type(problem).__name__}"
    try:
        from jobdb.errors import JobdbError
        from jobdb.system.terminal import sanitize

        text = problem.for_command_line() if isinstance(problem, JobdbError) else f"{reason}: {problem}"
        reason = sanitize(text.replace("\n", " "))
    finally:
        # Not sys.exit: nothing that runs at the interpreter's end may change the code.
        try:
            os.write(2, f"jobdb: {reason}{': denied' if decides else ''}\n".encode("utf-8", "backslashreplace"))
        finally:
            os._exit(DENIED if decides else 1)
