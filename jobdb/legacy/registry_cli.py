"""The command line of ``python -m jobdb.legacy.registry``: the old registry script's commands, for shell callers.

Called only by that module, which passes its functions. Records are printed as JSON, without token and password unless
``--with-secrets`` is given. Exit codes are those of ``jobdb``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..errors import JobdbError
from ..model import JobStatus
from ..system.terminal import sanitize_json, wrap_terminal

Json = Any


class RegistryFunctions(NamedTuple):
    """The functions of `jobdb.legacy.registry` that the commands call."""

    register_job: Callable[..., dict[str, Json]]
    load_job: Callable[..., dict[str, Json]]
    list_jobs: Callable[..., list[dict[str, Json]]]
    pick_pending: Callable[..., dict[str, Json] | None]
    update_status: Callable[..., dict[str, Json]]


def main(functions: RegistryFunctions, arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        functions: the functions of the drop-in module.
        arguments: the command's arguments; those of the process if None.
    """
    sys.stdout, sys.stderr = wrap_terminal(sys.stdout), wrap_terminal(sys.stderr)
    args = _parser().parse_args(arguments)
    try:
        return _COMMANDS[args.command](functions, args)
    except JobdbError as error:
        print(f"error: {error.for_command_line()}", file=sys.stderr)
        return error.exit_code


def _register(functions: RegistryFunctions, args: argparse.Namespace) -> int:
    fields = {
        "prompt": args.prompt,
        "agent": args.agent,
        "job_id": args.job_id,
        "agent_session": args.agent_session,
        "topic_prefix": args.topic_prefix,
        "timeout_sec": args.timeout_sec,
        "idle_timeout_sec": args.idle_timeout_sec,
        "expected_artifacts": args.expected_artifact or None,
    }
    if args.broker_host:
        fields["broker"] = {"host": args.broker_host, "port": args.broker_port, "tls": args.tls}
    record = functions.register_job(args.registry_dir, fields)
    print(record["job_id"])
    return 0


def _list(functions: RegistryFunctions, args: argparse.Namespace) -> int:
    for record in functions.list_jobs(args.registry_dir, status=args.status, agent=args.agent):
        print(json.dumps(_redacted(record, args.with_secrets)))
    return 0


def _show(functions: RegistryFunctions, args: argparse.Namespace) -> int:
    record = functions.load_job(args.registry_dir, args.job_id)
    shown = json.dumps(_redacted(record, args.with_secrets), ensure_ascii=False, indent=2)
    print("\n".join(map(sanitize_json, shown.split("\n"))))
    return 0


def _pick(functions: RegistryFunctions, args: argparse.Namespace) -> int:
    record = functions.pick_pending(args.registry_dir, agent=args.agent, agent_session=args.agent_session)
    if record is None:
        print("nothing is pending", file=sys.stderr)
        return 1
    print(json.dumps(_redacted(record, args.with_secrets)))
    return 0


def _status(functions: RegistryFunctions, args: argparse.Namespace) -> int:
    if args.status is None:
        print(functions.load_job(args.registry_dir, args.job_id)["status"])
    else:
        print(functions.update_status(args.registry_dir, args.job_id, args.status)["status"])
    return 0


_COMMANDS = {"register": _register, "list": _list, "show": _show, "pick": _pick, "status": _status}


def _redacted(record: dict[str, Json], with_secrets: bool) -> dict[str, Json]:
    if with_secrets:
        return record
    shown = {name: value for name, value in record.items() if name != "auth_token"}
    if shown["broker"] is not None:
        shown["broker"] = {name: value for name, value in shown["broker"].items() if name != "password"}
    return shown


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobdb.legacy.registry",
        description="The old registry script's commands, on the database ($JOBDB_URL, else .jobdb/jobs.db in the "
        "registry's workspace). 'jobdb --help' shows the new ones.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=text, description=text)
        subparser.add_argument("--registry-dir", default=".mam/jobs", help="folder of records (default: .mam/jobs)")
        return subparser

    register = command("register", "Record a new job; prints its id.")
    register.add_argument("--prompt", required=True)
    register.add_argument("--agent", required=True)
    register.add_argument("--job-id")
    register.add_argument("--agent-session")
    register.add_argument("--topic-prefix")
    register.add_argument("--timeout-sec", type=int)
    register.add_argument("--idle-timeout-sec", type=int)
    register.add_argument("--expected-artifact", action="append", help="relative path; may be given again")
    register.add_argument("--broker-host")
    register.add_argument("--broker-port", type=int, default=1883)
    register.add_argument("--tls", action="store_true")

    listing = command("list", "Show all jobs, one JSON record per line.")
    listing.add_argument("--status", choices=list(JobStatus))
    listing.add_argument("--agent")

    show = command("show", "Show one job's record as JSON.")
    show.add_argument("job_id")

    pick = command("pick", "Claim the oldest pending job; prints its record, or exits with 1.")
    pick.add_argument("--agent")
    pick.add_argument("--agent-session")

    status = command("status", "Print a job's status, or set it.")
    status.add_argument("job_id")
    status.add_argument("status", nargs="?", choices=list(JobStatus))

    for shows_records in (listing, show, pick):
        shows_records.add_argument(
            "--with-secrets", action="store_true", help="print the token and the broker's password too"
        )
    return parser
