"""Files, locks and mounts: permissions, atomic names, and which journal a folder can bear."""
