"""Test what keepers are made of: the server's isolation, process trees, control groups, locks, frames, clocks."""

from __future__ import annotations

import doctest
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

import pytest

from jobdb.system import boot_clock, parent_control
from jobdb.system.boot_clock import BootTimer, boottime
from jobdb.system.parent_control import set_process_name
from jobdb.work.keeper import client, fork_into_group, frames, process_tree
from jobdb.work.keeper.cgroup import AttemptGroup, find_parent_group, is_attempt_group, remove_abandoned_groups
from jobdb.work.keeper.client import KeeperServer
from jobdb.work.keeper.job_lock import JobLock
from jobdb.work.keeper.leftovers import attempt_of_mark, job_of_mark
from jobdb.work.keeper.messages import Ended, Lost, Started
from jobdb.work.keeper.process_tree import children_of, read_process, send_signal, with_descendants
from tests.support.keepers import Attempts, begin, run
from tests.support.requirements import require
from tests.support.waiting import wait_until

PYTHON = [sys.executable, "-I", "-S", "-c"]


@contextmanager
def program(script: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a shell script in a session of its own, until it has written a line; then kill it."""
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


# The server


def test_the_server_imports_the_standard_library_and_its_siblings() -> None:
    program = client._PROGRAM.replace("main(int", "print(*sys.modules); sys.exit(); main(int")
    folder = str(Path(client.__file__).parents[2])
    shown = subprocess.run([*PYTHON, "import sys\n" + program, folder], capture_output=True, text=True, check=True)
    modules = set(shown.stdout.split())
    allowed = {
        *("jobdb", "jobdb.system", "jobdb.work", "jobdb.work.keeper"),
        *("jobdb.system.boot_clock", "jobdb.system.parent_control"),
    }
    ours = {name for name in modules if name.partition(".")[0] == "jobdb"}
    assert {name for name in ours if not name.startswith("jobdb.work.keeper.")} == allowed
    assert not {"jobdb.work.keeper.client", "jobdb.work.keeper.messages"} & ours
    assert {name.partition(".")[0] for name in modules} - sys.stdlib_module_names <= {"jobdb", "__main__"}
    assert not {"re", "typing", "dataclasses", "inspect", "threading", "subprocess", "logging", "json"} & modules


def test_server_and_keeper_have_no_environment_and_no_foreign_descriptor(
    monkeypatch: pytest.MonkeyPatch, attempts: Attempts
) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", "secret")
    with open(os.devnull) as foreign, KeeperServer(use_cgroups=False) as server:
        os.set_inheritable(foreign.fileno(), True)
        conversation = begin(server, attempts.launch("sleep", 600))
        conversation.wait_for(Started)
        for pid in (server.pid, conversation.keeper.pid):
            assert Path(f"/proc/{pid}/environ").read_bytes() == b""
            targets = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if int(path.name) > 2]
            ours = ("socket:", "pipe:", "anon_inode:", str(attempts.folder))
            assert all(target.startswith(ours) for target in targets)
        names = [Path(f"/proc/{pid}/comm").read_text() for pid in (server.pid, conversation.keeper.pid)]
        assert names == ["jobdb-keepers\n", "jobdb-keeper\n"]
        conversation.keeper.close()


def test_descriptors_are_closed_after_each_attempt(attempts: Attempts) -> None:
    with KeeperServer() as server:
        run(server, attempts.launch("true"))
        wait_until(lambda: children_of(server.pid or 0) == [])
        before = descriptors(server.pid), descriptors(os.getpid())
        for _ in range(5):
            run(server, attempts.launch("true"))
        conversation = begin(server, attempts.launch("sleep", 600))
        conversation.wait_for(Started)
        assert conversation.keeper.pid is not None
        os.kill(conversation.keeper.pid, signal.SIGKILL)
        conversation.receive_until(lambda: conversation.keeper.has_ended)
        conversation.keeper.close()
        wait_until(lambda: children_of(server.pid or 0) == [])
        wait_until(lambda: (descriptors(server.pid), descriptors(os.getpid())) == before)


def descriptors(pid: int | None) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_worker_without_standard_streams_has_keepers(attempts: Attempts) -> None:
    script = (
        "import os, sys\nos.closerange(0, 3)\nfrom pathlib import Path\n"
        "from jobdb.work.keeper.client import KeeperServer\nfrom tests.support.keepers import Attempts, run\n"
        "attempts = Attempts(Path(sys.argv[1]), mark=sys.argv[2])\n"
        "with KeeperServer() as server:\n"
        "    ended = run(server, attempts.shell('cat; echo out; echo err >&2'))\n"
        "os._exit(0 if ended.tail == b'out\\nerr\\n' else 1)\n"
    )
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", script, str(attempts.folder), attempts.mark]
    subprocess.run(command, check=True, cwd=root, env={**os.environ, "PYTHONPATH": root}, timeout=60)


def test_a_server_without_room_for_descriptors_loses_the_attempt(attempts: Attempts) -> None:
    with KeeperServer(use_cgroups=False) as server:
        run(server, attempts.launch("true"))
        assert server.pid is not None
        wait_until(lambda: children_of(server.pid or 0) == [])
        limit_descriptors(server.pid, descriptors(server.pid))
        conversation = begin(server, attempts.launch("true"))
        conversation.receive_until(lambda: conversation.keeper.has_ended)
        assert conversation.messages == [Lost(started=False)]
        conversation.keeper.close()
        # Now there is room for the messages, but not for all that a keeper needs.
        failures = set()
        for most in range(descriptors(server.pid) + 2, descriptors(server.pid) + 12):
            limit_descriptors(server.pid, most)
            conversation = begin(server, attempts.launch("true"))
            conversation.receive_until(lambda waited=conversation: waited.keeper.has_ended)
            last = conversation.messages[-1]
            conversation.keeper.close()
            wait_until(lambda: children_of(server.pid or 0) == [])
            assert last == Lost(started=False) or (isinstance(last, Ended) and last.cause is None)
            if isinstance(last, Ended) and last.start_error is not None:
                failures.add(last.start_error.errno)
        assert failures == {errno.EMFILE}
        limit_descriptors(server.pid, 1024)
        assert run(server, attempts.launch("true")).exit_code == 0


def limit_descriptors(pid: int, most: int) -> None:
    import resource

    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, 4096))


def test_a_closed_connection_says_nothing(attempts: Attempts) -> None:
    with KeeperServer() as server:
        keeper = server.start(attempts.launch("sleep", 600))
        keeper.close()
        keeper.close()
        keeper.kill()
        keeper.extend(1.0)
        assert (keeper.fileno(), keeper.receive(), keeper.has_ended) == (-1, [], False)


# Process trees


def test_a_tree_is_found(tmp_path: Path) -> None:
    script = "sleep 600 & (sleep 600 & setsid sh -c 'sleep 600; true' & echo; wait) & wait"
    with program(script) as process:
        wait_until(lambda: len(with_descendants([process.pid])) == 6)
        found = with_descendants([process.pid])
        assert found[process.pid].parent == os.getpid() and found[process.pid].session == process.pid
        assert all(one.parent in found or one.pid == process.pid for one in found.values())
        visited: list[int] = []
        spared = next(pid for pid, one in found.items() if one.parent == process.pid and children_of(pid))
        rest = with_descendants([process.pid], [spared], lambda one: visited.append(one.pid))
        assert sorted(visited) == sorted(rest) and spared not in rest and len(rest) == 2
        process_tree.stop_and_kill(lambda visit: with_descendants([process.pid], visit=visit), groups=True)
        process.wait(60)
        for pid, one in found.items():
            wait_until(lambda pid=pid, one=one: not is_same(pid, one.started))


def is_same(pid: int, started: int) -> bool:
    process = read_process(pid)
    return process is not None and process.started == started and not process.is_dead()


def test_trees_are_found_without_files_of_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_tree, "_HAS_CHILDREN_FILES", False)
    with program("sleep 600 & echo; wait") as process:
        wait_until(lambda: len(with_descendants([process.pid])) == 2)
        assert process.pid in children_of(os.getpid())


def test_a_name_cannot_deceive() -> None:
    assert set_process_name(b") R 1 (\xff\n 1")
    try:
        found = read_process(os.getpid())
    finally:
        set_process_name(b"python")
    assert found is not None and (found.parent, found.group) == (os.getppid(), os.getpgid(0))


def test_a_signal_reaches_only_the_process_that_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    for without_handles in (False, True):
        if without_handles:
            monkeypatch.delattr(os, "pidfd_open")
        with program("echo; sleep 600") as process:
            found = read_process(process.pid)
            assert found is not None
            earlier = process_tree.Process(found.pid, b"S", found.parent, found.group, found.session, found.started - 1)
            assert not send_signal(earlier, signal.SIGKILL) and process.poll() is None
            assert send_signal(found, signal.SIGKILL)
            assert process.wait(60) == -signal.SIGKILL
            assert not send_signal(found, signal.SIGKILL)


# Control groups


@pytest.fixture
def group() -> Iterator[AttemptGroup]:
    """A control group named after this process."""
    parent = find_parent_group()
    require(parent is not None, "no cgroup v2 is writable for this process")
    assert parent is not None
    made = AttemptGroup.create(parent, 0)
    assert made is not None
    yield made
    made.remove()
    assert not os.path.exists(made.folder)


def test_a_forked_process_can_begin_in_a_group(group: AttemptGroup) -> None:
    script = (
        "import os, sys, types\n"
        "from jobdb.work.keeper.fork_into_group import fork_into_group\n"
        "pid = fork_into_group(sys.argv[1].encode())\n"
        "if pid == 0:\n    os.execv('/bin/cat', ['cat', '/proc/self/cgroup'])\n"
        "sys.exit(os.waitpid(pid, 0)[1])\n"
    )
    command = [sys.executable, "-c", script, os.fsdecode(group.folder)]
    root = str(Path(__file__).parents[2])
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=60)
    assert os.path.basename(os.fsdecode(group.folder)) in shown.stdout


def test_a_process_can_join_a_group_and_is_killed_with_it(group: AttemptGroup) -> None:
    assert is_attempt_group(group.folder) and not group.is_populated() and group.members() == set()
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(told, b"1" if group.join() else b"0")
        time.sleep(600)
    assert os.read(ready, 1) == b"1"
    assert group.is_populated() and group.members() == {pid}
    os.mkdir(group.folder + b"/inner")
    group.remove()
    assert group.is_populated()
    group.kill()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    wait_until(lambda: not group.is_populated())


def test_no_group_is_made_where_there_is_none(tmp_path: Path) -> None:
    own, mounts = tmp_path / "cgroup", tmp_path / "mountinfo"
    line = "30 24 0:26 {root} {point} rw,nosuid - cgroup2 cgroup2 rw\n"
    cases = [
        ("12:memory:/a\n", line.format(root="/", point=tmp_path)),
        ("0::/a\n", ""),
        ("0::/a\n", line.format(root="/b", point=tmp_path)),
        ("0::/a\n", line.format(root="/", point=tmp_path)),
        ("0::/a\n", line.format(root="/a", point=tmp_path)),
    ]
    for content, mounted in cases:
        own.write_text(content)
        mounts.write_text(mounted)
        assert find_parent_group(str(own), str(mounts)) is None
    assert AttemptGroup.create(bytes(tmp_path / "missing"), 0) is None
    assert fork_into_group.fork_into_group(bytes(tmp_path / "missing")) is None
    assert not is_attempt_group(bytes(tmp_path))


# Locks, frames, marks, clocks


def test_a_lock_is_held_once_and_removed(tmp_path: Path) -> None:
    path = bytes(tmp_path / "new" / "job.lock")
    first, second = JobLock(path), JobLock(path)
    assert first.acquire() and not first.is_used() and not second.acquire()
    first.write_holder(7, 3, b"/sys/fs/cgroup/jobdb-1")
    holder = second.read_holder()
    assert holder is not None
    assert (holder.pid, holder.started, holder.attempt, holder.group) == (os.getpid(), 7, 3, b"/sys/fs/cgroup/jobdb-1")
    assert holder.find() is None  # never itself
    copy = os.dup(first.fileno())
    first.release()
    assert not os.path.exists(path)
    assert second.acquire()
    second.release()
    os.close(copy)


@pytest.mark.parametrize("content", [b"", b"\n\n\n\n\n", b"1\n2\n3", b"x\n2\n\n1\n\n", b"1\n1\n\n\n\n", b"\xff" * 9000])
def test_a_lock_file_may_contain_anything(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "job.lock").write_bytes(content)
    lock = JobLock(bytes(tmp_path / "job.lock"))
    assert lock.read_holder() is None
    assert lock.acquire() and lock.is_used() == bool(content)
    lock.write_holder(1, 1, b"")
    assert lock.read_holder() is not None
    lock.release()


def test_a_holder_of_another_boot_is_not_found(tmp_path: Path) -> None:
    with program("echo; sleep 600") as process:
        found = read_process(process.pid)
        assert found is not None
        lock = JobLock(bytes(tmp_path / "job.lock"))
        (tmp_path / "job.lock").write_text(f"{process.pid}\n{found.started}\nanother boot\n1\n\n")
        holder = lock.read_holder()
        assert holder is not None and holder.find() is None and not holder.ask_to_stop()
        assert process.poll() is None


def test_a_lock_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "job.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        JobLock(bytes(tmp_path / "job.lock")).acquire()


def test_frames_arrive_whole_in_any_pieces() -> None:
    sent = [(frames.EXTEND, 1.5), (frames.LINES, b"a\nb\n"), (frames.KILL, None), (frames.ENDED, {"tail": b"\xff"})]
    stream = b"".join(frames.encode(kind, content) for kind, content in sent)
    for size in (1, 2, 7, len(stream)):
        reader = frames.FrameReader()
        pieces = [stream[position : position + size] for position in range(0, len(stream), size)]
        assert [frame for piece in pieces for frame in reader.feed(piece)] == sent


def test_marks_are_taken_apart() -> None:
    assert job_of_mark(b"registry:a:b:12") == b"registry:a:b:"
    assert [attempt_of_mark(mark) for mark in (b"r:a:b:12", b"", b"r:j:x", b"r:j:")] == [12, 0, 0, 0]


def test_the_timer_of_the_boot_clock_is_readable_from_its_time_on() -> None:
    timer = BootTimer()
    poll = select.poll()
    poll.register(timer, select.POLLIN)
    begun = boottime()
    timer.set(begun + 0.05)
    assert timer.longest_wait(begun + 0.05) is None
    assert poll.poll(60_000) != [] and boottime() >= begun + 0.05
    for later in (begun + 600, float("inf")):
        timer.set(later)
        assert poll.poll(0) == []
    for passed in (begun - 1, 0.0, -5.0):
        timer.set(passed)
        assert poll.poll(60_000) != []
    timer.close()
    assert timer.fileno() == -1
    assert timer.longest_wait(boottime() + 600) == 1.0 and timer.longest_wait(0.0) == 0.0


def test_orphans_fall_to_a_subreaper() -> None:
    script = (
        "import os, sys\n"
        "from jobdb.system.parent_control import set_child_subreaper\n"
        "from jobdb.work.keeper.orphans import kill_orphans\n"
        "assert kill_orphans(()) == 0\n"
        "assert set_child_subreaper()\n"
        "known = os.spawnvp(os.P_NOWAIT, 'sleep', ['sleep', '600'])\n"
        "os.spawnvp(os.P_WAIT, 'sh', ['sh', '-c', 'setsid sleep 600 & sleep 600 & (sleep 600; true) &'])\n"
        "assert kill_orphans([known]) >= 3\n"
        "while kill_orphans([known]): pass\n"
        "os.kill(known, 9)\n"
        "os.waitpid(known, 0)\n"
        "while kill_orphans([]): pass\n"
    )
    root = str(Path(__file__).parents[2])
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True, timeout=60)


def test_the_connection_is_in_no_child(attempts: Attempts) -> None:
    """A forked child has no end of a keeper's connection, and so cannot keep its attempt alive or speak for it."""
    with KeeperServer() as server:
        keeper = server.start(attempts.launch("sleep", 600))
        reader, writer = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            writer.send(b"%d" % keeper.fileno())
            os._exit(0)
        assert reader.recv(10) == b"-1"
        os.waitpid(pid, 0)
        keeper.close()


def test_empty_groups_of_processes_that_are_gone_are_removed(group: AttemptGroup) -> None:
    parent = Path(os.fsdecode(group.folder)).parent
    pid = subprocess.Popen(["true"])
    pid.wait()
    gone, foreign = parent / f"jobdb-{pid.pid}-1", parent / f"other-{pid.pid}-1"
    for folder in (gone, foreign):
        folder.mkdir()
    try:
        remove_abandoned_groups(bytes(parent))
        assert not gone.exists() and foreign.exists() and os.path.exists(group.folder)
    finally:
        foreign.rmdir()


@pytest.mark.parametrize("module", [client, boot_clock, parent_control])
def test_the_examples_run_as_written(module: ModuleType) -> None:
    done = doctest.testmod(module)
    assert done.attempted > 0 and done.failed == 0
