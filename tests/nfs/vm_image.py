"""Build what the virtual machine boots: a kernel and an initial file system with NFS, Python and jobdb in it.

Used by test_kernel_nfs.py. The base (Debian by mmdebstrap, about two minutes) is kept in a cache folder and
built again when its package list changes; what changes with the code is a second archive, built for each run.
Needs Debian's mmdebstrap and zstd, and pip. Works without root where user namespaces are allowed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tests.support.environment import USER_ENVIRONMENT
from tests.support.paths import ROOT

SUITE = "bookworm"  # its python3 is 3.11: the wheels are fetched for that
PYTHON = "3.11"
PACKAGES = (
    "linux-image-cloud-amd64", "python3", "nfs-kernel-server", "nfs-common", "rpcbind", "iproute2", "kmod",
)  # fmt: skip
_KEPT_MODULES = ("kernel/fs/", "kernel/net/", "kernel/lib/", "kernel/crypto/", "kernel/drivers/net/veth.ko")
_DROPPED = ("boot/", "usr/share/", "var/cache/", "var/lib/apt/", "var/lib/dpkg/", "dev/", "proc/", "sys/")


def base(cache: Path) -> tuple[Path, Path]:
    """Return the kernel and the base archive, from the cache or made now.

    Raises:
        subprocess.CalledProcessError: mmdebstrap or zstd failed; their output says why.
    """
    mark = hashlib.sha256(repr((SUITE, PACKAGES, _KEPT_MODULES, _DROPPED)).encode()).hexdigest()[:12]
    kernel, archive = cache / f"vmlinuz-{mark}", cache / f"base-{mark}.cpio.zst"
    if kernel.exists() and archive.exists():
        return kernel, archive
    cache.mkdir(parents=True, exist_ok=True)
    rootfs = cache / f"rootfs-{mark}.tar"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(rootfs)]
    subprocess.run(command, check=True, timeout=900, env=USER_ENVIRONMENT)
    unpacked = cache / f"base-{mark}.cpio"
    with tarfile.open(rootfs) as tar, unpacked.open("wb") as file:
        out = CpioArchive(file)
        for member in tar:
            name = member.name.removeprefix("./").lstrip("/")
            if name.startswith("boot/vmlinuz-"):
                source = tar.extractfile(member)
                assert source is not None
                kernel.write_bytes(source.read())
            if name and _wanted(name):
                _copy(tar, member, name, out)
        out.end()
    subprocess.run(["zstd", "-q", "-3", "--rm", "-f", str(unpacked), "-o", str(archive)], check=True, timeout=300)
    rootfs.unlink()
    return kernel, archive


def _wanted(name: str) -> bool:
    if name.startswith(_DROPPED):
        return False
    if name.endswith(".ko"):
        return any(part in name for part in _KEPT_MODULES)
    return True


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, out: CpioArchive) -> None:
    if member.isdir():
        out.folder(name, member.mode)
    elif member.issym():
        out.link(name, member.linkname)
    elif member.isreg() or member.islnk():
        source = tar.extractfile(member)
        assert source is not None
        out.file(name, source.read(), member.mode)


def build_overlay(cache: Path, target: Path, files: dict[str, Path]) -> Path:
    """Build the second archive: jobdb as it is now, its dependencies, and the guest's programs.

    Args:
        cache: where fetched wheels are kept.
        target: the archive to write.
        files: further files, by their path in the guest.
    """
    wheels = cache / "wheels"
    platform = ["--python-version", PYTHON, "--only-binary=:all:", "--platform", "manylinux2014_x86_64"]
    platform += ["--platform", "manylinux_2_28_x86_64"]
    needed = _requirements()
    command = [sys.executable, "-m", "pip", "download", "-qqq", "--dest", str(wheels), *platform, *needed]
    subprocess.run(command, check=True, timeout=600, env=USER_ENVIRONMENT)
    with target.open("wb") as file:
        out = CpioArchive(file)
        for folder in ("opt", "opt/lib", "opt/guest"):
            out.folder(folder, 0o755)
        for wheel in sorted(wheels.glob("*.whl")):
            for name, content in _wheel_files(wheel):
                out.file(f"opt/lib/{name}", content, 0o644)
        for source, package in (("jobdb", "jobdb"), ("schema", "jobdb/schema")):
            for path in sorted((ROOT / source).rglob("*")):
                if path.is_file() and path.suffix in (".py", ".sql", ".json"):
                    name = f"opt/lib/{package}/{path.relative_to(ROOT / source)}"
                    out.file(name, path.read_bytes(), 0o644)
        for name, path in files.items():
            out.file(name, path.read_bytes(), 0o755)
        out.end()
    return target


def _requirements() -> list[str]:
    import tomllib

    with (ROOT / "pyproject.toml").open("rb") as file:
        return list(tomllib.load(file)["project"]["dependencies"])


def _wheel_files(wheel: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            if not entry.is_dir():
                yield entry.filename, archive.read(entry)


class CpioArchive:
    """A writer of cpio archives in the form that the kernel unpacks ("newc")."""

    def __init__(self, file: object) -> None:
        self._file = file
        self._number = 0
        self._made: set[str] = set()

    def folder(self, name: str, mode: int) -> None:
        name = name.rstrip("/")
        if name not in self._made:
            self._made.add(name)
            self._entry(name, stat.S_IFDIR | mode & 0o7777, b"")

    def link(self, name: str, target: str) -> None:
        self._entry(name, stat.S_IFLNK | 0o777, os.fsencode(target))

    def file(self, name: str, content: bytes, mode: int) -> None:
        for parent in reversed(PurePosixPath(name).parents):
            if str(parent) != "." and name.startswith("opt/"):
                self.folder(str(parent), 0o755)
        self._entry(name, stat.S_IFREG | mode & 0o7777, content)

    def end(self) -> None:
        self._entry("TRAILER!!!", 0, b"")

    def _entry(self, name: str, mode: int, content: bytes) -> None:
        self._number += 1
        raw = os.fsencode(name) + b"\0"
        fields = (self._number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(raw), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + raw
        padded = head + b"\0" * (-len(head) % 4) + content
        self._file.write(padded + b"\0" * (-len(padded) % 4))  # type: ignore[attr-defined]


def missing_tools() -> list[str]:
    """Return the required programs that are not installed."""
    return [tool for tool in ("mmdebstrap", "zstd", "qemu-system-x86_64") if shutil.which(tool) is None]
