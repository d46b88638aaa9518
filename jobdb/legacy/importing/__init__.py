"""The import of an old registry: read, normalize, plan, write, verify. Begins in ``importer.py``.

Called by the command line and by applications, through ``jobdb.legacy``; writes to the database and never to the old
registry, of which it only takes the lock.
"""
