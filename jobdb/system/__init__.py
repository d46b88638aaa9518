"""Services of the operating system and of Python that know nothing of jobs: descriptors, processes, terminals.

Used by the command line and most packages; imports only ``errors``.
"""
