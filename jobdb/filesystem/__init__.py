"""The file system below a database: mounts, placement policy, probe, permissions, names and locks of files."""
