"""The keeping of an attempt's processes: they end with the attempt, whatever happens to the worker.

Used by ``jobdb.work`` through :mod:`.client`, which starts the server; the server imports this package, too.

A *worker* starts one *server*, a small process of one thread. For each job, the server forks a *keeper*, which starts
the agent and holds one end of a socket pair with the worker. The keeper is a child subreaper: every process that the
agent starts, orphans included, is its descendant. It kills them all when the worker's end of the pair closes, when the
lease's deadline passes, when told to, and when the agent has ended. If the keeper is killed, they fall to the server,
which kills them; if the server is killed, its keepers go on, and orphans fall to the worker (`orphans`).

`server`, `attempt` and what they import run without the rest of jobdb: the standard library and two modules of
``jobdb.system`` are all, so that a fork costs little and carries no lock, thread or connection. `client`, `launch`,
`messages`, `orphans` and `server_process` are the worker's side.
"""
