"""``python -m jobdb.legacy.registry``: the old registry script's commands, for shell callers that are not changed yet.

Called by that module alone; calls its functions. Records are printed as JSON, without token and password unless
``--with-secrets`` asks for them. Exit codes are those of ``jobdb``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from ..errors import JobdbError
from ..model import JobStatus
from ..system.terminal import guarded, visible_json
from . import registry as functions

Json = Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    sys.stdout, sys.stderr = guarded(sys.stdout), guarded(sys.stderr)
    given = _parser().parse_args(arguments)
    try:
        return int(_COMMANDS[given.command](given))
    except JobdbError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _register(given: argparse.Namespace) -> int:
    fields = {
        "prompt": given.prompt,
        "agent": given.agent,
        "job_id": given.job_id,
        "agent_session": given.agent_session,
        "topic_prefix": given.topic_prefix,
        "timeout_sec": given.timeout_sec,
        "idle_timeout_sec": given.idle_timeout_sec,
        "expected_artifacts": given.expected_artifact or None,
    }
    if given.broker_host:
        fields["broker"] = {"host": given.broker_host, "port": given.broker_port, "tls": given.tls}
    record = functions.register_job(given.registry_dir, fields)
    print(record["job_id"])
    return 0


def _list(given: argparse.Namespace) -> int:
    for record in functions.list_jobs(given.registry_dir, status=given.status, agent=given.agent):
        print(json.dumps(_shown(record, given.with_secrets)))
    return 0


def _show(given: argparse.Namespace) -> int:
    record = functions.load_job(given.registry_dir, given.job_id)
    shown = json.dumps(_shown(record, given.with_secrets), ensure_ascii=False, indent=2)
    print("\n".join(map(visible_json, shown.split("\n"))))
    return 0


def _pick(given: argparse.Namespace) -> int:
    record = functions.pick_pending(given.registry_dir, agent=given.agent, agent_session=given.agent_session)
    if record is None:
        print("nothing is pending", file=sys.stderr)
        return 1
    print(json.dumps(_shown(record, given.with_secrets)))
    return 0


def _status(given: argparse.Namespace) -> int:
    if given.status is None:
        print(functions.load_job(given.registry_dir, given.job_id)["status"])
    else:
        print(functions.update_status(given.registry_dir, given.job_id, given.status)["status"])
    return 0


_COMMANDS = {"register": _register, "list": _list, "show": _show, "pick": _pick, "status": _status}


def _shown(record: dict[str, Json], with_secrets: bool) -> dict[str, Json]:
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
        made = commands.add_parser(name, help=text, description=text)
        made.add_argument("--registry-dir", default=".mam/jobs", help="folder of records (default: .mam/jobs)")
        return made

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

    listing = command("list", "Show all jobs, one JSON record a line.")
    listing.add_argument("--status", choices=list(JobStatus))
    listing.add_argument("--agent")

    show = command("show", "Show one job's record as JSON.")
    show.add_argument("job_id")

    pick = command("pick", "Take the oldest pending job; prints its record, or exits with 1.")
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
