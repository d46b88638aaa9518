"""The file system in memory: folders, files, and a journal of the name changes that are not yet durable.

Pure: no /dev/fuse, no real file, no clock. ``server`` calls it for each request of the kernel.

Names follow POSIX at its strictest: a create, rename, link or unlink is durable once the *folder* was synced.
With ``names="ext4"`` a sync of the file also makes the names durable up to the file's own, as ext4, xfs and btrfs do.
Changes of names reach the disk in their order (all these file systems journal them), so a power failure keeps
some first part of them. Modes and owners are durable at once: no test here is about them.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from tests.support.lossyfs.content import Content

NameDurability = Literal["posix", "ext4"]


@dataclass(eq=False)
class Node:
    """A file or a folder. ``name`` is the last name it had, for messages and fault patterns."""

    number: int
    mode: int
    uid: int
    gid: int
    name: str
    content: Content
    entries: dict[str, Node] = field(default_factory=dict)
    durable_entries: dict[str, Node] = field(default_factory=dict)
    links: int = 1
    changed_ns: int = 0

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


Change = tuple[Node, str, Node | None]


class Tree:
    """A whole file system.

    Args:
        seed: of every random choice.
        unit: bytes that reach the disk together.
        names: which sync makes a name durable.
        write_back: the chance that a write makes the kernel flush some unit of that file early.
    """

    def __init__(
        self, seed: int, *, unit: int = 4096, names: NameDurability = "posix", write_back: float = 0.05
    ) -> None:
        self.random = Random(seed)
        self.unit, self.names, self.write_back = unit, names, write_back
        self._last_number = 0
        self._journal: list[list[Change]] = []
        self.root = self._node(stat.S_IFDIR | 0o755, 0, 0, "/")

    def _node(self, mode: int, uid: int, gid: int, name: str) -> Node:
        self._last_number += 1
        return Node(self._last_number, mode, uid, gid, name, Content(self.unit))

    def _change(self, *changes: Change) -> None:
        for folder, name, node in changes:
            if node is None:
                del folder.entries[name]
            else:
                folder.entries[name] = node
                node.name = name
        self._journal.append(list(changes))

    def _commit(self, count: int) -> None:
        for change in self._journal[:count]:
            _apply(change)
        del self._journal[:count]

    # --- names

    def lookup(self, folder: Node, name: str) -> Node:
        try:
            return folder.entries[name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such name", name) from None

    def create(self, folder: Node, name: str, mode: int, uid: int, gid: int) -> Node:
        if name in folder.entries:
            raise FileExistsError(errno.EEXIST, "the name is taken", name)
        node = self._node(mode, uid, gid, name)
        self._change((folder, name, node))
        return node

    def link(self, node: Node, folder: Node, name: str) -> None:
        if name in folder.entries:
            raise FileExistsError(errno.EEXIST, "the name is taken", name)
        node.links += 1
        self._change((folder, name, node))

    def remove(self, folder: Node, name: str) -> None:
        node = self.lookup(folder, name)
        if node.is_folder and node.entries:
            raise OSError(errno.ENOTEMPTY, "the folder is not empty", name)
        node.links -= 1
        self._change((folder, name, None))

    def rename(self, source: Node, old: str, target: Node, new: str) -> None:
        node = self.lookup(source, old)
        replaced = target.entries.get(new)
        if replaced is node:
            return
        if replaced is not None:
            if replaced.is_folder and replaced.entries:
                raise OSError(errno.ENOTEMPTY, "the folder is not empty", new)
            replaced.links -= 1
        self._change((source, old, None), (target, new, node))

    # --- bytes

    def write(self, node: Node, offset: int, data: bytes | memoryview) -> None:
        node.content.write(offset, data)
        if self.random.random() < self.write_back:
            node.content.write_back(self.random)

    def begin_sync(self, node: Node) -> Callable[[], None]:
        """Start to make a file's bytes or a folder's names durable; call the result to finish."""
        pending = None if node.is_folder else node.content.begin_sync()

        def finish() -> None:
            if pending is not None:
                node.content.finish_sync(pending)
            if node.is_folder or self.names == "ext4":
                self._commit_names_of(node)

        return finish

    def sync(self, node: Node) -> None:
        """Begin and finish at once."""
        self.begin_sync(node)()

    def _commit_names_of(self, node: Node) -> None:
        touching = [
            position
            for position, changes in enumerate(self._journal, 1)
            if any(node in (folder, child) for folder, _, child in changes)
        ]
        self._commit(max(touching, default=0))

    # --- power failure

    def lose_power(self) -> dict[str, int]:
        """Drop what is not durable, except what chance keeps; return counts of what was lost or kept.

        All nodes are new afterwards: earlier handles are invalid, as after a restart.
        """
        pending = len(self._journal)
        kept = self.random.choice((0, 0, pending, self.random.randint(0, pending)))
        self._commit(kept)
        self._journal.clear()
        unsynced = sum(not node.content.clean for node in _durable(self.root))
        dirty = sum(len(node.content.dirty) for node in _durable(self.root))
        self.root = self._restarted(self.root, {})
        return {"names_lost": pending - kept, "names_kept": kept, "unsynced_files": unsynced, "dirty_units": dirty}

    def _restarted(self, node: Node, done: dict[int, Node]) -> Node:
        if node.number in done:
            done[node.number].links += 1
            return done[node.number]
        content = node.content.after_power_loss(self.random)
        fresh = Node(node.number, node.mode, node.uid, node.gid, node.name, content, changed_ns=node.changed_ns)
        done[node.number] = fresh
        for name, child in sorted(node.durable_entries.items()):
            fresh.entries[name] = self._restarted(child, done)
        fresh.durable_entries = dict(fresh.entries)
        return fresh


def _apply(changes: list[Change]) -> None:
    for folder, name, node in changes:
        if node is None:
            folder.durable_entries.pop(name, None)
        else:
            folder.durable_entries[name] = node


def _durable(folder: Node) -> Iterator[Node]:
    for node in folder.durable_entries.values():
        yield node
        if node.is_folder:
            yield from _durable(node)
