"""One file's content: the bytes that programs see, and those that would survive a power failure.

Pure: no file system, no clock. Used by ``tree``. The model, per unit of 4096 bytes (512 for torn pages):

- A write changes the visible bytes only. Until a sync of the file each written unit may reach the disk or not,
  in any order; the size, and a truncation, likewise. Now and then a unit is written back early, so that the disk
  may also hold a version between two syncs.
- A sync makes all bytes and the size durable.
- A failed sync does what Linux does: the units count as clean afterwards and are never written by a later sync
  that succeeds, and each handle that was open reports the error once.
- Space that the file was extended by but whose bytes were lost reads as zeros or as garbage.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class PendingSync:
    """A sync on its way to the disk: the file's size and the unsynced units when it began."""

    size: int
    units: dict[int, bytes]


class Content:
    """The bytes of one file, twice.

    Args:
        unit: bytes that reach the disk together; 4096 for pages, 512 for sectors (torn pages).
    """

    def __init__(self, unit: int, durable: bytes = b"") -> None:
        self.unit = unit
        self.visible = bytearray(durable)
        self.durable = bytearray(durable)
        self.dirty: set[int] = set()
        self.failures = 0

    def _units(self, start: int, stop: int) -> range:
        return range(start // self.unit, -(-stop // self.unit))

    @property
    def clean(self) -> bool:
        return not self.dirty and len(self.visible) == len(self.durable)

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.visible[offset : offset + size])

    def write(self, offset: int, data: bytes | memoryview) -> None:
        if offset > len(self.visible):
            self.truncate(offset)
        self.visible[offset : offset + len(data)] = data
        self.dirty.update(self._units(offset, offset + len(data)))

    def truncate(self, size: int) -> None:
        """Cut or extend with zeros to ``size`` bytes; as volatile as a write."""
        old = len(self.visible)
        if size < old:
            del self.visible[size:]
            self.dirty = {unit for unit in self.dirty if unit * self.unit < size}
        elif size > old:
            self.visible.extend(bytes(size - old))
            self.dirty.update(self._units(old, size))

    def _persist(self, unit: int) -> None:
        start = unit * self.unit
        stop = min(start + self.unit, len(self.visible))
        if stop > len(self.durable):
            self.durable.extend(bytes(stop - len(self.durable)))
        self.durable[start:stop] = self.visible[start:stop]

    def begin_sync(self) -> PendingSync:
        """Start a sync: return the bytes that it has to make durable; later writes do not belong to it."""
        size = len(self.visible)
        return PendingSync(size, {unit: self.read(unit * self.unit, self.unit) for unit in self.dirty})

    def finish_sync(self, pending: PendingSync) -> None:
        """Finish a sync: ``pending`` is durable, except for units that an earlier failed sync gave up."""
        del self.durable[pending.size :]
        self.durable.extend(bytes(pending.size - len(self.durable)))
        for unit, data in pending.units.items():
            if unit in self.dirty:
                start = unit * self.unit
                self.durable[start : start + len(data)] = data
                if self.read(start, self.unit) == data:
                    self.dirty.discard(unit)

    def sync(self) -> None:
        """Begin and finish at once."""
        self.finish_sync(self.begin_sync())

    def fail_sync(self) -> None:
        """Fail a sync: nothing becomes durable, and later syncs do not try these units again."""
        self.dirty.clear()
        self.failures += 1

    def write_back(self, random: Random) -> None:
        """Write back one dirty unit, as the kernel does at any time."""
        if self.dirty:
            unit = random.choice(sorted(self.dirty))
            self._persist(unit)
            self.dirty.discard(unit)

    def after_power_loss(self, random: Random) -> Content:
        """Lose power: each unsynced unit survives or not, by one chance drawn for the whole file."""
        chance = random.choice((0.0, 0.0, 0.1, 0.5, 0.9, 1.0))
        disk, visible = bytearray(self.durable), self.visible
        if len(visible) < len(disk) and random.random() < chance:
            del disk[len(visible) :]
        kept = sorted(unit for unit in self.dirty if random.random() < chance)
        end = max((min((unit + 1) * self.unit, len(visible)) for unit in kept), default=0)
        if len(visible) > len(disk) and random.random() < chance:
            end = len(visible)
        if end > len(disk):
            hole = end - len(disk)
            disk.extend(random.randbytes(hole) if random.random() < 0.25 else bytes(hole))
        for unit in kept:
            start = unit * self.unit
            piece = visible[start : start + self.unit]
            disk[start : start + len(piece)] = piece
        return Content(self.unit, bytes(disk))
