"""An agent that resists being ended, started as a program for each attempt of a job:

    python -P -m tests.support.agent.hostile FOLDER

Its prompt, on stdin, is a line of words that say what it does, such as ``setsid double-fork act=0.5``; a word after
``first:`` counts for attempt 1 only. While it acts, it holds a lock per job, and so does everything that it starts: if
another attempt of the job still acts, or only lives, the journal says so (`tests.support.agent.journal`).

| word | what it does |
| --- | --- |
| act=SEC, hang | acts that long; without end |
| ignore-sigterm | ignores SIGTERM, SIGINT and SIGHUP |
| setsid | acts in a child with a session of its own |
| double-fork | acts in a daemon: an orphan with a session of its own, for which it waits |
| abandon | with one of these two: does not wait, and ends with its exit code at once |
| clear-environment | replaces itself by a process with an empty environment |
| close-fds | closes all file descriptors but the lock and the journal |
| flood=MIB | writes so much to its output before it acts |
| fork-bomb=N | starts N children that sleep, in N // 2 sessions of their own, and leaves them |
| stop | stops itself with SIGSTOP before it acts |
| kill-parent | kills its parent process, which is its keeper |
| crash | kills itself in the middle |
| exit=CODE | ends with this exit code |
| write=NAME | writes a file, when it has acted |
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from typing import Final

from tests.support.agent.journal import Entry, open_journal, write_entry
from tests.support.agent.process_table import MARK_OPTION, MARK_VARIABLE, Mark, agent_processes, process_table

MODULE: Final = "tests.support.agent.hostile"
NEVER_SEC: Final = 600.0
OVERLAP_EXIT: Final = 90
LOST_EXIT: Final = 91
_WORDS_OPTION: Final = "--words"


class Agent:
    """One attempt: what it was told, and the lock and the journal that its processes share."""

    def __init__(self, folder: str, mark: Mark, words: list[str]) -> None:
        self.mark = mark
        self.words = {name: value for name, _, value in (word.partition("=") for word in words)}
        self.journal = open_journal(folder)
        self.lock = os.open(os.path.join(folder, f"{mark.job_id}.lock"), os.O_RDWR | os.O_CREAT, 0o600)

    def write(self, kind: str, note: str = "") -> None:
        write_entry(self.journal, Entry(kind, self.mark.job_id, self.mark.attempt, note))

    def run(self) -> int:
        """Act as told; return the exit code."""
        if not self._begin():
            return OVERLAP_EXIT
        if "ignore-sigterm" in self.words:
            for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(ignored, signal.SIG_IGN)
        if "close-fds" in self.words:
            self._close_others()
        for number in range(int(self.words.get("fork-bomb", 0))):
            self._leave_sleeper(alone=number % 2 == 0)
        if "kill-parent" in self.words:
            os.kill(os.getppid(), signal.SIGKILL)
        if "double-fork" in self.words:
            return self._act_below(orphan=True)
        if "setsid" in self.words:
            return self._act_below(orphan=False)
        return self._act()

    def _begin(self) -> bool:
        """Take the job's lock and look for processes of other attempts; return whether this one may act."""
        others = agent_processes(process_table(), self.mark.registry_id, self.mark.job_id)
        alive = [str(process.pid) for process in others if process.mark != self.mark]
        if alive:
            self.write("alive", " ".join(alive))
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.write("overlap", os.pread(self.lock, 100, 0).decode())
            return False
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, f"attempt {self.mark.attempt} pid {os.getpid()}".encode(), 0)
        self.write("start")
        return True

    def _close_others(self) -> None:
        first, second = sorted((self.journal, self.lock))
        os.closerange(0, first)
        os.closerange(first + 1, second)
        os.closerange(second + 1, 4096)

    def _leave_sleeper(self, *, alone: bool) -> None:
        if os.fork() == 0:
            if alone:
                os.setsid()
            time.sleep(NEVER_SEC)
            os._exit(0)

    def _act_below(self, *, orphan: bool) -> int:
        """Act in a child with a session of its own, or in an orphan below it; wait for the end unless told not to."""
        reader, writer = os.pipe()  # the other end is held by whoever acts, until it is done or dead
        if os.fork() == 0:
            code = LOST_EXIT
            try:
                os.close(reader)
                os.setsid()
                if orphan and os.fork():
                    code = 0
                else:
                    code = self._act()
                    os.write(writer, b"done")
            finally:
                os._exit(code)
        os.close(writer)
        ended = "abandon" in self.words or os.read(reader, 4)
        return int(self.words.get("exit", 0)) if ended else LOST_EXIT

    def _act(self) -> int:
        """Do what takes time; the end is written by whoever comes to it."""
        seconds = NEVER_SEC if "hang" in self.words else float(self.words.get("act", 0.05))
        self._flood(int(self.words.get("flood", 0)))
        if "stop" in self.words:
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(seconds / 2)
        if "crash" in self.words:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(seconds / 2)
        if self.words.get("write"):
            with open(self.words["write"], "w", encoding="utf-8") as file:
                file.write(f"{self.mark.job_id}\n")
        self.write("end")
        return int(self.words.get("exit", 0))

    def _flood(self, mib: int) -> None:
        line = b"flood " * 170 + b"\n"
        try:
            for _ in range(mib * 64):
                os.write(1, line * 16)
        except OSError:  # closed by itself, or by whoever read it
            return


def chosen_words(prompt: str, attempt: int) -> list[str]:
    """Return the words of a prompt that count for an attempt."""
    return [word.removeprefix("first:") for word in prompt.split() if attempt == 1 or not word.startswith("first:")]


def main(arguments: list[str]) -> int:
    """Run the agent; with ``--mark`` and ``--words`` it is the successor of one that cleared its environment."""
    folder, *rest = arguments
    text = rest[1] if rest else os.environ[MARK_VARIABLE]
    mark = Mark.parse(text)
    if mark is None:
        raise ValueError(f"not a mark: {text!r}")
    words = rest[3].split() if rest else chosen_words(sys.stdin.read(), mark.attempt)
    if "clear-environment" in words and not rest:
        successor = [sys.executable, "-P", "-m", MODULE, folder, MARK_OPTION, text, _WORDS_OPTION, " ".join(words)]
        os.execve(sys.executable, successor, {"PYTHONPATH": os.environ["PYTHONPATH"]})
    return Agent(folder, mark, words).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
