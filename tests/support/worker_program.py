"""A program that runs a worker until it is killed or has nothing to do.

``worker_program URL [--lease-sec SEC] [--processes | --script SH --workdir FOLDER] [--until-empty]``
"""

from __future__ import annotations

import argparse
from typing import Any

from jobdb import Registry
from jobdb.work import CommandRunner, Worker
from tests.support.keys import vault
from tests.support.work_handlers import handle


def main() -> None:
    """Run the worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--lease-sec", type=float, default=60.0)
    parser.add_argument("--processes", action="store_true")
    parser.add_argument("--script")
    parser.add_argument("--workdir")
    parser.add_argument("--until-empty", action="store_true")
    options = parser.parse_args()
    handler: Any = handle
    if options.script is not None:
        handler = CommandRunner(["/bin/sh", "-c", options.script], workdir=options.workdir, adopt_orphans=True)
    with Registry.open(options.url, vault=vault()) as registry:
        executor: Any = "processes" if options.processes else "threads"
        Worker(registry, handler, executor=executor, lease_sec=options.lease_sec, until_empty=options.until_empty).run()


if __name__ == "__main__":
    main()
