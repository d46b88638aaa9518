"""Test the channel of an attempt: whole lines, none lost, none without limit, and back pressure."""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

import pytest

from jobdb.work.channel import CUT_LINE_MARK as PARSED_MARK
from jobdb.work.channel import InvalidLine, parse_lines
from jobdb.work.keeper.channel_lines import CUT_LINE_MARK, MAX_LINE_BYTES, LineBuffer
from jobdb.work.keeper.client import KeeperServer
from jobdb.work.keeper.messages import Ended, Lines, Started
from tests.support.keepers import Attempts, begin
from tests.support.waiting import wait_until

PYTHON = (sys.executable, "-I", "-S", "-c")
OPEN = "import os\nchannel = open(os.environ['JOBDB_EVENTS'], 'wb', buffering=0)\n"


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_pieces_become_whole_lines(size: int) -> None:
    text = b"one\n\ntwo \xff\nthree" + b"3" * 50 + b"\nlast"
    buffer = LineBuffer()
    blocks = [buffer.feed(text[position : position + size]) for position in range(0, len(text), size)]
    assert all(block == b"" or block.endswith(b"\n") for block in blocks)
    assert b"".join(blocks) + buffer.finish() == text + b"\n"
    assert buffer.finish() == b""


@pytest.mark.parametrize("piece", [1000, 65536, MAX_LINE_BYTES])
def test_a_line_that_is_too_long_is_cut_and_marked(piece: int) -> None:
    length = 3 * MAX_LINE_BYTES
    text = b"before\n" + b"x" * length + b"\nafter\n" + b"y" * MAX_LINE_BYTES + b"\n" + b"z" * (MAX_LINE_BYTES + 1)
    buffer = LineBuffer()
    blocks = [buffer.feed(text[position : position + piece]) for position in range(0, len(text), piece)]
    lines = (b"".join(blocks) + buffer.finish()).split(b"\n")
    assert lines[0] == b"before" and lines[2] == b"after" and lines[3] == b"y" * MAX_LINE_BYTES and lines[5] == b""
    assert lines[1] == CUT_LINE_MARK + b"a line of %d bytes, which is too long: " % length + b"x" * 200
    assert lines[4] == CUT_LINE_MARK + b"a line of %d bytes, which is too long: " % (MAX_LINE_BYTES + 1) + b"z" * 200


def test_a_cut_line_is_no_event() -> None:
    buffer = LineBuffer()
    buffer.feed(b"progress " + b"x" * MAX_LINE_BYTES)
    (parsed,) = parse_lines(buffer.feed(b"\n"))
    assert CUT_LINE_MARK == PARSED_MARK
    assert isinstance(parsed, InvalidLine) and "too long" in parsed.text + parsed.reason


def test_lines_arrive_while_the_agent_runs(keeper_server: KeeperServer, attempts: Attempts) -> None:
    conversation = begin(keeper_server, attempts.shell("echo progress one > $JOBDB_EVENTS; sleep 600"))
    conversation.wait_for_line(b"progress one")
    conversation.keeper.kill()
    conversation.wait_for_end()
    conversation.keeper.close()


def test_ten_thousand_lines_at_once_arrive_in_order(keeper_server: KeeperServer, attempts: Attempts) -> None:
    script = OPEN + "for n in range(10_000): channel.write(b'progress step %d of 10000\\n' % n)"
    conversation = begin(keeper_server, attempts.launch(*PYTHON, script))
    assert conversation.wait_for_end().exit_code == 0
    assert conversation.lines == [b"progress step %d of 10000" % number for number in range(10_000)]
    assert len(conversation.of_kind(Lines)) < 1000
    conversation.keeper.close()


