"""The bytes of a database's files on which SQLite takes its locks.

Used by the modules that take, list or check such locks. Constants only.

Sources: https://sqlite.org/src/file/src/os_unix.c (database), https://sqlite.org/walformat.html#wal_locks (``-shm``)
"""

from __future__ import annotations

SHARED_RANGE = (0x40000002, 510)
"""Start and length, in the database: readers lock it shared; a writer of a rollback journal, and the last connection to
close a WAL database, lock it exclusively."""

READ_MARKS = range(123, 128)
"""In the ``-shm``: a reader locks one of these, so that what it reads is not overwritten."""

DMS_BYTE = (128, 1)
"""Start and length, in the ``-shm``: every process that has the database open locks it shared ("dead man's switch")."""

WAL_LOCKS = range(120, 129)
"""All bytes of the ``-shm`` that SQLite locks: write, checkpoint, recovery, the read marks, the DMS byte."""
