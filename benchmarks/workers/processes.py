"""Run functions in processes of their own, so that no peer's imports, threads or settings meet another's.

Called by series.py. A process is spawned, runs one function, sends its result or the traceback, and ends; one that
takes too long is killed.
"""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_END_SEC = 20.0
_context = multiprocessing.get_context("spawn")


class ProcessFailed(Exception):
    """The function failed or took too long; the message ends with what went wrong."""


def _main(function: Callable[..., Any], arguments: tuple[Any, ...], pipe: Connection) -> None:
    try:
        result = function(*arguments)
    except BaseException:
        pipe.send((False, traceback.format_exc()))
    else:
        pipe.send((True, result))


class Started:
    """A function that runs in its own process."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._name = function.__name__
        self._pipe, theirs = _context.Pipe()
        self._process = _context.Process(target=_main, args=(function, arguments, theirs))
        self._process.start()
        theirs.close()

    def result(self, timeout_sec: float) -> Any:
        """Wait for the function and return what it returned.

        Raises:
            ProcessFailed: it raised, died or did not return in time.
        """
        try:
            if not self._pipe.poll(timeout_sec):
                raise ProcessFailed(f"{self._name} did not return within {timeout_sec:.0f} s")
            good, result = self._pipe.recv()
        except EOFError:
            raise ProcessFailed(f"the process of {self._name} died") from None
        finally:
            self.end()
        if not good:
            raise ProcessFailed(str(result).strip())
        return result

    def end(self) -> None:
        """Wait briefly for the process's end, and kill it if it lingers."""
        if self._pipe.poll(0) is False:
            self._process.kill()
        self._process.join(_END_SEC)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()


def channel() -> tuple[Connection, Connection]:
    """Return the two ends of a pipe that can be passed to a process."""
    return _context.Pipe()


def call(function: Callable[..., Any], *arguments: Any, timeout_sec: float = 300.0) -> Any:
    """Run a function in its own process and return what it returns."""
    return Started(function, *arguments).result(timeout_sec)
