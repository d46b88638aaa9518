"""Programs that try to outlive their keeper, as arguments of a launch.

Called by the tests of keepers. They write a line to the channel when they have done what they are for, and then wait.
Processes that clear their environment have a word among their arguments, by which the test finds them.
"""

from __future__ import annotations

import sys

from tests.support.process_marks import processes_with_argument

READY = b"progress ready"
_PYTHON = (sys.executable, "-I", "-S", "-c")

_BEGIN = """\
import os, signal, sys, time
word = sys.argv[1]
def ready():
    with open(os.environ["JOBDB_EVENTS"], "w") as channel:
        channel.write("progress ready\\n")
def daemon():
    if os.fork(): return False
    os.setsid()
    if os.fork(): os._exit(0)
    return True
"""

PROGRAMS = {
    "double-fork": """
for _ in range(3):
    if daemon():
        time.sleep(600)
ready()
time.sleep(600)
""",
    "setsid": """
if os.fork() == 0:
    os.setsid()
    for _ in range(3):
        if os.fork() == 0: os.setsid()
    time.sleep(600)
ready()
time.sleep(600)
""",
    "ignore-sigterm": """
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):
    signal.signal(number, signal.SIG_IGN)
os.fork()
if os.fork(): ready()
while True: time.sleep(600)
""",
    "close-descriptors": """
if os.fork() == 0:
    os.closerange(0, 4096)
    time.sleep(600)
ready()
os.closerange(0, 4096)
time.sleep(600)
""",
    "clear-environment": """
if daemon():
    os.execve("/bin/sh", ["sh", "-c", "while :; do sleep 600; done", word], {})
os.wait()
ready()
os.execve("/bin/sh", ["sh", "-c", "while :; do sleep 600; done", word], {})
""",
    "stopped": """
for _ in range(3):
    if os.fork() == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
ready()
os.kill(os.getpid(), signal.SIGSTOP)
""",
    "flood": """
if os.fork() == 0:
    while True: os.write(1, b"x" * 65536)
ready()
while True: os.write(2, b"y" * 1000)
""",
    "fork-bomb": """
# Chains: each process forks the next and ends. Some are daemons, some stay in their group, some leave children behind.
for number in range(200):
    if os.fork() == 0:
        if number % 2: os.setsid()
        while True:
            if os.fork():
                os._exit(0)
            if number % 4 == 1: os.setsid()
            time.sleep(0.1)
ready()
while True:
    try:
        os.wait()
    except ChildProcessError:
        time.sleep(600)
""",
    "fast-chain": """
# No pause at all: whoever looks finds another process each time.
ready()
for number in range(2):
    if os.fork() == 0:
        while True:
            if os.fork(): os._exit(0)
            if number: os.setsid()
time.sleep(600)
""",
}


def hostile_program(name: str, word: str) -> tuple[str, ...]:
    """Return the arguments that run a program.

    Args:
        name: its name in `PROGRAMS`.
        word: what it has among its arguments, whatever it does to its environment.
    """
    return (*_PYTHON, _BEGIN + PROGRAMS[name], word)


def find_hostile(word: str) -> dict[int, str]:
    """Return the living processes of a program, by the word among its arguments."""
    return processes_with_argument(word)