def test_lines_of_several_writers_stay_whole(keeper_server: KeeperServer, attempts: Attempts) -> None:
    script = (
        "for number in range(8):\n"
        "    if os.fork() == 0:\n"
        f"        {OPEN.splitlines()[1]}\n"
        "        for n in range(500): channel.write(b'%d ' % number + b'x' * (select.PIPE_BUF - 3 - n) + b'\\n')\n"
        "        os._exit(0)\n"
        "for number in range(8): os.wait()\n"
    )
    conversation = begin(keeper_server, attempts.launch(*PYTHON, "import os, select\n" + script))
    assert conversation.wait_for_end().exit_code == 0
    expected = [b"%d " % number + b"x" * (select.PIPE_BUF - 3 - n) for number in range(8) for n in range(500)]
    assert sorted(conversation.lines) == sorted(expected)
    conversation.keeper.close()


def test_lines_longer_than_a_pipe_takes_at_once_are_whole(keeper_server: KeeperServer, attempts: Attempts) -> None:
    script = OPEN + "for n in (4097, 65536, 65537, 200_000, 300_000): channel.write(b'x' * n + b'\\n')"
    conversation = begin(keeper_server, attempts.launch(*PYTHON, script))
    assert conversation.wait_for_end().exit_code == 0
    assert [len(line) for line in conversation.lines[:4]] == [4097, 65536, 65537, 200_000]
    assert conversation.lines[4].startswith(CUT_LINE_MARK + b"a line of 300000 bytes")
    conversation.keeper.close()


def test_a_last_line_without_its_end_arrives(keeper_server: KeeperServer, attempts: Attempts) -> None:
    conversation = begin(keeper_server, attempts.shell("printf 'completed done' > $JOBDB_EVENTS"))
    conversation.wait_for_end()
    assert conversation.lines == [b"completed done"]
    conversation.keeper.close()


def test_lines_that_a_killed_agent_has_written_arrive(keeper_server: KeeperServer, attempts: Attempts) -> None:
    script = OPEN + "channel.write(b'one\\n' * 10_000); os.kill(os.getpid(), 9)"
    conversation = begin(keeper_server, attempts.launch(*PYTHON, script))
    assert conversation.wait_for_end().signal == 9
    assert conversation.lines == [b"one"] * 10_000
    conversation.keeper.close()


def test_a_worker_that_does_not_read_makes_the_agent_wait(keeper_server: KeeperServer, attempts: Attempts) -> None:
    count = 80_000
    script = OPEN + f"for n in range({count}): channel.write(b'%099d\\n' % n)\n"
    conversation = begin(keeper_server, attempts.launch(*PYTHON, script))
    conversation.wait_for(Started)
    agent = conversation.of_kind(Started)[0].pid
    wait_until(lambda: is_writing_to_a_pipe(agent))
    assert conversation.keeper.pid is not None
    resident = int(Path(f"/proc/{conversation.keeper.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    assert resident < 40 << 20
    assert conversation.wait_for_end().exit_code == 0
    assert conversation.lines == [b"%099d" % number for number in range(count)]
    conversation.keeper.close()


def is_writing_to_a_pipe(pid: int) -> bool:
    """Return whether a process waits in write(2), by the call's number on x86-64 and on others."""
    return Path(f"/proc/{pid}/syscall").read_text().split()[0] in ("1", "64")


def test_an_attempt_that_nobody_listens_to_can_end(keeper_server: KeeperServer, attempts: Attempts) -> None:
    """A report and megabytes of lines wait for a worker that reads late; the lock does not."""
    script = OPEN + "for n in range(20_000): channel.write(b'%099d\\n' % n)\nos._exit(4)"
    conversation = begin(keeper_server, attempts.launch(*PYTHON, script))
    conversation.wait_for(Started)
    conversation.keeper.kill()
    wait_until(lambda: not attempts.lock.exists())
    assert isinstance(conversation.wait_for_end(), Ended)
    conversation.keeper.close()


def test_a_removed_channel_stays_open(keeper_server: KeeperServer, attempts: Attempts) -> None:
    script = OPEN + "os.unlink(os.environ['JOBDB_EVENTS']); channel.write(b'one\\n')"
    conversation = begin(keeper_server, attempts.launch(*PYTHON, script))
    assert conversation.wait_for_end().exit_code == 0
    assert conversation.lines == [b"one"]
    conversation.keeper.close()
