"""Starts the ``jobdb`` command for ``python -m jobdb.cli``: called by the interpreter, calls ``main``."""

from . import main

main()
