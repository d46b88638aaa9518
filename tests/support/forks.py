"""Forked children and their exit codes."""

import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from jobdb import ForkedRegistry, Registry
from jobdb.engines.sql.statements import JOBS

TIMEOUT_SEC = 30.0
REFUSED, DONE, FAILED = 7, 0, 1


def run_in_child(run: Callable[[], object]) -> int:
    """Call ``run`` in a forked child; return `DONE`, `REFUSED` if it raised ForkedRegistry, else `FAILED`."""
    child = os.fork()
    if child == 0:
        code = FAILED
        try:
            run()
            code = DONE
        except ForkedRegistry:
            code = REFUSED
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return wait_for_child(child)


def fork_in_transaction(registry: Registry) -> int:
    """Fork inside a write transaction of the parent, which both then leave; return the child's exit code.

    The child ends with `REFUSED` if leaving the transaction raises ForkedRegistry, else with `FAILED`. The parent's
    transaction, which commits, sets the setting "by" to "parent".
    """
    parent, child = os.getpid(), 0
    try:
        with registry.engine.store.write() as tx:
            tx.run(JOBS.put_setting, name="by", value="parent")
            child = os.fork()
    except ForkedRegistry:
        os._exit(REFUSED)
    finally:
        if os.getpid() != parent:
            os._exit(FAILED)
    return wait_for_child(child)


def wait_for_child(child: int) -> int:
    """Wait for a forked child, killing it after `TIMEOUT_SEC`; return its exit code, or the negated signal number."""
    deadline = time.monotonic() + TIMEOUT_SEC
    while (found := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(found[1])


def write(path: Path, jobs: int = 1) -> None:
    """Open a database, created if missing, and register jobs in it."""
    with Registry.open(path, create=True, busy_timeout_sec=5) as registry:
        for _ in range(jobs):
            registry.register(agent="a", prompt="p")
