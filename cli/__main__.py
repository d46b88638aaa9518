"""``python -m jobdb.cli``: the same as ``jobdb``."""

from . import main

main()
