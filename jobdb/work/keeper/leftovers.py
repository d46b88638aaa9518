"""The search for processes of a job's earlier attempts, by the mark in their environment.

Used by the keeper before it starts an attempt after the first; imports only the standard library. It is the last net:
earlier attempts end with their keeper, their server or their worker, unless all three were killed at once. A process
that has replaced its environment is found only as the descendant of one that has not.
"""

from __future__ import annotations

import os

from .process_tree import Process, all_pids, read_file, read_process, with_descendants

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .process_tree import Processes

MARK_VARIABLE = b"JOBDB_PROCESS_MARK"
_MAX_ENVIRONMENT_BYTES = 8 << 20


def job_of_mark(mark: bytes) -> bytes:
    """Return the begin that the marks of all attempts of a job have in common."""
    return mark.rpartition(b":")[0] + b":"


def attempt_of_mark(mark: bytes) -> int:
    """Return the number of the attempt; 0 if there is none."""
    number = mark.rpartition(b":")[2]
    return int(number) if number.isdigit() else 0


def find_leftovers(mark: bytes, visit: Callable[[Process], object] | None = None) -> Processes:
    """Return the living processes that were started by an attempt of this job, and their descendants.

    This process and its ancestors are left out: a worker may itself run below an attempt that has ended.

    Args:
        mark: the mark of any attempt of the job.
        visit: as for `with_descendants`.
    """
    wanted = b"\0" + MARK_VARIABLE + b"=" + job_of_mark(mark)
    ancestors = _own_ancestors()
    marked = [pid for pid in all_pids() if pid not in ancestors and wanted in _environment(pid)]
    return with_descendants(marked, ancestors, visit) if marked else {}


def is_running(process: Process) -> bool:
    """Return whether a process that was found earlier is still alive."""
    current = read_process(process.pid)
    return current is not None and current.started == process.started and not current.is_dead()


def _environment(pid: int) -> bytes:
    return b"\0" + (read_file(f"/proc/{pid}/environ", _MAX_ENVIRONMENT_BYTES) or b"")


def _own_ancestors() -> set[int]:
    found: set[int] = set()
    pid = os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        process = read_process(pid)
        pid = 0 if process is None else process.parent
    return found
