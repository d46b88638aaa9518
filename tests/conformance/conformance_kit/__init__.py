"""What the conformance suite runs on: databases of every engine, worker processes, signed wire events."""
