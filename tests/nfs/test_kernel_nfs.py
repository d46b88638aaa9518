"""Test the kernel's NFS client and server, versions 4.2 and 3, in a small virtual machine: `make test-nfs`.

Opt-in (JOBDB_TEST_NFS=1): it needs Debian's qemu-system-x86, mmdebstrap and zstd, the network for the first
image, and ten minutes or so. It runs under plain emulation; JOBDB_NFS_ACCEL=kvm asks for KVM, and
JOBDB_NFS_ONLY=REGEX (without spaces) for some of the scenarios.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.nfs import vm_image
from tests.support.environment import USER_ENVIRONMENT
from tests.support.paths import TESTS
from tests.support.requirements import opt_in

HERE = Path(__file__).resolve().parent
BOOT_AND_RUN_LIMIT_SEC = 1500
SCENARIOS = 19
ONLY = os.environ.get("JOBDB_NFS_ONLY", "")

pytestmark = opt_in("JOBDB_TEST_NFS", "make test-nfs")


def test_scenarios_with_the_kernels_nfs_client(tmp_path: Path) -> None:
    assert not vm_image.missing_tools(), (
        f"install {vm_image.missing_tools()} (apt-get install qemu-system-x86 mmdebstrap zstd)"
    )
    cache = Path(os.environ.get("JOBDB_NFS_CACHE") or Path(USER_ENVIRONMENT["HOME"]) / ".cache" / "jobdb-nfs")
    kernel, base = vm_image.base(cache)
    guest = HERE / "guest"
    files = {
        "init": guest / "init",
        "opt/guest/machines.py": guest / "machines.py",
        "opt/guest/scenarios.py": guest / "scenarios.py",
        "opt/guest/worker_program.py": TESTS / "support" / "twohosts" / "worker_program.py",
    }
    added = vm_image.build_overlay(cache, tmp_path / "added.cpio", files)
    initramfs = tmp_path / "initramfs"
    with initramfs.open("wb") as out:  # the kernel unpacks archives that follow each other
        out.write(base.read_bytes())
        out.write(b"\0" * (-out.tell() % 4))
        out.write(added.read_bytes())

    # The kernel passes parameters that it does not know to /init as environment variables.
    only = f"JOBDB_NFS_ONLY={ONLY}" if ONLY else ""
    accelerator = os.environ.get("JOBDB_NFS_ACCEL", "tcg")
    command = [
        "qemu-system-x86_64", "-accel", accelerator, "-cpu", "max", "-smp", "2", "-m", "2048", "-nodefaults",
        "-nographic", "-no-reboot", "-serial", "stdio", "-kernel", str(kernel), "-initrd", str(initramfs),
        "-append", f"console=ttyS0 rdinit=/init panic=1 quiet {only}",
    ]  # fmt: skip
    log = tmp_path / "console.log"
    with log.open("wb") as out:
        machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        try:
            machine.wait(timeout=BOOT_AND_RUN_LIMIT_SEC)
        finally:
            machine.kill()
            machine.wait(timeout=30)
    console = log.read_text("utf-8", "replace")
    seen = re.findall(r"SEEN (.*)", console)  # the firmware may have left something at a line's start
    print("\n".join(seen))
    assert "SCENARIOS END 0" in console, console[-4000:]
    assert seen if ONLY else len(seen) == SCENARIOS, seen
    failed = [line for line in seen if " FAILED " in line]
    assert not failed, "\n".join(failed)
