"""The SQLite engine: a store whose writers queue at a gate, share their syncs, and survive interrupts and forks."""
