"""A server of a ``Tree`` through /dev/fuse that cuts its power on command.

Run as ``python -m tests.support.lossyfs.server``.

``mount.LossyMount`` starts it and speaks to it: one command a line on stdin, one JSON object a line on stdout.

    cut                                     drop what is not durable                    {"cut": {...}}
    boot                                    mount again, after a cut                    {"booted": true}
    arm REQUEST PATTERN SKIP                cut at a later request                      {"armed": true} … {"cut": {...}}
    fail REQUEST PATTERN ERRNO SKIP COUNT   answer requests with an error               {"failing": true}
    clear                                   no more errors, no armed cut                {"clear": true}
    stats                                   requests seen and failed                    {"stats": {...}}

It ends, and unmounts, when stdin closes, at SIGTERM, or after its time limit, so that no dead test leaves a mount.
After a cut every request fails with ENOTCONN, for ever for programs that had files open: their host has died.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import select
import signal
import stat
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from tests.support.fuse import protocol
from tests.support.fuse.mounting import mount, unmount
from tests.support.fuse.protocol import Op
from tests.support.lossyfs import replies
from tests.support.lossyfs.faults import Faults, Trigger
from tests.support.lossyfs.tree import Node, Tree


@dataclass
class Handle:
    """An open file. ``failures_seen``: each open handle reports a failed sync once."""

    node: Node
    failures_seen: int


@dataclass
class PendingReply:
    """A sync whose disk has not answered yet."""

    due: float
    unique: int
    finish: Callable[[], None]


class PowerCut(Exception):
    """The armed request arrived."""


class Server:
    """One mounted tree.

    Args:
        tree: what is served.
        folder: where to mount it.
        direct: read past the kernel's page cache, so that read errors reach the reader.
        sync_delay_sec: how long the disk takes to answer a sync, in seconds.
    """

    def __init__(self, tree: Tree, folder: str, *, direct: bool, sync_delay_sec: float) -> None:
        self.tree, self.folder, self.direct, self.sync_delay_sec = tree, folder, direct, sync_delay_sec
        self.faults = Faults()
        self.armed: Trigger | None = None
        self.buffer = bytearray(protocol.MAX_WRITE + 4096)
        self.poll = select.poll()
        self._start()

    # --- life

    def _start(self) -> None:
        self.nodes: dict[int, Node] = {1: self.tree.root}
        self.handles: dict[int, Handle] = {}
        self.listings: dict[int, list[tuple[str, Node]]] = {}
        self.waiting: deque[PendingReply] = deque()
        self.last_handle = 0
        self.fuse = mount(self.folder, source="lossyfs", subtype="lossyfs", nonblocking=True)
        self.powered = True
        self.poll.register(self.fuse, select.POLLIN)

    def _power_off(self) -> None:
        """Close the descriptor, so that every waiting request fails and no unmount waits for this server."""
        if self.powered:
            self.powered = False
            self.poll.unregister(self.fuse)
            os.close(self.fuse)
            self.waiting.clear()

    def cut(self, at: str) -> None:
        self.armed = None
        if self.powered:
            self._power_off()
            _say({"cut": {"at": at, **self.tree.lose_power()}})
        else:
            _say({"cut": {"at": "it was dark already"}})

    def boot(self) -> None:
        unmount(self.folder)
        self._start()
        _say({"booted": True})

    def stop(self) -> None:
        self._power_off()
        unmount(self.folder)

    def run(self) -> None:
        self.poll.register(0, select.POLLIN)
        commands = b""
        while True:
            ready = dict(self.poll.poll(self._milliseconds_to_wait()))
            self._answer_due()
            if self.powered and self.fuse in ready:
                try:
                    self._serve_waiting()
                except PowerCut as cut:
                    self.cut(str(cut))
            if 0 in ready:
                more = os.read(0, 4096)
                if not more:
                    return
                *lines, commands = (commands + more).split(b"\n")
                for line in lines:
                    self._command(line.decode().split())

    def _milliseconds_to_wait(self) -> int | None:
        if not self.waiting:
            return None
        return max(0, round((self.waiting[0].due - time.monotonic()) * 1000))

    def _answer_due(self) -> None:
        while self.waiting and self.waiting[0].due <= time.monotonic():
            pending = self.waiting.popleft()
            pending.finish()
            self._reply(pending.unique, 0)

    def _command(self, words: list[str]) -> None:
        match words:
            case ["cut"]:
                self.cut("command")
            case ["boot"]:
                self.boot()
            case ["arm", request, pattern, skip]:
                self.armed = Trigger(request, pattern, int(skip), 1)
                _say({"armed": True})
            case ["fail", request, pattern, error, skip, count]:
                self.faults.triggers.append(Trigger(request, pattern, int(skip), int(count), int(error)))
                _say({"failing": True})
            case ["clear"]:
                self.armed = None
                self.faults.triggers.clear()
                _say({"clear": True})
            case ["stats"]:
                _say({"stats": {"seen": self.faults.seen, "failed": self.faults.failed}})
            case _:
                _say({"unknown": words})

    # --- requests

    def _serve_waiting(self) -> None:
        for _ in range(64):
            try:
                size = os.readv(self.fuse, [self.buffer])
            except BlockingIOError:
                return
            except OSError as failure:
                if failure.errno in (errno.ENOENT, errno.EINTR):
                    continue
                raise
            _, op, unique, number, uid, gid, _, _, _ = protocol.IN_HEADER.unpack_from(self.buffer)
            body = memoryview(self.buffer)[protocol.IN_HEADER.size : size]
            action = self.ACTIONS.get(op)
            if action is None:
                self._reply(unique, errno.ENOSYS)
                continue
            try:
                answer = action(self, number, body, unique, uid, gid)
            except OSError as failure:
                self._reply(unique, failure.errno or errno.EIO)
                continue
            if answer is not None:
                self._reply(unique, 0, answer)

    def _reply(self, unique: int, error: int, answer: bytes = b"") -> None:
        head = protocol.OUT_HEADER.pack(protocol.OUT_HEADER.size + len(answer), -error, unique)
        with suppress(FileNotFoundError):  # the caller was killed, which withdraws its request
            os.writev(self.fuse, [head, answer])

    def _check(self, request: str, name: str) -> None:
        if self.armed is not None and self.armed.fires(request, name):
            raise PowerCut(f"{request} {name}")
        error = self.faults.check(request, name)
        if error:
            raise OSError(error, os.strerror(error), name)

    def _known(self, node: Node) -> Node:
        self.nodes[node.number] = node
        return node

    def _entry(self, node: Node) -> bytes:
        self._known(node)
        return replies.entry_reply(*_shown(node))

    def _opened(self, node: Node) -> bytes:
        self.last_handle += 1
        self.handles[self.last_handle] = Handle(node, node.content.failures)
        shared_memory = node.name.endswith(("-shm", "-gate"))
        flags = protocol.FOPEN_DIRECT_IO if self.direct and not shared_memory else protocol.FOPEN_KEEP_CACHE
        return protocol.OPEN_OUT.pack(self.last_handle, flags, 0)

    def _init(self, number: int, body: memoryview, *_: int) -> bytes:
        _, minor, read_ahead, flags = protocol.INIT_IN.unpack_from(body)
        return replies.init_reply(minor, flags, read_ahead)

    def _lookup(self, number: int, body: memoryview, *_: int) -> bytes:
        name = _names(body)[0]
        self._check("lookup", name)
        return self._entry(self.tree.lookup(self.nodes[number], name))

    def _reply_empty(self, number: int, body: memoryview, *_: int) -> None:
        return None

    def _forget(self, number: int, body: memoryview, *_: int) -> None:
        node = self.nodes.get(number)
        if node is not None and node.links == 0:
            del self.nodes[number]

    def _getattr(self, number: int, body: memoryview, *_: int) -> bytes:
        return replies.attr_reply(*_shown(self.nodes[number]))

    def _setattr(self, number: int, body: memoryview, *_: int) -> bytes:
        given, _, _, size, _, _, _, _, _, _, _, mode, _, uid, gid, _ = protocol.SETATTR_IN.unpack_from(body)
        node = self.nodes[number]
        if given & protocol.SET_SIZE:
            self._check("truncate", node.name)
            node.content.truncate(size)
        if given & protocol.SET_MODE:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        node.uid = uid if given & protocol.SET_UID else node.uid
        node.gid = gid if given & protocol.SET_GID else node.gid
        node.changed_ns = time.time_ns()
        return replies.attr_reply(*_shown(node))

    def _make(self, parent: int, name: str, mode: int, uid: int, gid: int) -> Node:
        self._check("create", name)
        node = self.tree.create(self.nodes[parent], name, mode, uid, gid)
        node.changed_ns = time.time_ns()
        return self._known(node)

    def _mkdir(self, number: int, body: memoryview, unique: int, uid: int, gid: int) -> bytes:
        mode = int.from_bytes(body[:4], "little")
        return self._entry(self._make(number, _names(body[8:])[0], stat.S_IFDIR | mode, uid, gid))

    def _mknod(self, number: int, body: memoryview, unique: int, uid: int, gid: int) -> bytes:
        mode = int.from_bytes(body[:4], "little")
        if not stat.S_ISREG(mode):
            raise OSError(errno.EPERM, "only plain files")
        return self._entry(self._make(number, _names(body[16:])[0], mode, uid, gid))

    def _create(self, number: int, body: memoryview, unique: int, uid: int, gid: int) -> bytes:
        _, mode, _, _ = protocol.CREATE_IN.unpack_from(body)
        node = self._make(number, _names(body[protocol.CREATE_IN.size :])[0], mode, uid, gid)
        return self._entry(node) + self._opened(node)

    def _remove(self, number: int, body: memoryview, *_: int) -> bytes:
        name = _names(body)[0]
        self._check("unlink", name)
        self.tree.remove(self.nodes[number], name)
        return b""

    def _rename(self, number: int, body: memoryview, *_: int) -> bytes:
        return self._renamed(number, body, 8)

    def _rename2(self, number: int, body: memoryview, *_: int) -> bytes:
        if any(body[8:12]):
            raise OSError(errno.EINVAL, "no such kind of rename")
        return self._renamed(number, body, 16)

    def _renamed(self, number: int, body: memoryview, names_at: int) -> bytes:
        old, new = _names(body[names_at:])
        self._check("rename", new)
        target = int.from_bytes(body[:8], "little")
        self.tree.rename(self.nodes[number], old, self.nodes[target], new)
        return b""

    def _link(self, number: int, body: memoryview, *_: int) -> bytes:
        name = _names(body[8:])[0]
        self._check("create", name)
        node = self.nodes[int.from_bytes(body[:8], "little")]
        self.tree.link(node, self.nodes[number], name)
        return self._entry(node)

    def _open(self, number: int, body: memoryview, *_: int) -> bytes:
        node = self.nodes[number]
        self._check("open", node.name)
        return self._opened(node)

    def _read(self, number: int, body: memoryview, *_: int) -> bytes:
        handle, offset, size = protocol.READ_IN.unpack_from(body)[:3]
        node = self.handles[handle].node
        self._check("read", node.name)
        return node.content.read(offset, size)

    def _write(self, number: int, body: memoryview, *_: int) -> bytes:
        _, offset, size, _, _, flags, _ = protocol.WRITE_IN.unpack_from(body)
        node = self.nodes[number]
        self._check("write" if offset else "header", node.name)
        self.tree.write(node, offset, body[protocol.WRITE_IN.size : protocol.WRITE_IN.size + size])
        node.changed_ns = time.time_ns()
        if flags & os.O_DSYNC:
            self.tree.sync(node)
        return protocol.WRITE_OUT.pack(size, 0)

    def _fsync(self, number: int, body: memoryview, unique: int, *_: int) -> bytes | None:
        handle = self.handles[int.from_bytes(body[:8], "little")]
        content = handle.node.content
        try:
            self._check("sync", handle.node.name)
        except OSError:
            content.fail_sync()
            handle.failures_seen = content.failures
            raise
        finish = self.tree.begin_sync(handle.node)
        if handle.failures_seen < content.failures:
            handle.failures_seen = content.failures
            finish()
            raise OSError(errno.EIO, "an earlier sync failed, and this handle was not told yet")
        return self._answer_later(finish, unique)

    def _fsyncdir(self, number: int, body: memoryview, unique: int, *_: int) -> bytes | None:
        node = self.nodes[number]
        self._check("sync", node.name)
        return self._answer_later(self.tree.begin_sync(node), unique)

    def _answer_later(self, finish: Callable[[], None], unique: int) -> bytes | None:
        if not self.sync_delay_sec:
            finish()
            return b""
        self.waiting.append(PendingReply(time.monotonic() + self.sync_delay_sec, unique, finish))
        return None

    def _release(self, number: int, body: memoryview, *_: int) -> bytes:
        del self.handles[int.from_bytes(body[:8], "little")]
        return b""

    def _statfs(self, number: int, body: memoryview, *_: int) -> bytes:
        plenty = 1 << 24
        return protocol.STATFS_OUT.pack(plenty, plenty, plenty, plenty, plenty, 4096, 255, 4096, 0)

    def _opendir(self, number: int, body: memoryview, *_: int) -> bytes:
        folder = self.nodes[number]
        self.last_handle += 1
        self.listings[self.last_handle] = [(".", folder), ("..", folder), *sorted(folder.entries.items())]
        return protocol.OPEN_OUT.pack(self.last_handle, 0, 0)

    def _readdir(self, number: int, body: memoryview, *_: int) -> bytes:
        handle, offset, size = protocol.READ_IN.unpack_from(body)[:3]
        answer = b""
        for position, (name, node) in enumerate(self.listings[handle][offset:], offset + 1):
            entry = replies.folder_entry(node.number, position, name, node.mode)
            if len(answer) + len(entry) > size:
                break
            answer += entry
        return answer

    def _releasedir(self, number: int, body: memoryview, *_: int) -> bytes:
        del self.listings[int.from_bytes(body[:8], "little")]
        return b""

    ACTIONS: ClassVar[dict[int, Callable[..., bytes | None]]] = {
        Op.INIT: _init,
        Op.LOOKUP: _lookup,
        Op.FORGET: _forget,
        Op.BATCH_FORGET: _reply_empty,
        Op.INTERRUPT: _reply_empty,
        Op.GETATTR: _getattr,
        Op.SETATTR: _setattr,
        Op.MKDIR: _mkdir,
        Op.MKNOD: _mknod,
        Op.CREATE: _create,
        Op.UNLINK: _remove,
        Op.RMDIR: _remove,
        Op.RENAME: _rename,
        Op.RENAME2: _rename2,
        Op.LINK: _link,
        Op.OPEN: _open,
        Op.READ: _read,
        Op.WRITE: _write,
        Op.FSYNC: _fsync,
        Op.FSYNCDIR: _fsyncdir,
        Op.RELEASE: _release,
        Op.STATFS: _statfs,
        Op.OPENDIR: _opendir,
        Op.READDIR: _readdir,
        Op.RELEASEDIR: _releasedir,
    }


def _shown(node: Node) -> tuple[int, int, int, int, int, int, int]:
    links = 2 if node.is_folder else node.links
    return node.number, len(node.content.visible), node.mode, links, node.uid, node.gid, node.changed_ns


def _names(raw: memoryview) -> list[str]:
    return [os.fsdecode(name) for name in bytes(raw).split(b"\0")[:-1]]


def _say(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="a file system that forgets what was not synced")
    parser.add_argument("folder")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--unit", type=int, default=4096, help="bytes that reach the disk together")
    parser.add_argument("--names", choices=["posix", "ext4"], default="posix", help="which sync keeps a name")
    parser.add_argument("--direct", action="store_true", help="no page cache")
    parser.add_argument("--sync-delay-ms", type=float, default=0.0, help="how long the disk takes to sync")
    parser.add_argument("--limit-sec", type=int, default=600, help="end after this long, whatever happens")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, lambda *_: sys.exit(1))
    signal.alarm(options.limit_sec)
    tree = Tree(options.seed, unit=options.unit, names=options.names)
    server = Server(tree, options.folder, direct=options.direct, sync_delay_sec=options.sync_delay_ms / 1000)
    try:
        _say({"ready": True})
        server.run()
    finally:
        server.stop()


if __name__ == "__main__":
    main()
