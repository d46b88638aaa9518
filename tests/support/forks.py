"""Forked children and their exit codes."""

import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from jobdb import ForkedRegistry, Registry

TIMEOUT_SEC = 30.0
REFUSED, DONE, FAILED = 7, 0, 1


def run_in_child(run: Callable[[], object]) -> int:
    """Run it in a forked child; return `DONE`, `REFUSED` for a ForkedRegistry, or `FAILED`."""
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


def wait_for_child(child: int) -> int:
    deadline = time.monotonic() + TIMEOUT_SEC
    while (found := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(found[1])


def write(path: Path, jobs: int = 1) -> None:
    with Registry.open(path, create=True, busy_timeout_sec=5) as registry:
        for _ in range(jobs):
            registry.register(agent="a", prompt="p")
