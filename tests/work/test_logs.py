"""Test reading a log while the keeper writes it: nothing twice, and nothing lost but what the keeper dropped."""

from __future__ import annotations

import doctest
import os
import re
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import jobdb.work.logs
from jobdb.errors import StorageFailed
from jobdb.urls import parse_url
from jobdb.work.keeper.capped_log import CappedLog
from jobdb.work.logs import LogReader, default_log_folder, last_lines, make_log_folder

NOTE = re.compile(rb"\n\[jobdb: ([0-9]+) bytes of output are missing here\]\n")


class KeeperLog:
    """A log as the keeper writes it.

    Args:
        path: the log.
        first_part: how many bytes stay when the middle is dropped.
        renames: the file is replaced by a new one, instead of written over.
    """

    def __init__(self, path: Path, *, first_part: int, renames: bool) -> None:
        self.path, self.first_part, self.renames = path, first_part, renames
        self.output = b""
        self.missing = 0
        path.write_bytes(b"")

    def append(self, output: bytes) -> None:
        """Write output behind what is there; once something was dropped, the next `drop` writes it."""
        self.output += output
        if not self.missing:
            with open(self.path, "ab") as file:
                file.write(output)

    def drop(self, kept: int) -> None:
        """Keep the first part and the last bytes only."""
        self.missing = max(self.missing, len(self.output) - self.first_part - kept)
        if not self.missing:
            return
        note = b"\n[jobdb: %d bytes of output are missing here]\n" % self.missing
        content = self.output[: self.first_part] + note + self.output[self.first_part + self.missing :]
        if self.renames:
            self.path.with_suffix(".new").write_bytes(content)
            os.replace(self.path.with_suffix(".new"), self.path)
        else:
            with open(self.path, "r+b") as file:
                file.seek(self.first_part)
                file.write(content[self.first_part :])
                file.truncate()


def gaps(shown: bytes, output: bytes) -> int:
    """Check that what was shown is the output, except where a note says how much is missing; return how much that is.

    Notes that the output itself contains must have been read from it.
    """
    seen = missing = position = 0
    while position < len(shown):
        note = NOTE.match(shown, position)
        if note and not output.startswith(note[0], seen):
            missing += int(note[1])
            seen += int(note[1])
            position = note.end()
        else:
            assert shown[position] == output[seen], (shown[position - 20 : position + 20], position)
            seen += 1
            position += 1
    assert seen == len(output)
    return missing


