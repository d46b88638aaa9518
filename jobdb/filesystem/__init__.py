"""The file system that holds a database: mounts, placement policy, probe, permissions, file names and file locks."""
