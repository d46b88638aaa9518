"""A file system that drops unsynced data at a power failure, to test what survives.

Tests use ``mount.LossyMount``: it starts ``server`` in a separate process, which serves the in-memory
``tree`` through /dev/fuse (``tests.support.fuse.protocol`` holds the protocol's structures). Needs root and
/dev/fuse, nothing else.
"""