PIECES = st.sampled_from([b"a", b"line\n", b"\n", b"yyyy\n" * 8, b"\n[jobdb: 7 bytes of output are missing here]\n"])
STEPS = st.lists(
    st.one_of(
        st.lists(PIECES, min_size=1, max_size=6).map(b"".join), st.integers(0, 60), st.just("read")
    ),
    max_size=30,
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, first_part=st.integers(0, 50), renames=st.booleans())
def test_output_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[bytes | int | str], first_part: int, renames: bool
) -> None:
    monkeypatch.setattr(jobdb.work.logs, "_SETTLE_SEC", 0)
    log = KeeperLog(tmp_path / "1.log", first_part=first_part, renames=renames)
    shown = b""
    with LogReader(str(log.path)) as reader:
        for step in steps:
            if isinstance(step, bytes):
                log.append(step)
            elif isinstance(step, int):
                log.drop(step)
            else:
                shown += b"".join(reader.read())
        if log.missing:
            log.drop(60)  # the keeper's last writing, at the end of the attempt
        shown += b"".join(reader.read())
    # Output that looks like the keeper's note, and is exactly where the note comes, cannot be told from it.
    assume(not NOTE.match(log.output, first_part))
    gaps(shown, log.output)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.one_of(st.integers(1, 400), st.sampled_from(["read", "write the last part"])), max_size=60),
    max_bytes=st.sampled_from([0, 100, 1000, 3000]),
    before=st.sampled_from([b"", b"of an earlier run\n" * 20]),
)
def test_the_logs_of_the_keeper_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[int | str], max_bytes: int, before: bytes
) -> None:
    monkeypatch.setattr(jobdb.work.logs, "_SETTLE_SEC", 0)
    path = tmp_path / "1.log"
    path.write_bytes(before)
    log = CappedLog(os.fsencode(path), max_bytes)
    output, shown, number = before, b"", 0
    with LogReader(str(path)) as reader:
        for step in steps:
            if isinstance(step, int):
                number += 1
                lines = b"".join(b"line %d %d\n" % (number, each) for each in range(step // 10)) + b"x" * (step % 10)
                output += lines
                log.write(lines)
            elif step == "read":
                shown += b"".join(reader.read())
            else:
                log.write_last_part(0.0)
        log.close()
        shown += b"".join(reader.read())
    if max_bytes > len(before) + 200:
        gaps(shown, output)
    else:  # there was no room for a last part
        assert output.startswith(shown[: len(before)])


@pytest.mark.parametrize("renames", [False, True])
def test_only_what_was_dropped_before_it_was_read_is_missing(tmp_path: Path, renames: bool) -> None:
    log = KeeperLog(tmp_path / "1.log", first_part=100_000, renames=renames)
    log.append(b"".join(b"%06d\n" % number for number in range(40_000)))
    with LogReader(str(log.path)) as reader:
        shown = b"".join(reader.read())
        for round_ in range(5):
            log.append(b"".join(b"%06d\n" % number for number in range(20_000)))
            log.drop(100_000 if round_ == 2 else 150_000)  # once, 40,000 bytes are dropped unread
            shown += b"".join(reader.read())
        assert gaps(shown, log.output) == 40_000
        assert list(reader.read()) == []


def test_a_log_that_is_larger_than_memory_should_hold_is_read_in_pieces(tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 11
    (tmp_path / "1.log").write_bytes(content)
    with LogReader(str(tmp_path / "1.log")) as reader:
        pieces = list(reader.read())
    assert b"".join(pieces) == content and max(map(len, pieces)) <= 4 << 20


def test_a_file_that_was_emptied_or_replaced_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    path.write_bytes(b"x" * 5_000_000)
    with LogReader(str(path)) as reader:
        assert len(b"".join(reader.read())) == 5_000_000
        path.write_bytes(b"new\n")
        assert b"".join(reader.read()) == b"new\n"
        path.unlink()
        assert list(reader.read()) == []
        path.write_bytes(b"newer\n")
        assert b"".join(reader.read()) == b"er\n"  # what it begins with was read


@pytest.mark.parametrize(
    ("content", "lines", "expected"),
    [
        (b"", 3, b""),
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\nc\n", 3, b"a\nb\nc\n"),
        (b"a\nb\nc\n", 9, b"a\nb\nc\n"),
        (b"a\n\n\n", 2, b"\n\n"),
        (b"a\nb\n", 0, b""),
        (b"x" * 200_000 + b"\nb\n" + b"y" * 200_000 + b"\n", 2, b"b\n" + b"y" * 200_000 + b"\n"),
        (b"line\n" * 100_000, 90_000, b"line\n" * 90_000),
    ],
)
def test_the_last_lines(tmp_path: Path, content: bytes, lines: int, expected: bytes) -> None:
    path = tmp_path / "1.log"
    path.write_bytes(content)
    with LogReader(str(path)) as reader:
        assert reader.skip_to_last(lines) == (expected != content)
        assert b"".join(reader.read()) == expected
        with open(path, "ab") as file:
            file.write(b"more\n")
        assert b"".join(reader.read()) == b"more\n"
    path.write_bytes(content)
    assert last_lines(str(path), lines=lines, max_bytes=1 << 20) == expected


def test_the_last_lines_are_bounded_in_bytes(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    path.write_bytes(b"first\n" + b"x" * 100 + b"\nlast\n")
    assert last_lines(str(path), lines=3, max_bytes=50) == b"last\n"
    path.write_bytes(b"x" * 100 + b"y" * 50)
    assert last_lines(str(path), lines=3, max_bytes=50) == b"y" * 50


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name in ("pipe", "link", "none", "."):
        with pytest.raises(OSError):
            LogReader(str(tmp_path / name))


def test_the_default_folder_of_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctest.testmod(jobdb.work.logs).failed == 0
    monkeypatch.chdir(tmp_path)
    assert default_log_folder(parse_url("sqlite:///.jobdb/jobs.db"), "0123") == f"{tmp_path}/.jobdb/logs"
    server = parse_url("postgresql://db/jobs")
    for environ in ({"HOME": "/home/me"}, {"HOME": "/home/me", "XDG_STATE_HOME": "relative"}):
        assert default_log_folder(server, "0123", environ) == "/home/me/.local/state/jobdb/logs/0123"


def test_the_folder_of_a_log_is_private(tmp_path: Path) -> None:
    make_log_folder(f"{tmp_path}/logs/job/1.log")
    make_log_folder(f"{tmp_path}/logs/job/2.log")
    assert [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("logs", "logs/job")] == [0o700, 0o700]
    (tmp_path / "logs" / "other").touch()
    with pytest.raises(StorageFailed, match=r"the folder .*/logs/other for logs cannot be created"):
        make_log_folder(f"{tmp_path}/logs/other/1.log")
