"""The verbs, written once for both databases, and their SQL.

Called by the registry and the packages above it, mostly through the engine (``engine.py``). Calls a database only
through the protocols in ``engines/store.py``; never imports a driver or one of the stores.
"""
