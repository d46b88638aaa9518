"""Run agents: the worker that claims jobs, keeps their processes, hears their events and ends them.

Used by ``jobdb work`` and by applications that run jobs in Python. Calls the registry and what is below it.
"""
