"""Test the log of an attempt: its first and last part are kept, it is bounded, and no fault of it stops an agent."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

from jobdb.work.keeper.capped_log import TAIL_BYTES, CappedLog
from jobdb.work.keeper.client import KeeperServer
from jobdb.work.keeper.messages import Activity
from tests.support.disks import resize_disk, small_disk
from tests.support.keepers import Attempts, begin, run
from tests.support.waiting import wait_until

MIB = 1 << 20
NOTE = re.compile(rb"\n\[jobdb: (\d+) bytes of output are missing here\]\n")
FLOOD = """
import os, time
for number in range(100):
    os.write(1, (b"%06d " % number).ljust(64, b".") * 16383 + b"\\n" * 64)
open(os.environ["JOBDB_EVENTS"], "w").write("progress written\\n")
time.sleep(600)
"""


def lines(first: int, last: int) -> bytes:
    """Return numbered lines of 10 bytes."""
    return b"".join(b"%09d\n" % number for number in range(first, last))


def check_parts(content: bytes, output: bytes, max_bytes: int) -> tuple[bytes, bytes]:
    """Check that a log has the first and the last part of the output, and says what is missing; return them."""
    assert len(content) <= max_bytes
    found = NOTE.search(content)
    assert found is not None
    first, last = content[: found.start()], content[found.end() :]
    assert output.startswith(first) and output.endswith(last)
    assert len(first) + int(found[1]) + len(last) == len(output)
    return first, last


def test_output_that_fits_is_kept(tmp_path: Path) -> None:
    log = CappedLog(bytes(tmp_path / "log"), 1000)
    log.write(lines(0, 50))
    log.write(lines(50, 100))
    assert (tmp_path / "log").read_bytes() == lines(0, 100)
    assert log.write_due_in(time.monotonic()) is None
    log.close()
    assert (log.file_bytes, log.dropped_bytes, log.tail) == (1000, 0, lines(0, 100))
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("size", [1, 10, 977, 4096, 100_000])
@pytest.mark.parametrize("max_bytes", [1000, 8192, 3 * MIB])
def test_the_middle_is_dropped(tmp_path: Path, size: int, max_bytes: int) -> None:
    output = lines(0, max_bytes // 3)
    log = CappedLog(bytes(tmp_path / "log"), max_bytes)
    pieces = range(0, len(output), max(size, max_bytes // 2000))
    for position in pieces:
        log.write(output[position : position + pieces.step])
    log.write_last_part(0.0)
    first, last = check_parts((tmp_path / "log").read_bytes(), output, max_bytes)
    assert (log.file_bytes, log.dropped_bytes) == (len(first) + len(last), len(output) - len(first) - len(last))
    log.write(b"the end\n")
    log.close()
    first, last = check_parts((tmp_path / "log").read_bytes(), output + b"the end\n", max_bytes)
    assert len(first) >= max_bytes // 2 and len(last) >= min(max_bytes // 2, MIB) - 300
    assert first.endswith(b"\n") or len(first) == max_bytes - min(max_bytes // 2, MIB)
    assert log.tail == (output + b"the end\n")[-TAIL_BYTES:]


def test_a_line_longer_than_the_log_is_kept_in_part(tmp_path: Path) -> None:
    log = CappedLog(bytes(tmp_path / "log"), 1000)
    output = b"a" * 3000 + b"b" * 3000
    log.write(output)
    log.close()
    first, last = check_parts((tmp_path / "log").read_bytes(), output, 1000)
    assert first == b"a" * 500 and last.startswith(b"b" * 400)


@pytest.mark.parametrize("max_bytes", [0, 1, 100, 170])
def test_a_tiny_log_stays_within_its_limit(tmp_path: Path, max_bytes: int) -> None:
    log = CappedLog(bytes(tmp_path / "log"), max_bytes)
    for number in range(100):
        log.write(lines(number, number + 1))
        log.write_last_part(0.0)
    log.close()
    content = (tmp_path / "log").read_bytes()
    assert len(content) <= max_bytes
    assert log.dropped_bytes + log.file_bytes == log.received == 1000
    assert log.tail == lines(0, 100)


def test_what_is_in_the_file_before_stays(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"a line of the worker's\n")
    log = CappedLog(bytes(tmp_path / "log"), 1000)
    log.write(lines(0, 200))
    log.close()
    content = (tmp_path / "log").read_bytes()
    assert content.startswith(b"a line of the worker's\n") and len(content) <= 1000
    check_parts(content.removeprefix(b"a line of the worker's\n"), lines(0, 200), 1000)
    assert log.dropped_bytes + log.file_bytes == 2000


@pytest.mark.parametrize("name", [None, "missing/log", ".", "link"])
def test_without_a_file_the_tail_is_kept(tmp_path: Path, name: str | None) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    log = CappedLog(None if name is None else bytes(tmp_path / name), 1000)
    log.write(lines(0, 5000))
    log.close()
    assert (log.file_bytes, log.dropped_bytes, log.tail) == (0, 50_000, lines(0, 5000)[-TAIL_BYTES:])
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_costs_output_alone(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 512) as disk:
        log = CappedLog(bytes(disk / "log"), 4 * MIB)
        output = lines(0, 300_000)
        for position in range(0, len(output), 50_000):
            log.write(output[position : position + 50_000])
            log.write_last_part(0.0)
        first, last = check_parts((disk / "log").read_bytes(), output, 4 * MIB)
        assert len(first) + len(last) > 400_000 and len(last) > 100_000
        resize_disk(disk, "8m")
        log.write(b"there is room again\n")
        log.close()
        first, last = check_parts((disk / "log").read_bytes(), output + b"there is room again\n", 4 * MIB)
        assert len(last) > 900_000
        assert (log.file_bytes, log.dropped_bytes) == (len(first) + len(last), log.received - len(first) - len(last))


def test_a_disk_that_is_full_from_the_beginning(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        (disk / "filler").write_bytes(b"x" * 60_000)
        log = CappedLog(bytes(disk / "log"), 4 * MIB)
        log.write(lines(0, 10_000))
        (disk / "filler").unlink()
        log.write(b"the end\n")
        log.close()
        assert log.tail.endswith(b"the end\n") and log.dropped_bytes + log.file_bytes == log.received


def test_a_flood_is_capped_in_file_and_memory(keeper_server: KeeperServer, attempts: Attempts) -> None:
    launch = attempts.launch(sys.executable, "-I", "-S", "-c", FLOOD, log_max_bytes=4 * MIB)
    conversation = begin(keeper_server, launch)
    conversation.wait_for_line(b"progress written")
    assert conversation.keeper.pid is not None
    assert peak_memory(conversation.keeper.pid) < 40 * MIB
    conversation.keeper.kill()
    ended = conversation.wait_for_end()
    assert ended.log_bytes + ended.dropped_bytes == 100 * MIB
    content = attempts.log.read_bytes()
    assert len(content) <= 4 * MIB
    found = NOTE.search(content)
    assert found is not None and int(found[1]) == ended.dropped_bytes
    assert content.startswith(b"000000 ...") and b"000099 ..." in content[-MIB:]
    conversation.keeper.close()


def peak_memory(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def test_output_is_a_sign_of_life(keeper_server: KeeperServer, attempts: Attempts) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do echo $i; sleep 0.15; done"
    conversation = begin(keeper_server, attempts.shell(script))
    ended = conversation.wait_for_end()
    assert 2 <= len(conversation.of_kind(Activity)) <= 1 + ended.duration_sec
    conversation.keeper.close()


def test_the_log_can_be_read_while_it_is_written(keeper_server: KeeperServer, attempts: Attempts) -> None:
    script = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; done; echo last; read wait < go; echo end"
    (attempts.folder / "go").touch()
    conversation = begin(keeper_server, attempts.shell(script.replace("< go", "< $JOBDB_EVENTS"), log_max_bytes=1000))
    wait_until(lambda: attempts.log.exists() and attempts.log.read_bytes().endswith(b"line 400\nlast\n"))
    conversation.keeper.kill()
    assert conversation.wait_for_end().tail.endswith(b"last\n")
    conversation.keeper.close()


def test_a_missing_log_folder_stops_nothing(keeper_server: KeeperServer, attempts: Attempts) -> None:
    ended = run(keeper_server, attempts.shell("echo out; exit 3", log=str(attempts.folder / "missing" / "log")))
    assert (ended.exit_code, ended.tail, ended.log_bytes, ended.dropped_bytes) == (3, b"out\n", 0, 4)
    assert run(keeper_server, attempts.shell("echo out; exit 3", log=None)).tail == b"out\n"


def test_a_full_disk_stops_nothing(keeper_server: KeeperServer, attempts: Attempts) -> None:
    with small_disk(attempts.folder / "disk", 64) as disk:
        launch = attempts.shell("seq 1 100000; echo end; exit 3", log=str(disk / "log"), lock=str(disk / "job.lock"))
        ended = run(keeper_server, launch)
        assert (ended.exit_code, ended.tail[-4:]) == (3, b"end\n")
        assert 30_000 < ended.log_bytes < 65_000 and ended.dropped_bytes > 500_000
        assert (disk / "log").read_bytes().endswith(b"100000\nend\n")
