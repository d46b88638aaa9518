"""A program that runs a worker until it is killed: ``worker_program URL [--lease-sec SEC] [--processes]``."""

from __future__ import annotations

import argparse

from jobdb import Registry
from jobdb.work import Worker
from tests.support.keys import vault
from tests.support.work_handlers import handle


def main() -> None:
    """Run the worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--lease-sec", type=float, default=60.0)
    parser.add_argument("--processes", action="store_true")
    options = parser.parse_args()
    with Registry.open(options.url, vault=vault()) as registry:
        executor = "processes" if options.processes else "threads"
        Worker(registry, handle, executor=executor, lease_sec=options.lease_sec, reap=False).run()


if __name__ == "__main__":
    main()
