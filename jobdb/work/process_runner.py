"""The runner that calls a handler in processes, where it can be killed.

Created by ``Worker`` with ``executor="processes"``; called by the dispatcher. One thread talks to all children; the
dispatcher leaves it orders. A child is used for one attempt after the other, until it has to be killed.

A child and everything in its process group ends when the runner kills it, when its deadline passes, and when this
process dies. What a handler moves into another process group or session outlives it: ``CommandRunner`` holds that, too.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ..model import Claim
from ..system.isolated_starts import isolated_starts
from .mailbox import Finished, Heard, Running
from .outcomes import Report, Stop, Stopped, Vanished
from .process_child import run_child

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from .handlers import Handler
    from .runner import RunnerContext
    from .slots import Key

GRACE_SEC = 10.0
_NEVER = float("inf")


class _Child:
    """A child process, and the attempt that it works on."""

    def __init__(self, process: SpawnProcess, connection: Connection[Any, Any]) -> None:
        self.process = process
        self.connection = connection
        self.key: Key | None = None
        self.claim: tuple[Claim, float] | None = None  # not sent yet: the child is not ready
        self.is_ready = False
        self.was_stopped = False
        self.kill_at = _NEVER

    def send(self, *message: Any) -> None:
        """Send a message, unless the child is gone, which the sentinel tells."""
        with suppress(OSError):
            self.connection.send(message)

    def kill(self) -> None:
        """Kill the child's process group, or the child alone before it has made one."""
        self.kill_at = _NEVER
        with suppress(ProcessLookupError, PermissionError):
            if self.is_ready and self.process.pid is not None:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()


