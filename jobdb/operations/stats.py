"""How the work goes, in numbers: by status, agent and day, durations, refusals; as data and for Prometheus.

Called by ``jobdb stats``. Reads one moment's state.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import arguments
from ..engines.sql.statements import ACCEPT, JOBS, OUTBOX
from ..engines.statements import Statement, StatementSet
from ..model import JobStatus, format_time, from_ms
from ..registry import Registry


class StatsStatements(StatementSet):
    """The statements of ``stats.sql``."""

    stats_by_agent: Statement
    stats_by_day: Statement
    stats_durations: Statement
    stats_events: Statement


STATS = StatsStatements(Path(__file__).with_name("stats.sql"))


_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Duration:
    """How long an agent's jobs took from claim to end, in seconds."""

    agent: str
    jobs: int
    mean_sec: float
    longest_sec: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "agent": self.agent,
            "jobs": self.jobs,
            "mean_sec": self.mean_sec,
            "longest_sec": self.longest_sec,
        }


@dataclass(frozen=True, slots=True)
class Stats:
    """The numbers of one moment.

    Attributes:
        taken_at: that moment, UTC.
        days: how many days back ``by_day`` and ``durations`` go.
        jobs: how many jobs there are of each status.
        by_agent: the same for each agent that has jobs.
        by_day: the same for each UTC day on which jobs were registered, the oldest first.
        durations: of jobs that have ended, by agent.
        refusals: how often each verdict was given, and when last.
        events: how many events are kept.
        outbox: how many of them wait for the broker.
    """

    taken_at: str
    days: int
    jobs: dict[str, int]
    by_agent: dict[str, dict[str, int]]
    by_day: dict[str, dict[str, int]]
    durations: tuple[Duration, ...]
    refusals: dict[str, tuple[int, str | None]]
    events: int
    outbox: int

    def as_dict(self) -> dict[str, Any]:
        """The numbers as JSON-ready values, under the stable names of ``jobdb stats --json``."""
        return {
            "taken_at": self.taken_at,
            "days": self.days,
            "jobs": self.jobs,
            "by_agent": self.by_agent,
            "by_day": self.by_day,
            "durations": [duration.as_dict() for duration in self.durations],
            "refusals": {verdict: count for verdict, (count, _last) in self.refusals.items()},
            "refused_last_at": {verdict: last for verdict, (_count, last) in self.refusals.items()},
            "events": self.events,
            "outbox": self.outbox,
        }


def collect(registry: Registry, *, days: int = 14) -> Stats:
    """The numbers of now.

    Args:
        registry: the open registry.
        days: how many days back ``by_day`` and ``durations`` go.
    """
    days = arguments.integer("days", days, least=1, most=3660)
    store = registry.store
    with store.read() as tx:
        now = tx.now_ms
        since = now - days * _DAY_MS
        by_agent: dict[str, dict[str, int]] = {}
        for agent, status, count in tx.all(STATS.stats_by_agent):
            by_agent.setdefault(agent, _of_each_status())[status] = int(count)
        by_day: dict[str, dict[str, int]] = {}
        for number, status, count in tx.all(STATS.stats_by_day, since=since):
            day = (format_time(from_ms(int(number) * _DAY_MS)) or "")[:10]
            by_day.setdefault(day, _of_each_status())[status] = int(count)
        jobs = _of_each_status()
        jobs.update({status: int(count) for status, count in tx.all(JOBS.count_by_status)})
        return Stats(
            taken_at=format_time(from_ms(now)) or "",
            days=days,
            jobs=jobs,
            by_agent=by_agent,
            by_day=by_day,
            durations=tuple(
                Duration(agent, int(count), round(float(mean) / 1000, 3), round(float(longest) / 1000, 3))
                for agent, count, mean, longest in tx.all(STATS.stats_durations, since=since)
            ),
            refusals={
                verdict: (int(count), format_time(from_ms(int(last_ms))))
                for verdict, count, last_ms in tx.all(ACCEPT.verdict_totals)
            },
            events=_first(tx.one(STATS.stats_events)),
            outbox=_first(tx.one(OUTBOX.count_outbox)),
        )


def _of_each_status() -> dict[str, int]:
    return {status.value: 0 for status in JobStatus}


def _first(row: tuple[Any, ...] | None) -> int:
    return int(row[0]) if row else 0


def prometheus(stats: Stats) -> str:
    """The numbers in Prometheus' text format. Source: prometheus.io, "Exposition formats", version 0.0.4."""
    lines: list[str] = []

    def family(name: str, kind: str, text: str, samples: list[tuple[dict[str, str], float]]) -> None:
        lines.append(f"# HELP {name} {text}")
        lines.append(f"# TYPE {name} {kind}")
        for labels, value in samples:
            shown = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
            lines.append(f"{name}{{{shown}}} {value!r}" if shown else f"{name} {value!r}")

    family("jobdb_jobs", "gauge", "Jobs by status.", [({"status": s}, n) for s, n in stats.jobs.items()])
    family(
        "jobdb_agent_jobs",
        "gauge",
        "Jobs by agent and status.",
        [
            ({"agent": agent, "status": status}, count)
            for agent, counts in stats.by_agent.items()
            for status, count in counts.items()
        ],
    )
    span = f"of the jobs that ended in the last {stats.days} days, by agent."
    family(
        "jobdb_job_duration_mean_seconds",
        "gauge",
        f"Mean time from claim to end {span}",
        [({"agent": one.agent}, one.mean_sec) for one in stats.durations],
    )
    family(
        "jobdb_job_duration_longest_seconds",
        "gauge",
        f"Longest time from claim to end {span}",
        [({"agent": one.agent}, one.longest_sec) for one in stats.durations],
    )
    family("jobdb_events", "gauge", "Events recorded and kept.", [({}, stats.events)])
    family("jobdb_outbox_events", "gauge", "Events that wait for the broker.", [({}, stats.outbox)])
    family(
        "jobdb_refusals_total",
        "counter",
        "Wire events refused, by verdict.",
        [({"verdict": verdict}, count) for verdict, (count, _last) in stats.refusals.items()],
    )
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
