"""Runs the ``jobdb`` command for ``python -m jobdb.cli``."""

from . import main

main()
