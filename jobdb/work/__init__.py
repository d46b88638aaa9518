"""Running the jobs of a registry: the worker, its slots, and the processes of each attempt."""
