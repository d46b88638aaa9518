"""A file system that forgets what was not synced, to test what survives a power failure.

``mount.LossyMount`` is what tests use: it starts ``server`` in a process of its own, which serves the in-memory
``tree`` through /dev/fuse (``tests.support.fuse.protocol`` holds the protocol's structures). Needs root and
/dev/fuse, nothing else.
"""
