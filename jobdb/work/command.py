"""The command that ``jobdb work`` runs per job: its placeholders, its environment, and whether it can be run at all.

Called by the command runner. Looks for the program; starts nothing.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence

from ..errors import InvalidInput
from ..system.subprocess_env import without_secrets
from .runner import RunnerUnusable

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""The exit codes that shells use. Source: POSIX.1-2024, Shell Command Language, 2.8.2."""

MAX_ARGUMENT_BYTES = 131_071
"""The longest argument that Linux passes to a program. Source: execve(2), MAX_ARG_STRLEN."""

_placeholder = re.compile(r"\{(prompt|prompt_file|job_id|attempt)\}")


def uses_prompt(argv: Sequence[str]) -> bool:
    """Return whether a command names the prompt in its arguments; otherwise it gets it on its standard input."""
    return any(name in ("prompt", "prompt_file") for argument in argv for name in _placeholder.findall(argument))


def fill_placeholders(argv: Sequence[str], *, prompt: str, prompt_file: str, job_id: str, attempt: int) -> list[str]:
    """Return a command with ``{prompt}``, ``{prompt_file}``, ``{job_id}`` and ``{attempt}`` replaced.

    Other braces stay as they are, and so do those in the prompt.

    Args:
        argv: the command.
        prompt: the text of the job.
        prompt_file: the file with the prompt.
        job_id: the job.
        attempt: the attempt.

    Raises:
        InvalidInput: an argument is longer than the system allows.

    Example:
        >>> fill_placeholders(["run", "{job_id}:{attempt}", "{}"], prompt="", prompt_file="", job_id="a", attempt=2)
        ['run', 'a:2', '{}']
    """
    values = {"prompt": prompt, "prompt_file": prompt_file, "job_id": job_id, "attempt": str(attempt)}
    filled = [_placeholder.sub(lambda found: values[found[1]], argument) for argument in argv]
    longest = max(map(len, map(os.fsencode, filled)))
    if longest > MAX_ARGUMENT_BYTES:
        raise InvalidInput(
            f"the prompt of job {job_id} makes an argument of {longest} bytes, and the system allows "
            f"{MAX_ARGUMENT_BYTES}",
            advice="write {prompt_file} in the command instead of {prompt}, or read the prompt from standard input",
        )
    return filled


def agent_environment(environ: Mapping[str, str], *, url: str, worker: str) -> dict[str, str]:
    """Return what the environments of all jobs of a worker share: the worker's own without secrets.

    Args:
        environ: the worker's environment.
        url: the database's absolute URL without a password.
        worker: the worker's name.
    """
    return {**without_secrets(environ), "JOBDB_URL": url, "JOBDB_WORKER": worker}


def check_command(argv: Sequence[str], *, folder: str, path: str | None) -> None:
    """Check that a command can be run.

    Args:
        argv: the command. If a placeholder is in the name of its program, that is not checked.
        folder: the folder that it will run in.
        path: the PATH in which its program is searched.

    Raises:
        RunnerUnusable: the program or the folder is missing, or the program cannot be executed.
    """
    program = argv[0]
    if not os.path.isdir(folder):
        raise RunnerUnusable(f"the working folder {folder} does not exist", NOT_EXECUTABLE)
    if _placeholder.search(program):
        return
    if os.sep in program:
        found: str | None = os.path.join(folder, program)
        exists = os.path.lexists(os.path.join(folder, program))
    else:
        found = shutil.which(program, path=path)
        exists = found is not None or shutil.which(program, os.F_OK, path=path) is not None
    if not exists:
        raise RunnerUnusable(f"command not found: {program}", NOT_FOUND)
    if found is None or os.path.isdir(found) or not os.access(found, os.X_OK):
        raise RunnerUnusable(f"{program} cannot be executed", NOT_EXECUTABLE)