class ProcessRunner:
    """Calls a handler in as many processes as the worker has slots.

    Args:
        handler: does a job; it must be importable by the processes.
        grace_sec: how long a handler that was asked to stop may take before it is killed, in seconds.
    """

    log_dir: str | None = None

    def __init__(self, handler: Handler, *, grace_sec: float = GRACE_SEC) -> None:
        self._handler = handler
        self._grace_sec = grace_sec
        self.patience_sec = grace_sec + 10.0
        self._spawn = multiprocessing.get_context("spawn")
        self._orders: deque[tuple[Any, ...]] = deque()
        self._children: list[_Child] = []
        self._context: RunnerContext | None = None
        self._thread: threading.Thread | None = None
        self._wake_reader = self._wake_writer = -1

    def check(self) -> None:
        """Check that the handler can be given to another process.

        Raises:
            InvalidInput: it cannot.
        """
        try:
            pickle.dumps(self._handler)
        except Exception as problem:
            raise InvalidInput(
                f"the handler cannot be given to another process: {problem}",
                advice="define it at the top of a module, or use executor='threads'",
            ) from problem

    def open(self, context: RunnerContext) -> None:
        """Start the thread; processes are started when they are first needed."""
        self._context = context
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._thread = threading.Thread(target=self._run, name="jobdb-processes", daemon=True)
        self._thread.start()

    def start(self, claim: Claim, deadline: float) -> None:
        """Order a child to work on an attempt."""
        self._order("start", claim, deadline)

    def extend(self, key: Key, deadline: float) -> None:
        """Order an attempt's deadline to be extended."""
        self._order("extend", key, deadline)

    def stop(self, key: Key, stop: Stop) -> None:
        """Order an attempt to be stopped: asked, and killed after the grace, or killed at once."""
        self._order("stop", key, stop)

    def recorded(self, key: Key, count: int) -> None:
        """Let an attempt publish more."""
        self._order("recorded", key, count)

    def close(self) -> None:
        """Kill what still runs, and end all processes."""
        if self._thread is None:
            return
        self._order("close")
        self._thread.join()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _order(self, *order: Any) -> None:
        self._orders.append(order)
        with suppress(BlockingIOError):  # it is awake already
            os.write(self._wake_writer, b"x")

    # -- the thread

    def _run(self) -> None:
        assert self._context is not None
        closing = False
        while not closing:
            self._wait()
            while self._orders:
                what, *values = self._orders.popleft()
                if what == "close":
                    closing = True
                elif what == "start":
                    self._start(*values)
                else:
                    self._pass_on(what, *values)
            now = self._context.clock()
            for child in self._children:
                if now >= child.kill_at:
                    child.kill()
        for child in self._children:
            child.send("end")
            if child.key is not None:
                child.kill()
        for child in self._children:
            child.process.join(1.0)
            child.kill()
            child.process.join()
            child.connection.close()

    def _wait(self) -> None:
        """Wait for orders, messages, the end of a child, or the end of a grace; handle all but the orders."""
        assert self._context is not None
        kill_at = min((child.kill_at for child in self._children), default=_NEVER)
        timeout = None if kill_at == _NEVER else max(0.0, kill_at - self._context.clock())
        by_source: dict[Any, _Child] = {child.connection: child for child in self._children}
        by_source |= {child.process.sentinel: child for child in self._children}
        ready = wait([self._wake_reader, *by_source], timeout)
        if self._wake_reader in ready:
            with suppress(BlockingIOError):
                os.read(self._wake_reader, 65536)
        for child in {id(found): found for source in ready if (found := by_source.get(source))}.values():
            self._receive(child)
            if not child.process.is_alive():
                self._receive(child)
                self._bury(child)

    def _start(self, claim: Claim, deadline: float) -> None:
        child = next((each for each in self._children if each.key is None and each.process.is_alive()), None)
        if child is None:
            ours, theirs = self._spawn.Pipe()
            with isolated_starts() as safe_path:
                process = self._spawn.Process(
                    target=run_child, args=(self._handler, theirs, safe_path), name="jobdb-slot"
                )
                child = _Child(process, ours)
                self._children.append(child)
                process.start()
            theirs.close()
        child.key, child.was_stopped = (claim.job_id, claim.attempt), False
        child.claim = claim, deadline
        if child.is_ready:
            self._begin(child)

    def _begin(self, child: _Child) -> None:
        assert self._context is not None and child.claim is not None and child.key is not None
        child.send("run", *child.claim)
        child.claim = None
        self._context.mailbox.post(Running(child.key, child.process.pid))

    def _pass_on(self, what: str, key: Key, value: Any) -> None:
        """Give an order about an attempt to its child."""
        assert self._context is not None
        child = next((each for each in self._children if each.key == key), None)
        if child is None:
            return
        if what != "stop":
            if what == "extend" and child.claim is not None:
                child.claim = child.claim[0], value
            else:
                child.send(what, value)
            return
        child.was_stopped = True
        if value.at_once or child.claim is not None:
            child.kill()
        else:
            child.send("stop", value.reason, value.cause.ends_renewal)
            child.kill_at = min(child.kill_at, self._context.clock() + self._grace_sec)

    def _receive(self, child: _Child) -> None:
        """Handle the messages that a child has sent."""
        assert self._context is not None
        with suppress(EOFError, OSError):
            while child.connection.poll():
                what, value = child.connection.recv()
                if what == "ready":
                    child.is_ready = True
                    if child.claim is not None:
                        self._begin(child)
                elif child.key is not None and what == "heard":
                    self._context.mailbox.post(Heard(child.key, value))
                elif child.key is not None and what == "finished":
                    self._finish(child, value)

    def _finish(self, child: _Child, report: Report) -> None:
        assert self._context is not None and child.key is not None
        key, child.key, child.kill_at = child.key, None, _NEVER
        self._context.mailbox.post(Finished(key, report))

    def _bury(self, child: _Child) -> None:
        """Forget a child that has ended; what is left of its group is killed."""
        child.kill()
        child.process.join()
        child.connection.close()
        self._children.remove(child)
        if child.key is None:
            return
        code = child.process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        data = {"signal": -code} if code < 0 else {"exit_code": code}
        report: Report = Vanished(reason=f"the process of the handler ended with {how}", data=data)
        self._finish(child, Stopped() if child.was_stopped else report)
