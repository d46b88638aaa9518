"""The engines: the verbs over the protocols of a store, and the stores on SQLite and PostgreSQL that implement them.

Called by the registry and the packages above it; ``open.py`` opens an engine. Never imports those packages. The two
stores know nothing of each other, and the verbs know neither.
"""
