"""Interrupt a call at one point after another, as Ctrl-C or a signal handler that raises does."""

import dis
import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from tests.support.paths import TESTS

STRIDE = int(os.environ.get("JOBDB_INTERRUPT_STRIDE", "0"))
"""The distance between the points that are tried; 0 spreads as many as a test's time allows evenly."""
_TESTS = f"{TESTS}{os.sep}"


_INTERRUPTIBLE_OPCODES = ("RESUME", "CALL", "JUMP_BACKWARD")
"""Prefixes of the instructions after which the interpreter checks for signals (CHECK_EVAL_BREAKER in
CPython's bytecodes). It interrupts after no others, and an exception raised there can remain on the
thread's stack of handled exceptions: later exceptions then have it as their context."""


class Interrupted(BaseException):
    """The exception of an interrupt in these tests."""


class Interrupt:
    """An interrupt that raises once, at the n-th point where Python may run a signal handler.

    Args:
        position: the number of the point, from 1.
        opcodes: count every step at which the interpreter checks for signals; otherwise every call and every return
            from C.
    """

    def __init__(self, position: int, *, opcodes: bool) -> None:
        self.position = position
        self.points_seen = 0
        self.opcodes = opcodes
        self.raised = False
        self._last: dict[FrameType, int] = {}

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
        self.points_seen += 1
        if self.points_seen == self.position:
            sys.setprofile(None)
            sys.settrace(None)
            self.raised = True
            raise Interrupted

    def _profile(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event in ("call", "c_return") and not frame.f_code.co_filename.startswith(_TESTS):
            self._count()

    def _trace(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename.startswith(_TESTS):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            last, self._last[frame] = self._last.get(frame), frame.f_lasti
            if last is None or not dis.opname[frame.f_code.co_code[last]].startswith(_INTERRUPTIBLE_OPCODES):
                return self._trace
        if event in ("call", "opcode"):
            self._count()
        elif event == "return":
            self._last.pop(frame, None)
        return self._trace


def interrupt_each_point(
    run: Callable[[], object], check: Callable[[str], None], *, max_points: int, opcodes: bool = False
) -> int:
    """Run a call repeatedly, interrupted one point later each time, until it ends before it is interrupted.

    Args:
        run: the call.
        check: called after each interruption, with a description of the point.
        max_points: the approximate number of points to try.
        opcodes: as for `Interrupt`.

    Returns:
        The number of points tried.
    """
    position, tried, stride = 1, 0, STRIDE
    run()  # imports at the first use are not points of the call
    check("not interrupted")
    if not stride:
        counting = Interrupt(0, opcodes=opcodes)
        with counting:
            run()
        check("not interrupted")
        stride = max(1, counting.points_seen // max_points)
    while True:
        interrupt = Interrupt(position, opcodes=opcodes)
        try:
            with interrupt:
                run()
        except Interrupted:
            pass
        if not interrupt.raised:
            return tried
        check(f"interrupted at place {position}")
        position, tried = position + stride, tried + 1
