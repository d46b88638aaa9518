"""Handlers that other processes can import; what they do is in the prompt of their job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from jobdb.work import RetryLater, Work


def handle(work: Work) -> Any:
    """Do what the prompt says: ``WORD [ARGUMENT]``."""
    what, _, argument = work.job.prompt.partition(" ")
    return globals()[f"_{what}"](work, argument)


def _return(work: Work, argument: str) -> dict[str, Any]:
    work.progress("half of it", pct=50)
    return {"pid": os.getpid(), "said": argument}


def _many(work: Work, argument: str) -> None:
    for number in range(int(argument)):
        work.progress(f"step {number}")


def _raise(work: Work, argument: str) -> None:
    raise ValueError(argument)


def _later(work: Work, argument: str) -> None:
    if work.attempt == 1:
        raise RetryLater(0.01, argument)


def _wait(work: Work, argument: str) -> str:
    return f"told: {work.wait(60)}"


def _sleep(work: Work, argument: str) -> None:
    """Start a child in the same process group, and look at nothing."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    Path(argument).write_text(f"{os.getpid()} {child.pid}", "ascii")
    time.sleep(600)


def _die(work: Work, argument: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
