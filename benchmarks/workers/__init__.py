"""Measure workers: jobdb's beside those of its peers: ``python -m benchmarks.workers``.

A peer (peers/) is a worker with slots on a queue that it fills itself; each run is in a process of its own
(processes.py). series.py takes the measurements, targets.py compares them with the targets, report.py writes them.
"""
