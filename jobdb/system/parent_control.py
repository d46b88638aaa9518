"""Settings of a process about its parent and its orphans, by prctl(2), where the system has it.

Called by the worker, by the keepers of its jobs and by the server that forks them; imports only the standard library,
since the last two do.
"""

from __future__ import annotations

import ctypes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36


def set_child_subreaper() -> bool:
    """Make this process the parent of the orphans among its descendants, and return whether that worked.

    A process whose parent ends is given to its nearest ancestor with this setting instead of to the system's first
    process, so that it can be found, ended and reaped. The setting is not inherited by forked processes.

    Example:
        >>> from jobdb.system.parent_control import set_child_subreaper
        >>> is_subreaper = set_child_subreaper()  # False on macOS
    """
    return _prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1))


def set_parent_death_signal(number: int) -> bool:
    """Let this process receive a signal when the thread that forked it ends, and return whether that worked.

    Args:
        number: the signal.
    """
    return _prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number))


def set_process_name(name: bytes) -> bool:
    """Set the name that ``ps`` shows for this process, at most 15 bytes, and return whether that worked."""
    return _prctl(_PR_SET_NAME, ctypes.c_char_p(name))


def _prctl(option: int, value: object) -> bool:
    # The arguments are C longs; of a plain integer, ctypes would pass an int.
    unused = ctypes.c_ulong(0)
    return _prctl_function is not None and bool(_prctl_function(option, value, unused, unused, unused) == 0)


def _find_prctl() -> Callable[..., int] | None:
    try:
        return ctypes.CDLL(None).prctl
    except (AttributeError, OSError):
        return None


_prctl_function = _find_prctl()
