"""Cuts a call off at one place after another, as Ctrl-C or a SIGTERM handler that raises does."""

import os
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

STRIDE = int(os.environ.get("JOBDB_INTERRUPT_STRIDE", "0"))
"""Every so many places are tried; 0: as many as a test's time allows, evenly spread."""
_TESTS = f"{os.sep}tests{os.sep}"


class Interrupted(BaseException):
    """What the signal handler of these tests raises."""


class Interrupt:
    """Raises once, at the n-th of the places where Python may run a signal handler.

    Args:
        number: which place, from 1.
        opcodes: every step of the interpreter counts; otherwise every call and every return from C.
    """

    def __init__(self, number: int, *, opcodes: bool) -> None:
        self.number = number
        self.passed = 0
        self.opcodes = opcodes
        self.raised = False

    def __enter__(self) -> None:
        if self.opcodes:
            frame = sys._getframe(1)
            sys.settrace(self._trace)
            frame.f_trace = None
        else:
            sys.setprofile(self._profile)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        sys.settrace(None)

    def _count(self) -> None:
        self.passed += 1
        if self.passed == self.number:
            sys.setprofile(None)
            sys.settrace(None)
            self.raised = True
            raise Interrupted

    def _profile(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event in ("call", "c_return") and _TESTS not in frame.f_code.co_filename:
            self._count()

    def _trace(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if _TESTS in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        if event in ("call", "opcode"):
            self._count()
        return self._trace


def each_place(run: Callable[[], object], check: Callable[[str], None], *, most: int, opcodes: bool = False) -> int:
    """Run a call again and again, cut off at one place later each time, until it ends before its place comes.

    Args:
        run: the call.
        check: called after each interruption, with a word for where it was.
        most: about so many places are tried.
        opcodes: as for `Interrupt`.

    Returns:
        How many places were tried.
    """
    # On a thread of its own: at a step at which Python itself is never cut off, an exception can leave the one before
    # it on the thread's stack of handled exceptions, and whatever is raised there later names that as its context.
    outcome: list[int | BaseException] = []

    def work() -> None:
        try:
            outcome.append(_each_place(run, check, most, opcodes))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _each_place(run: Callable[[], object], check: Callable[[str], None], most: int, opcodes: bool) -> int:
    number, tried, stride = 1, 0, STRIDE
    run()  # what is imported at the first use is no place of the call's
    check("not interrupted")
    if not stride:
        counting = Interrupt(0, opcodes=opcodes)
        with counting:
            run()
        check("not interrupted")
        stride = max(1, counting.passed // most)
    while True:
        interrupt = Interrupt(number, opcodes=opcodes)
        try:
            with interrupt:
                run()
        except Interrupted:
            pass
        if not interrupt.raised:
            return tried
        check(f"interrupted at place {number}")
        number, tried = number + stride, tried + 1
