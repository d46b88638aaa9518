"""Python processes of our own that import no module from the current folder.

Python started with ``-c`` or ``-m`` searches the current folder first, and agents often can write to the current
folder: a ``json.py`` there would run with the master key in its environment. So processes are started
isolated (https://docs.python.org/3/using/cmdline.html#cmdoption-I) and get the import path of this process explicitly,
without the current folder. Called by whatever starts a process; ``jobdb.cli`` calls ``remove_cwd_from_sys_path`` in its
own.
"""

from __future__ import annotations

import os
import sys


def import_path() -> list[str]:
    """Return this process's import path as absolute folders, without the current one, for another process.

    The folder of this package comes last, so that the package is found however it was installed, and shadows nothing.
    """
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [*_without_cwd(sys.path), package]


def remove_cwd_from_sys_path() -> None:
    """Remove the current folder from this process's import path, where ``-m`` or ``PYTHONPATH`` has put it."""
    sys.path[:] = _without_cwd(sys.path)


def isolated_command(program: str, *arguments: str) -> list[str]:
    """Return the command that runs a program in an isolated Python process, with this process's import path.

    Args:
        program: Python source; its arguments begin at ``sys.argv[1]``.
        arguments: the program's arguments; other users of this machine can read them.
    """
    import site

    # -I omits the user's site-packages, and with them an editable installation there.
    flags = ["-E", "-P"] if site.ENABLE_USER_SITE else ["-I"]
    # The environment is ignored, so its settings for encodings and compiled files are passed on.
    flags += ["-X", f"utf8={sys.flags.utf8_mode}"]
    if sys.pycache_prefix is not None:
        flags += ["-X", f"pycache_prefix={os.path.abspath(sys.pycache_prefix)}"]
    if sys.dont_write_bytecode:
        flags.append("-B")
    setting = f"import sys; sys.path[:] = {import_path()!a}; "
    return [sys.executable, *flags, "-c", setting + program, *arguments]


def _without_cwd(path: list[str]) -> list[str]:
    """Return the path's absolute entries, without the current folder where it could shadow an installed module.

    From the standard library on, entries come from the installation: the current folder may be one of them.
    """
    library = os.path.dirname(os.path.abspath(os.__file__))
    given = path.index(library) if library in path else len(path)
    return [
        entry for place, entry in enumerate(path) if os.path.isabs(entry) and not (place < given and _is_cwd(entry))
    ]


def _is_cwd(entry: str) -> bool:
    try:
        return os.path.samefile(entry, os.curdir)
    except OSError:
        return False
