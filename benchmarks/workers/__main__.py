"""Measure the workers and write workers.md and workers.json: ``python -m benchmarks.workers``.

The data must be on a disk (``--folder``); a folder in memory is refused. ``--report`` only writes the report again.
Ends with 1 if a peer failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from .. import machine
from .peers import PEERS
from .run import load, measure, save
from .series import FULL, QUICK

RESULTS = Path(__file__).parent.with_name("results")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about two minutes instead of about ten")
    parser.add_argument("--folder", type=Path, help="where to put the data: a folder on a disk (default: ./build)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to write results and report")
    parser.add_argument("--peers", help="only these, comma-separated: " + ", ".join(PEERS))
    parser.add_argument("--report", action="store_true", help="measure nothing; write the report again")
    arguments = parser.parse_args()
    if arguments.report:
        results = load(arguments.results, quick=arguments.quick)
        if results is None:
            parser.error(f"there are no results in {arguments.results}")
    else:
        base = arguments.folder or Path("build")
        base.mkdir(parents=True, exist_ok=True)
        if machine.in_memory(base):
            parser.error(f"{base} is in memory, where a sync costs nothing; pass a folder on a disk with --folder")
        folder = Path(tempfile.mkdtemp(prefix="workers-", dir=base)).resolve()
        folder.chmod(0o711)  # PostgreSQL's account must get through to its own folder
        try:
            names = arguments.peers.split(",") if arguments.peers else list(PEERS)
            results = measure(QUICK if arguments.quick else FULL, names, folder, _say)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    save(results, arguments.results, quick=arguments.quick)
    for name, failure in results["failures"].items():
        _say(f"failed: {name}: {failure}")
    return 1 if results["failures"] else 0


if __name__ == "__main__":
    # The processes are spawned with ``python -c``, which would look for its modules in the current folder first.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    sys.exit(main())
