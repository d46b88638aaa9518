"""The ``jobdb`` command: ``main`` runs a command and turns every failure into one line on stderr and an exit code.

Called by the installed script and by ``python -m jobdb.cli``; calls ``app``, which knows the commands. Nothing is
imported before it is needed: agents run this command once per event, and most of its time is its start.
"""

from __future__ import annotations

import gc
import os
import sys

from jobdb.system.isolated_python import remove_cwd_from_sys_path

INTERRUPTED = 130
DEFECT = 70


def main() -> None:
    """Run this process's command line and exit with its code."""
    # Imported modules stay loaded, so collecting them again and again while more are imported is wasted work.
    gc.set_threshold(50_000)
    remove_cwd_from_sys_path()
    try:
        from .process_state import reset_inherited_state

        reset_inherited_state()
        from .app import run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        try:
            code = _report(error)
        except OSError as shortage:  # too few file descriptors even to import what would explain the error
            code = 5
            sys.stderr.write(f"jobdb: {error}; details are not available ({shortage}): raise the limit (ulimit -n)\n")
        sys.exit(code)
    finally:
        # The interpreter's last collections would traverse every module once more: a tenth of the whole run.
        gc.freeze()


def _report(error: Exception) -> int:
    """Print an error to stderr and return the exit code for it."""
    from jobdb.errors import JobdbError
    from jobdb.system.descriptor_shortage import is_shortage, shortage_error

    from .messages import print_error

    if os.environ.get("JOBDB_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    if isinstance(error, JobdbError):
        print_error(error.for_command_line())
        return error.exit_code
    if is_shortage(error):
        print_error(shortage_error(error).for_command_line())
        return 5
    if isinstance(error, OSError):
        from jobdb.urls import missing_folder_reason

        if isinstance(error, FileNotFoundError) and (reason := missing_folder_reason()):
            print_error(reason)
            return 5
        file = f"{error.filename}: " if error.filename else ""
        print_error(f"{file}{error.strerror or error}; check the path, its permissions and the disk, and try again")
        return 5
    if isinstance(error, MemoryError):
        print_error("out of memory; pass less data at a time")
        return 5
    print_error(
        f"unexpected {type(error).__name__}: {error}; this is a bug in jobdb: JOBDB_DEBUG=1 shows the traceback, "
        "please report it"
    )
    return DEFECT
