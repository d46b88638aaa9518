"""The ``jobdb`` command. ``main`` is its entry point: it runs a command and turns every failure into a sentence on
stderr and an exit code, never a traceback.

Called by the installed script and ``python -m jobdb.cli``; calls ``app`` for the commands. Nothing is imported here
before it is needed: agents run this command once an event, and its start is most of its time.
"""

from __future__ import annotations

import gc
import os
import sys

from jobdb.system.isolated_python import remove_cwd_from_sys_path

INTERRUPTED = 130
DEFECT = 70


def main() -> None:
    """Runs the command line of this process and exits with its code."""
    # What is imported stays: there is no use in looking through it again and again while more comes in.
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
        except OSError as lack:  # no file descriptor even for what tells of it
            code = 5
            sys.stderr.write(f"jobdb: {error}; and this cannot be told better ({lack}). Raise the limit (ulimit -n)\n")
        sys.exit(code)
    finally:
        # The interpreter's last collections would look through every module once more: a tenth of the whole run.
        gc.freeze()


def _report(error: Exception) -> int:
    """Says on stderr what happened; returns the exit code for it."""
    from jobdb.errors import JobdbError
    from jobdb.system.descriptor_shortage import is_shortage, shortage_error

    from .output import print_error

    if os.environ.get("JOBDB_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    if isinstance(error, JobdbError):
        print_error(error.for_command_line())
        return error.exit_code
    if is_shortage(error):
        print_error(str(shortage_error(error)))
        return 5
    if isinstance(error, OSError):
        from jobdb.urls import missing_folder_reason

        if isinstance(error, FileNotFoundError) and (gone := missing_folder_reason()):
            print_error(gone)
            return 5
        place = f"{error.filename}: " if error.filename else ""
        print_error(f"{place}{error.strerror or error}; check the place, its rights and its disk, and try again")
        return 5
    if isinstance(error, MemoryError):
        print_error("there is not enough memory for this; give less at a time")
        return 5
    print_error(f"unexpected {type(error).__name__}: {error}. A defect: JOBDB_DEBUG=1 shows where; please report it")
    return DEFECT
