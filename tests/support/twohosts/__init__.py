"""One folder mounted by two hosts that have caches and locks of their own, served by one process."""
