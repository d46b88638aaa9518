"""Measures jobdb beside the ways it replaces and its peers: ``python -m benchmarks``."""

import os

# Workers are spawned with ``python -c``, which would look for its modules in the current folder first.
os.environ.setdefault("PYTHONSAFEPATH", "1")
