"""A worker as people write it, with the options of `jobdb work` that `tests.support.agent.chaos` uses: a control.

It claims with a lease, renews, and completes with the attempt: jobs are never lost. But nobody ends its agents when it
is killed or has lost a claim. The checks of the tests must find that.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from types import FrameType

from jobdb import Registry, StaleAttempt
from jobdb.model import Claim
from tests.support.agent.process_table import MARK_VARIABLE

RUNNING = dict[subprocess.Popen[bytes], Claim]


class _Drain(BaseException):
    """The worker was told to end."""


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Drain


def start_agent(command: list[str], claim: Claim) -> subprocess.Popen[bytes]:
    mark = f"{os.environ['JOBDB_URL']}:{claim.job_id}:{claim.attempt}".replace("://", "//")
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, MARK_VARIABLE: mark}
    )
    assert process.stdin is not None
    process.stdin.write(claim.job.prompt.encode())
    process.stdin.close()
    return process


def finish(registry: Registry, claim: Claim, code: int) -> None:
    try:
        if code == 0:
            registry.complete(claim.job_id, attempt=claim.attempt)
        else:
            registry.fail(claim.job_id, attempt=claim.attempt, detail=f"exit code {code}")
    except StaleAttempt:
        return


def work(registry: Registry, options: argparse.Namespace, running: RUNNING) -> None:
    """Claim, renew and finish until told to end."""
    renew_at = 0.0
    while True:
        for process in [process for process in running if process.poll() is not None]:
            finish(registry, running.pop(process), process.returncode)
        while len(running) < options.c:
            claim = registry.claim(worker=str(os.getpid()), agent=options.agent, lease_sec=options.lease_sec)
            if claim is None:
                break
            running[start_agent(options.command, claim)] = claim
        if time.monotonic() >= renew_at:
            renew_at = time.monotonic() + options.lease_sec / 3
            for claim in running.values():
                try:
                    registry.renew(claim.job_id, attempt=claim.attempt, lease_sec=options.lease_sec)
                except StaleAttempt:
                    continue
        time.sleep(0.02)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--agent")
    parser.add_argument("-c", type=int)
    parser.add_argument("--lease-sec", type=float)
    parser.add_argument("--drain-sec", type=float)
    parser.add_argument("--log-dir")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    options.command.remove("--")
    signal.signal(signal.SIGTERM, _stop)
    with Registry.open(os.environ["JOBDB_URL"]) as registry:
        running: RUNNING = {}
        try:
            work(registry, options, running)
        except _Drain:
            for process, claim in running.items():
                process.terminate()
                registry.release(claim.job_id, attempt=claim.attempt)
    return 0


if __name__ == "__main__":
    sys.exit(main())
