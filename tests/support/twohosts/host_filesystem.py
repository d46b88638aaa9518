"""One host of the two-host file server: answers the kernel's requests for one mount from the backing folder.

Used by server.py, one `Host` per mount. Locks are answered by host_locks.py.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
import threading
import time
from collections.abc import Callable

from tests.support.fuse import protocol
from tests.support.fuse.protocol import Op
from tests.support.twohosts.host_locks import HostLocks, Request, Settings, deliver_grants
from tests.support.twohosts.lock_table import FileKey, LockTable, Owner
from tests.support.twohosts.nodes import ROOT, Node, NodeTable

_HELD_FOREVER = 1 << 60


class Host:
    """One mount: its requests, its open files, and their state when the network fails."""

    def __init__(self, settings: Settings, table: LockTable, number: int, fd: int) -> None:
        self._settings = settings
        self._table = table
        self._number = number
        self._fd = fd
        self._nodes = NodeTable()
        root = os.open(settings.backing, os.O_PATH)
        st = os.fstat(root)
        self._nodes.by_number[ROOT] = Node(root, (st.st_dev, st.st_ino), _HELD_FOREVER)
        self._files: dict[int, FileKey] = {}
        self._folders: dict[int, list[tuple[bytes, int]]] = {}
        self.locks = HostLocks(
            settings, table, number, fd, send=self._send, key_of=lambda node: self._nodes.by_number[node].key
        )
        self._connected = threading.Event()
        self._connected.set()
        self._lost_write_handles: set[int] = set()  # descriptors whose writes the server refuses
        self._stale_handles: set[int] = set()  # descriptors from before the server forgot this host

    # --- faults

    def cut(self) -> None:
        """Disconnect: every request hangs, as on a hard mount."""
        self._connected.clear()

    def heal(self) -> None:
        """Reconnect."""
        self._connected.set()

    def expire(self) -> None:
        """Give this host's locks away, as a server does when the host's lease has expired.

        What it writes through files that held a lock is lost, and reported by the next fsync; files that
        others have removed meanwhile are stale.
        """
        self._stale_handles |= set(self._files)
        lost, granted = self._table.release_host(self._number)
        self._lost_write_handles |= {fd for fd, key in self._files.items() if key in lost}
        deliver_grants(granted)

    # --- requests

    def serve_requests(self) -> None:
        """Answer requests until the mount goes; pass locks on to the other thread."""
        while True:
            try:
                message = os.read(self._fd, protocol.MAX_WRITE | 4096)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                return
            if not message:
                return
            self._connected.wait()
            _, operation, unique, node, uid, gid, _, _, _ = protocol.IN_HEADER.unpack_from(message)
            request = Request(operation, unique, node, message[protocol.IN_HEADER.size :], uid, gid)
            if operation in protocol.LOCK_OPERATIONS:
                self.locks.queue.put(request)
            else:
                self._answer(request)

    def _answer(self, request: Request) -> None:
        handler = _HANDLERS.get(request.operation)
        if handler is None:
            self._send(request.unique, errno.ENOSYS)
            return
        try:
            reply = handler(self, request)
        except OSError as error:
            self._send(request.unique, error.errno or errno.EIO)
        except Exception as error:
            sys.stderr.write(f"operation {request.operation}: {error!r}\n")
            self._send(request.unique, errno.EIO)
        else:
            if reply is not None:
                self._send(request.unique, 0, reply)

    def _send(self, unique: int, code: int, body: bytes = b"") -> None:
        head = protocol.OUT_HEADER.pack(protocol.OUT_HEADER.size + len(body), -code, unique)
        try:
            os.writev(self._fd, [head, body])
        except OSError as error:
            # The request was interrupted meanwhile, or the mount is gone.
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise

    def _node(self, request: Request) -> Node:
        return self._nodes.by_number[request.node]

    def _entry(self, parent: int, name: bytes) -> bytes:
        folder = self._nodes.by_number[parent].fd
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
        attributes = protocol.attributes(os.fstat(fd))
        number = self._nodes.number_of(fd)
        return self._entry_head(number, self._settings.entry_sec) + attributes

    def _entry_head(self, number: int, entry_sec: float) -> bytes:
        name_whole, name_part = protocol.duration(entry_sec)
        attr_whole, attr_part = protocol.duration(self._settings.attr_sec)
        return protocol.ENTRY_OUT.pack(number, 0, name_whole, attr_whole, name_part, attr_part)

    def _attributes(self, st: os.stat_result) -> bytes:
        return protocol.ATTRIBUTES_OUT.pack(*protocol.duration(self._settings.attr_sec), 0) + protocol.attributes(st)

    def init(self, request: Request) -> bytes:
        _, minor, readahead, offered = struct.unpack_from("<IIII", request.body)
        wanted = (
            protocol.ASYNC_READ
            | protocol.ATOMIC_O_TRUNC
            | protocol.BIG_WRITES
            | protocol.MAX_PAGES
            | protocol.INIT_EXTENDED
        )
        if self._settings.locks in ("server", "none", "posix"):
            wanted |= protocol.POSIX_LOCKS
        if self._settings.locks in ("server", "none", "flock"):
            wanted |= protocol.FLOCK_LOCKS
        if self._settings.cache == "auto":
            wanted |= protocol.AUTO_INVALIDATE_DATA
        return protocol.INIT_OUT.pack(
            7, min(minor, 39), readahead, wanted & offered, 12, 9, protocol.MAX_WRITE, 1, 32, 0,
            protocol.DIRECT_IO_MAY_MAP_2, 0, 0,
        )  # fmt: skip

    def lookup(self, request: Request) -> bytes:
        try:
            return self._entry(request.node, protocol.name(request.body))
        except FileNotFoundError:
            if not self._settings.negative_entry_sec:
                raise
            # A number of 0 makes the kernel remember that the name is not there.
            return self._entry_head(0, self._settings.negative_entry_sec) + bytes(protocol.ATTRIBUTES.size)

    def forget(self, request: Request) -> None:
        self._nodes.forget(request.node, struct.unpack_from("<Q", request.body)[0])

    def batch_forget(self, request: Request) -> None:
        for index in range(struct.unpack_from("<I", request.body)[0]):
            self._nodes.forget(*struct.unpack_from("<QQ", request.body, 8 + 16 * index))

    def getattr(self, request: Request) -> bytes:
        return self._attributes(os.fstat(self._node(request).fd))

    def setattr(self, request: Request) -> bytes:
        given = protocol.SETATTR_IN.unpack_from(request.body)
        valid, _, handle, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _ = given
        path = self._node(request).path
        if valid & protocol.SET_MODE:
            os.chmod(path, mode & 0o7777)
        if valid & (protocol.SET_UID | protocol.SET_GID):
            os.chown(path, uid if valid & protocol.SET_UID else -1, gid if valid & protocol.SET_GID else -1)
        if valid & protocol.SET_SIZE:
            os.truncate(handle if valid & protocol.SET_HANDLE else path, size)
        if valid & (protocol.SET_ATIME | protocol.SET_MTIME):
            st, now = os.stat(path), time.time_ns()
            accessed = now if valid & protocol.SET_ATIME_NOW else atime * 10**9 + atime_ns
            modified = now if valid & protocol.SET_MTIME_NOW else mtime * 10**9 + mtime_ns
            os.utime(
                path,
                ns=(
                    accessed if valid & protocol.SET_ATIME else st.st_atime_ns,
                    modified if valid & protocol.SET_MTIME else st.st_mtime_ns,
                ),
            )
        return self._attributes(os.stat(path))

    def _opened(self, fd: int, key: FileKey) -> bytes:
        self._files[fd] = key
        # Older kernels cannot map a file of direct I/O, and SQLite maps its -shm.
        shared_memory = os.readlink(f"/proc/self/fd/{fd}").endswith("-shm")
        direct = self._settings.cache == "direct" and not shared_memory
        return protocol.OPEN_OUT.pack(fd, protocol.FOPEN_DIRECT_IO if direct else 0, 0)

    def open(self, request: Request) -> bytes:
        flags = struct.unpack_from("<I", request.body)[0]
        node = self._node(request)
        fd = os.open(node.path, _server_flags(flags) & ~(os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW))
        return self._opened(fd, node.key)

    def create(self, request: Request) -> bytes:
        flags, mode, _, _ = struct.unpack_from("<IIII", request.body)
        name = protocol.name(request.body[16:])
        fd = os.open(name, _server_flags(flags) | os.O_CREAT, mode, dir_fd=self._node(request).fd)
        if os.geteuid() == 0 and request.uid:
            os.fchown(fd, request.uid, request.gid)
        st = os.fstat(fd)
        return self._entry(request.node, name) + self._opened(fd, (st.st_dev, st.st_ino))

    def read(self, request: Request) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", request.body)
        return os.pread(handle, size, offset)

    def write(self, request: Request) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", request.body)
        if handle in self._stale_handles and not os.fstat(handle).st_nlink:
            raise OSError(errno.ESTALE, "stale")
        if handle in self._lost_write_handles:
            return struct.pack("<II", size, 0)  # kept by the client, refused by the server, reported by fsync
        written = os.pwrite(handle, request.body[40 : 40 + size], offset)
        return struct.pack("<II", written, 0)

    def flush(self, request: Request) -> bytes:
        _, _, _, owner = struct.unpack_from("<QIIQ", request.body)
        deliver_grants(self._table.release_owner(self._node(request).key, Owner(self._number, 0, owner)))
        return b""

    def release(self, request: Request) -> bytes:
        handle, _, flags, owner = struct.unpack_from("<QIIQ", request.body)
        os.close(handle)
        key = self._files.pop(handle)
        self._lost_write_handles.discard(handle)
        self._stale_handles.discard(handle)
        if flags & protocol.RELEASE_FLOCK_UNLOCK:
            deliver_grants(self._table.release_owner(key, Owner(self._number, 1, owner)))
        return b""

    def fsync(self, request: Request) -> bytes:
        handle = struct.unpack_from("<Q", request.body)[0]
        if handle in self._lost_write_handles:
            self._lost_write_handles.discard(handle)  # reported once, as by the Linux client
            raise OSError(errno.EIO, "lost")
        return b""

    def reply_empty(self, request: Request) -> bytes:
        return b""

    def unlink(self, request: Request) -> bytes:
        os.unlink(protocol.name(request.body), dir_fd=self._node(request).fd)
        return b""

    def rmdir(self, request: Request) -> bytes:
        os.rmdir(protocol.name(request.body), dir_fd=self._node(request).fd)
        return b""

    def mkdir(self, request: Request) -> bytes:
        name = protocol.name(request.body[8:])
        os.mkdir(name, struct.unpack_from("<I", request.body)[0], dir_fd=self._node(request).fd)
        return self._entry(request.node, name)

    def mknod(self, request: Request) -> bytes:
        name = protocol.name(request.body[16:])
        os.mknod(name, struct.unpack_from("<I", request.body)[0], dir_fd=self._node(request).fd)
        return self._entry(request.node, name)

    def _rename(self, request: Request, names_at: int) -> bytes:
        target = self._nodes.by_number[struct.unpack_from("<Q", request.body)[0]].fd
        old, new = request.body[names_at:].split(b"\0")[:2]
        os.rename(old, new, src_dir_fd=self._node(request).fd, dst_dir_fd=target)
        return b""

    def rename(self, request: Request) -> bytes:
        return self._rename(request, 8)

    def rename2(self, request: Request) -> bytes:
        if struct.unpack_from("<I", request.body, 8)[0]:
            raise OSError(errno.EINVAL, "exchanging names is not offered")
        return self._rename(request, 16)

    def link(self, request: Request) -> bytes:
        source = self._nodes.by_number[struct.unpack_from("<Q", request.body)[0]].path
        name = protocol.name(request.body[8:])
        os.link(source, name, dst_dir_fd=self._node(request).fd, follow_symlinks=True)
        return self._entry(request.node, name)

    def symlink(self, request: Request) -> bytes:
        name, target = request.body.split(b"\0")[:2]
        os.symlink(target, name, dir_fd=self._node(request).fd)
        return self._entry(request.node, name)

    def readlink(self, request: Request) -> bytes:
        return os.readlink(b"", dir_fd=self._node(request).fd)

    def statfs(self, request: Request) -> bytes:
        v = os.statvfs(self._settings.backing)
        counts = (v.f_blocks, v.f_bfree, v.f_bavail, v.f_files, v.f_ffree)
        return struct.pack("<5Q4I24x", *counts, v.f_bsize, v.f_namemax, v.f_frsize, 0)

    def opendir(self, request: Request) -> bytes:
        entries = [(b".", 4), (b"..", 4)]
        for entry in os.scandir(self._node(request).path):
            entries.append((os.fsencode(entry.name), 4 if entry.is_dir(follow_symlinks=False) else 8))
        handle = max(self._folders, default=0) + 1
        self._folders[handle] = entries
        return protocol.OPEN_OUT.pack(handle, 0, 0)

    def readdir(self, request: Request) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", request.body)
        entries, out = self._folders[handle], b""
        for index in range(offset, len(entries)):
            name, kind = entries[index]
            entry = protocol.DIRECTORY_ENTRY.pack(index + 2, index + 1, len(name), kind) + name
            entry += b"\0" * (-len(entry) % 8)
            if len(out) + len(entry) > size:
                break
            out += entry
        return out

    def releasedir(self, request: Request) -> bytes:
        self._folders.pop(struct.unpack_from("<Q", request.body)[0], None)
        return b""


def _server_flags(flags: int) -> int:
    """Return the flags for the server's own descriptor, which must also read, and write at the kernel's offset."""
    flags &= ~(os.O_APPEND | os.O_DIRECT)
    return flags & ~os.O_ACCMODE | os.O_RDWR if flags & os.O_ACCMODE == os.O_WRONLY else flags


_HANDLERS: dict[int, Callable[[Host, Request], bytes | None]] = {
    Op.INIT: Host.init,
    Op.LOOKUP: Host.lookup,
    Op.FORGET: Host.forget,
    Op.BATCH_FORGET: Host.batch_forget,
    Op.GETATTR: Host.getattr,
    Op.SETATTR: Host.setattr,
    Op.OPEN: Host.open,
    Op.CREATE: Host.create,
    Op.READ: Host.read,
    Op.WRITE: Host.write,
    Op.FLUSH: Host.flush,
    Op.RELEASE: Host.release,
    Op.FSYNC: Host.fsync,
    Op.FSYNCDIR: Host.reply_empty,
    Op.DESTROY: Host.reply_empty,
    Op.UNLINK: Host.unlink,
    Op.RMDIR: Host.rmdir,
    Op.MKDIR: Host.mkdir,
    Op.MKNOD: Host.mknod,
    Op.RENAME: Host.rename,
    Op.RENAME2: Host.rename2,
    Op.LINK: Host.link,
    Op.SYMLINK: Host.symlink,
    Op.READLINK: Host.readlink,
    Op.STATFS: Host.statfs,
    Op.OPENDIR: Host.opendir,
    Op.READDIR: Host.readdir,
    Op.RELEASEDIR: Host.releasedir,
}
