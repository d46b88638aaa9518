"""Statistics of latencies: histograms that can be added up, percentiles, spreads.

Pure. Called by worker.py (one worker), harness.py (all workers of a run) and report.py. A histogram maps a bucket
number to a count; a bucket is 1/16 of a doubling wide, so a percentile is accurate within 4.5 per cent.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_PER_DOUBLING = 16

Histogram = dict[int, int]


def histogram(nanoseconds: Iterable[int]) -> Histogram:
    """Return the number of latencies by bucket."""
    counts: Histogram = {}
    for value in nanoseconds:
        bucket = round(math.log2(max(value, 1)) * _PER_DOUBLING)
        counts[bucket] = counts.get(bucket, 0) + 1
    return counts


def bucket_us(bucket: int) -> float:
    """Return the middle of a bucket in microseconds."""
    return float(2.0 ** (bucket / _PER_DOUBLING) / 1000)


def add(histograms: Iterable[Mapping[int, int]]) -> Histogram:
    """Return the sum of histograms."""
    total: Histogram = {}
    for counts in histograms:
        for bucket, count in counts.items():
            total[bucket] = total.get(bucket, 0) + count
    return dict(sorted(total.items()))


def percentile_us(counts: Mapping[int, int], share: float) -> float:
    """Return the latency in microseconds that a share (0 to 1) of the calls did not exceed; 0 for no calls."""
    wanted, seen = share * sum(counts.values()), 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= wanted:
            return bucket_us(bucket)
    return 0.0


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return median, extremes and quartiles of repeated measurements; all zero for none."""
    if not values:
        return {"median": 0.0, "min": 0.0, "max": 0.0, "q1": 0.0, "q3": 0.0, "n": 0}
    if len(values) == 1:
        q1 = q3 = values[0]
    else:
        q1, _, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "q1": q1,
        "q3": q3,
        "n": len(values),
    }
